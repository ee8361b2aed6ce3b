"""A YAML 1.2 text as plain values, each knowing its place.

Values and places are taken from the events of a parser in one walk, which lets nothing in that a scenario has no use
for: tags, merge keys, nulls and keys that are not text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import untrusted
from harness.bounds import SCENARIO_BYTES, YAML_DEPTH, YAML_VALUES
from harness.errors import Position, ScenarioError
from harness.model.node import LineColumn, Node
from harness.project import Project
from harness.scenario.events import Event, Kind, YamlSyntaxError, walk


def read(path: Path, project: Project, *, needs: str) -> Node:
    """The document in ``path``, which must really lie in ``project`` or where its settings allow it.

    ``needs`` is the remedy where it is empty.

    Raises :class:`~harness.errors.ScenarioError` when it cannot be read, is not YAML, or is more
    than a scenario file can be.
    """
    file = str(path)
    try:
        data = untrusted.read(path, SCENARIO_BYTES, allowed=project.allows)
    except untrusted.Unreadable as error:
        remedy = "split it" if isinstance(error, untrusted.TooLarge) else ""
        raise ScenarioError(error.sentence, Position(file), remedy=remedy) from None
    return parse(_decode(data, file), file, needs=needs)


def parse(text: str, file: str, *, needs: str = "") -> Node:
    """The document that ``text`` is; ``file`` is its name in errors, and ``needs`` the remedy where it is empty."""
    text = text.removeprefix("\ufeff")
    if found := _UNPRINTABLE.search(text):
        before = text[: found.start()]
        place = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ScenarioError(f"has the character U+{ord(found[0]):04X}, which is not allowed in a text", place)
    lines = text.splitlines()
    try:
        return walk(text, lambda events: _Walk(file, events, lines).document(needs))
    except YamlSyntaxError as error:
        raise _syntax_error(error, file) from None


_TOO_DEEP = f"is nested more than {YAML_DEPTH} deep"


class _Walk:
    """From events to nodes."""

    def __init__(self, file: str, events: Iterator[Event], lines: Sequence[str]) -> None:
        self.file = file
        self.lines = lines
        self.events = events
        self.anchors: dict[str, Node | None] = {}
        self.count = 0

    def document(self, needs: str) -> Node:
        root: Node | None = None
        for event in self.events:
            if event.kind is Kind.DOCUMENT:
                if root is not None:
                    raise self.error("a second document begins", event, "keep one document in a file")
                root = self.node(next(self.events), "the file", 1)
        if root is None:
            raise ScenarioError("is empty", Position(self.file), remedy=needs)
        return root

    def node(self, event: Event, name: str, depth: int) -> Node:
        """The value that begins with ``event``; ``name`` is what a sentence calls it."""
        if event.kind is Kind.ALIAS:
            node = self.anchored(event)
        else:
            if event.tag:
                raise self.error(f"the tag '{event.tag}' has no meaning here", event, "write the value alone")
            if event.anchor:
                self.anchors[event.anchor] = None
            if event.kind is Kind.SCALAR:
                node = Node(_scalar(event), event.place)
                node.text = _verbatim(event)
                if event.style == "|":
                    node.text, node.is_block = self.block(event), True
                if node.value is None:
                    # Below the keys of the file are headers, which have defaults.
                    remedy = "give one" if depth <= 2 else "give one, or {} where its defaults will do"
                    raise self.error(f"{name} has no value", event, remedy)
                if "\0" in event.text and name != "'payload'":
                    raise self.error(f"{name} has a NUL character", event, "leave it out")
                if half := _SURROGATE.search(event.text):
                    raise self.error(
                        f"'\\u{ord(half[0]):x}' is half a character", event, "write the whole, as \\UXXXXXXXX"
                    )
            elif depth > YAML_DEPTH:
                raise self.error(_TOO_DEEP, event)
            elif event.kind is Kind.SEQUENCE:
                node = self.sequence(event, depth)
            else:
                node = self.mapping(event, depth)
            if event.anchor:
                self.anchors[event.anchor] = node
        # An alias counts as all that it stands for: a file that would expand to billions of values is refused early.
        self.count += node.count if event.kind is Kind.ALIAS else 1
        if self.count > YAML_VALUES:
            raise self.error(f"the file has more than {YAML_VALUES:,} values", event, "split it")
        return node

    def anchored(self, event: Event) -> Node:
        if event.anchor not in self.anchors:
            raise self.error(f"'*{event.anchor}' repeats something that no '&{event.anchor}' names", event)
        node = self.anchors[event.anchor]
        if node is None:
            raise self.error(f"'*{event.anchor}' stands inside of what it repeats", event)
        return node.used_at(event.place)

    def sequence(self, start: Event, depth: int) -> Node:
        node = Node([], start.place)
        while (event := next(self.events)).kind is not Kind.SEQUENCE_END:
            child = self.node(event, "an entry of this list", depth + 1)
            node.put(len(node.children), child.place, child)
        return node

    def mapping(self, start: Event, depth: int) -> Node:
        node = Node({}, start.place)
        last = ""
        while (event := next(self.events)).kind is not Kind.MAPPING_END:
            if event.kind is not Kind.SCALAR or event.tag or event.anchor:
                raise self.error("a key must be plain text", event)
            key = event.text
            if "\0" in key:
                raise self.error("a key cannot hold a NUL character", event)
            if "`" in key:  # msgspec's messages set keys in these, unescaped
                raise self.error("a key cannot hold a '`'", event)
            if key == "<<" and not event.style:
                raise self.error("'<<' is not a key in YAML 1.2", event, "repeat a whole value by alias instead")
            if key in node.children:
                first = node.children[key].key
                raise self.error(f"'{key}' occurs twice in this mapping, first in line {first.line}", event)
            value = next(self.events)
            if start.style and _is_nothing(value) and node.children and _is_cut(node.children[last]):
                sentence = f"'{key}' is cut off from the text before it"
                raise self.error(sentence, event, "quote the text: a comma inside { } ends it")
            node.put(key, event.place, self.node(value, f"'{key}'", depth + 1))
            last = key
        return node

    def block(self, event: Event) -> LineColumn | None:
        """Where the text of a literal block begins; None when its first line is empty or indented further."""
        first = event.place.line  # counted from 1: the line after the '|'
        lines = self.lines[first : event.end.line]
        texts = event.text.splitlines()
        if not lines or not texts or not texts[0] or not lines[0].endswith(texts[0]):
            return None
        return LineColumn(first + 1, len(lines[0]) - len(texts[0]) + 1)

    def error(self, sentence: str, event: Event, remedy: str = "") -> ScenarioError:
        return ScenarioError(sentence, Position(self.file, *event.place), remedy=remedy)


def _is_nothing(event: Event) -> bool:
    return event.kind is Kind.SCALAR and not event.style and not event.text


def _is_cut(node: Node) -> bool:
    """Whether a text looks as if more was meant to follow: a bracket is open."""
    return isinstance(node.value, str) and node.value.count("(") > node.value.count(")")


_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""An escape may name one; no file can hold it."""


