"""A document checked against the models: every mistake with its place, in a sentence.

msgspec finds mistakes fast but only the first, and in terms of Python. A correct file costs
one conversion; only a wrong one is examined.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from harness.model.fields import Keys
from harness.model.node import Node
from harness.model.problem import Problem, did_you_mean, one_of

M = TypeVar("M", bound=msgspec.Struct)

SCENARIO_FILE: Final = "write ruleset: and scenarios:"
"""Remedy for a file that should hold scenarios and is something else."""

MAX_PROBLEMS = 100
"""Reported for one file."""

_ONE_THREAD = threading.Lock()
"""msgspec looks into a model when it is first used, and crashes where two threads do so at once (0.21)."""


class _Mistake(NamedTuple):
    """What msgspec found."""

    keys: Keys
    about_key: bool
    """Whether the last key itself is wrong, not its value."""
    words: str


def convert(document: Node, model: type[M], *, needs: str = SCENARIO_FILE) -> tuple[M | None, Node, list[Problem]]:
    """What ``document`` says as a ``model``, what of the document that is, and what is wrong.

    Wrong parts are left out, so that the rest can be used; None when nothing remains. A part whose
    mistake may be caused by another one inside of it is left out without a word. ``needs`` is the remedy for a
    document that is no mapping.
    """
    with _ONE_THREAD:
        return _convert(document, model, needs)


def _convert(document: Node, model: type[M], needs: str) -> tuple[M | None, Node, list[Problem]]:
    problems: list[Problem] = []
    wrong: list[Keys] = []
    while len(problems) < MAX_PROBLEMS:
        try:
            return msgspec.convert(document.value, model), document, problems
        except msgspec.ValidationError as error:
            mistake = _locate(str(error), document, model)
        if not any(keys[: len(mistake.keys)] == mistake.keys for keys in wrong):
            problem = _explain(mistake, document, model)
            if not mistake.keys and not isinstance(document.value, dict):
                problem.remedy = needs
            problems.append(problem)
        if not mistake.keys:
            return None, document, problems
        wrong.append(mistake.keys)
        document = document.without(*mistake.keys)
    problems.append(Problem(f"has more than {MAX_PROBLEMS} mistakes", remedy="repair these first"))
    return None, document, problems


def check_value(value: object, kind: Any, model: type[Any], *keys: str | int) -> None:
    """Raise :class:`Problem` where ``value``, at ``keys`` of a ``model``, is no ``kind``, which the model can't say."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        _, described = _wanted(keys, False, model)
        raise Problem(f"{_shown(value)} is not valid", *keys, remedy=_advice(described)) from None


# --- where --------------------------------------------------------------------------------------

_MESSAGE = re.compile(r"(.*?)(?: - at (`key` in )?`\$([^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_SENTENCES: Final = re.compile(r"\. (?=[A-Z])")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def _locate(text: str, document: Node, model: type[Any]) -> _Mistake:
    """Read msgspec's message: ``Expected `int`, got `str` - at `$.scenarios[0].send.tcp.dport```.

    It names neither keys of a dict (``[...]``) nor which of them is wrong: those are found by
    trying each alone. Its indices count what is left of the document.
    """
    found = _MESSAGE.fullmatch(text)
    assert found is not None, text
    words, in_key, place = found[1], bool(found[2]), found[3] or ""
    steps = [name or index for name, index in _STEP.findall(place)] + ["..."] * in_key
    keys: Keys = ()
    for step in steps:
        node = document.nearest(*keys)
        if step == "...":
            keys = (*keys, next(key for key in node.children if _fails_alone(document, keys, key, text, model)))
        else:
            keys = (*keys, list(node.children)[int(step)] if isinstance(node.value, list) else step)
    if unknown_key := _UNKNOWN_KEY.fullmatch(words):
        return _Mistake((*keys, unknown_key[1]), True, words)
    return _Mistake(keys, in_key, words)


def _fails_alone(document: Node, keys: Keys, key: str | int, text: str, model: type[Any]) -> bool:
    for other in document.nearest(*keys).children:
        if other != key:
            document = document.without(*keys, other)
    try:
        msgspec.convert(document.value, model)
    except msgspec.ValidationError as error:
        return str(error) == text
    return False


# --- what ---------------------------------------------------------------------------------------


class _Case(NamedTuple):
    """A mistake, and what the model takes in its place."""

    mistake: _Mistake
    value: Any
    wanted: list[Any]
    """Kinds of value."""
    choices: list[str]
    """The words that it can be."""
    described: Mapping[str, Any]
    """What the model says about it, as a schema."""


def _explain(mistake: _Mistake, document: Node, model: type[Any]) -> Problem:
    """The mistake as a sentence for the author of the scenario."""
    import msgspec.inspect as kinds  # only for a mistake

    keys, about_key, words = mistake
    if _UNKNOWN_KEY.fullmatch(words):
        around, _ = _wanted(keys[:-1], False, model)
        known = [field.encode_name for kind in around if isinstance(kind, kinds.StructType) for field in kind.fields]
        remedy = did_you_mean(str(keys[-1]), known)
        return Problem(f"{_shown(keys[-1])} is not a valid key here", *keys, remedy=remedy, about_key=True)
    if found := re.fullmatch(r"Object missing required field `(.*)`", words):
        _, described = _wanted((*keys, found[1]), False, model)
        return Problem(f"'{found[1]}' is missing", *keys, remedy=_advice(described))
    wanted, described = _wanted(keys, about_key, model)
    choices = [str(name) for kind in wanted if isinstance(kind, kinds.LiteralType) for name in kind.values]
    value: Any = keys[-1] if about_key else document.nearest(*keys).value
    case = _Case(mistake, value, wanted, choices, described)
    for pattern, explain in _EXPLANATIONS:
        if found := re.match(pattern, words):
            sentence, remedy = explain(case, found)
            return Problem(sentence, *keys, remedy=remedy, about_key=about_key)
    bounds = [kind for kind in wanted if isinstance(kind, kinds.IntType) and kind.ge is not None]
    if bounds and isinstance(value, int):
        sentence = f"{value} is not in {bounds[0].ge}…{bounds[0].le}"
    else:
        sentence = f"{_shown(value)} is not valid"
    if keys[-1:] == ("from",) and _is_address(value):
        key = "ip6" if ":" in value else "ip"
        sentence = f"'{value}' is an address, but a packet is sent by a host of the lab"
        remedy = f"name the host, and write {key}: {{src: {value}}}, or {key} src {value} on one line"
        return Problem(sentence, *keys, remedy=remedy)
    return Problem(sentence, *keys, remedy=_advice(described), about_key=about_key)


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _another_word(case: _Case, _: re.Match[str]) -> tuple[str, str]:
    near = did_you_mean(str(case.value), case.choices)
    sentence = f"{_shown(case.value)} is not one of {one_of(case.choices)}"
    return sentence, near if near.startswith("did") else ""


def _another_type(case: _Case, found: re.Match[str]) -> tuple[str, str]:
    names = [_WORDS.get(name, name) for name in found[1].split(" | ") if name != "null"]
    remedy = _advice(case.described)
    if case.choices:
        remedy = f"it can be {one_of(case.choices)}"
    elif "str" in found[1] and found[2] in ("int", "float", "bool"):
        if not _refused_as_text(str(case.value), case.wanted):
            remedy = "put it in quotes"
    elif case.mistake.keys[2:] in _EXCHANGED and _holds(case.value, *_EXCHANGED[case.mistake.keys[2:]][:2]):
        remedy = f"did you mean {_EXCHANGED[case.mistake.keys[2:]][2]}"
    elif names == ["a list"] and isinstance(case.value, dict):
        remedy = "begin each entry with '- '"
    return f"must be {one_of(names)}, not {_shown(case.value)}", remedy


_EXCHANGED: Final[Mapping[Keys, tuple[type, type, str]]] = {
    ("each",): (dict, list, "matrix:, which takes a list of values for each name?"),
    ("matrix",): (list, dict, "each:, which takes a mapping for each scenario?"),
}
"""Keys of a scenario, and by what is written there, and in that, that another is meant."""


def _holds(value: Any, outer: type, inner: type) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, outer) and any(isinstance(one, inner) for one in inside)