def _verbatim(event: Event) -> LineColumn | None:
    """Where a scalar's text begins, if its characters stand in one line as they are."""
    start, end, quote = event.place, event.end, event.style in ("'", '"')
    if start.line != end.line or end.column - start.column - 2 * quote != len(event.text):
        return None
    return LineColumn(start.line, start.column + quote)


# What YAML 1.2 (section 10.3.2) takes a plain scalar for; everything else is text. Infinity and
# not-a-number are left out.
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _scalar(event: Event) -> str | int | float | bool | None:
    text: str = event.text
    if event.style:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    # Most scalars are words; numbers begin like this. An integer of thousands of digits is not supported.
    if text[0] in "+-.0123456789" and len(text) < 40:
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Position(file, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        raise ScenarioError(f"byte 0x{data[error.start]:02x} is not UTF-8", place, remedy="save it as UTF-8") from None


# YAML 1.2 section 5.1.
_UNPRINTABLE = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The parser's words for common mistakes, the sentence to show instead, and the remedy.
_SYNTAX = (
    (r"nested too deep", _TOO_DEEP, ""),
    (r"found character '\\t'", "a tab cannot indent", "use spaces"),
    (r"found character '(.)' that cannot start any token", "'{0}' cannot begin a value", "put it in quotes"),
    (
        r"mapping values are not allowed here",
        "a ':' cannot stand here",
        "check the indentation, or put the text in quotes",
    ),
    (r"expected ',' or '([]}])', but got '<stream end>'", "the '{0}' that closes this is missing", ""),
    (r"expected ',' or '([]}])'", "a ',' or '{0}' is missing before this", "put it there, or quote the text"),
    (
        r"expected <block end>, but found '<block mapping start>'",
        "this is indented differently from what it belongs to",
        "",
    ),
    (r"expected <block end>", "this does not belong here", "check the indentation"),
    (r"expected the node content", "a value is missing here", ""),
    (r"found unexpected end of stream", "a quote is not closed", ""),
    (r"could not find expected ':'", "a ':' is missing after this key", ""),
)


def _syntax_error(error: YamlSyntaxError, file: str) -> ScenarioError:
    for pattern, own, what_to_do in _SYNTAX:
        if found := re.search(pattern, error.reason):
            sentence, remedy = own.format(*found.groups()), what_to_do
            break
    else:
        sentence, remedy = f"is not YAML: {error.reason}", ""
    place = error.context if "close" in sentence else error.place
    return ScenarioError(sentence, Position(file, *place) if place else Position(file), remedy=remedy)