def _another_length(case: _Case, found: re.Match[str]) -> tuple[str, str]:
    unit = "characters" if isinstance(case.value, str) else "entries"
    limit = f"{'at least' if found[1] == '>=' else 'at most'} {found[2]}"
    sentence = f"has {len(case.value)} {unit}, and can have {limit}" if case.value else "is empty"
    return sentence, _advice(case.described)


_EXPLANATIONS: Final = (
    (r"Invalid enum value", _another_word),
    (r"Expected `(.*)`, got `(.*)`$", _another_type),
    (r"Expected `.*` of length (>=|<=) (\d+)$", _another_length),
)
"""Messages of msgspec, and what gives a sentence and a remedy for each."""


def _refused_as_text(value: str, wanted: list[Any]) -> bool:
    """Whether no text is taken that looks like this, so that quotes would not help."""
    patterns = [kind.pattern for kind in wanted if getattr(kind, "pattern", None)]
    return bool(patterns) and not any(re.search(pattern, value) for pattern in patterns)


_WORDS = {"str": "text", "int": "a number", "array": "a list", "object": "a mapping", "bool": "true or false"}


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "'" + value.strip().replace("\n", " ⏎ ") + "'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"


def _advice(described: Mapping[str, Any]) -> str:
    """The model's description of a value, with its first example behind the first sentence."""
    if "description" not in described:
        return ""
    advice = f"expected: {described['description'].rstrip('.')}"
    example = next(iter(described.get("examples", ())), None)
    if isinstance(example, dict):
        from harness.scenario.examples import in_flow_style  # only for a mistake

        shown = in_flow_style(example)
    elif isinstance(example, str | int):
        shown = _shown(example).strip("'")
    else:
        return advice
    first, *more = _SENTENCES.split(advice, maxsplit=1)
    return ". ".join([f"{first}, such as {shown}", *more])


@functools.cache
def _kind(model: type[Any]) -> Any:
    """What msgspec knows of a model; it looks into all of it each time, which takes 30 ms."""
    import msgspec.inspect as kinds

    return kinds.type_info(model)


def _wanted(keys: Keys, about_key: bool, model: type[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The kinds of value that the model takes at ``keys``, and what it says about them, as a schema."""
    import msgspec.inspect as kinds

    found: list[Any] = [_kind(model)]  # type: ignore[arg-type]  # mypy takes no class for hashable
    described: dict[str, Any] = {}
    for place, key in enumerate(keys):
        inner: list[Any] = []
        for kind in found:
            if isinstance(kind, kinds.StructType):
                inner += [field.type for field in kind.fields if field.encode_name == key]
            elif isinstance(kind, kinds.DictType):
                inner.append(kind.key_type if about_key and place == len(keys) - 1 else kind.value_type)
            elif isinstance(kind, kinds.ListType):
                inner.append(kind.item_type)
        found, described = [], {}
        while inner:
            kind = inner.pop(0)
            if isinstance(kind, kinds.Metadata):
                described = {**(kind.extra_json_schema or {}), **described}
                inner.insert(0, kind.type)
            elif isinstance(kind, kinds.UnionType):
                inner[:0] = kind.types
            else:
                found.append(kind)
    return found, described
