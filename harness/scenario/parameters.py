"""Many scenarios from one: ``each`` and ``matrix`` put values in the place of ``$name``.

This happens to the document, before it is checked against the models: a value keeps the place
where it is written, so a mistake in it is found there.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping

from harness.bounds import SCENARIOS_OF_ONE, YAML_VALUES
from harness.model.node import Node
from harness.model.problem import Problem

EACH, MATRIX = _KEYS = ("each", "matrix")
NAME = re.compile(r"[A-Za-z_]\w*")
_USE = re.compile(r"\$([A-Za-z_]\w*)")

Parameters = Mapping[str, Node]


def expand(root: Node) -> tuple[Node, list[Problem]]:
    """``root`` with a scenario for each set of parameters, and what is wrong with these.

    A scenario whose ``each`` or ``matrix`` is wrong stays as it is; the indices of the problems
    are those of the document returned.
    """
    scenarios = root.children.get("scenarios")
    if scenarios is None or not any(key in node.children for node in scenarios.children.values() for key in _KEYS):
        return root, []
    problems: list[Problem] = []
    expanded = Node([], scenarios.place)
    for node in scenarios.children.values():
        index = len(expanded.children)
        try:
            made = list(_expand(node, YAML_VALUES - expanded.count))
        except Problem as problem:
            problems.append(problem.below("scenarios", index))
            made = [node]
        for one in made:
            expanded.put(len(expanded.children), node.key, one)
    copy = Node({}, root.place)
    for key, child in root.children.items():
        copy.put(key, child.key, expanded if child is scenarios else child)
    return copy, problems


def without_consequences(problems: list[Problem]) -> list[Problem]:
    """``problems`` without those of a scenario whose parameters are wrong: they may come from that."""
    about_parameters = [problem for problem in problems if problem.keys[2:3] in ((EACH,), (MATRIX,))]
    scenarios = {problem.keys[1] for problem in about_parameters}
    return [one for one in problems if len(one.keys) < 2 or one.keys[1] not in scenarios or one in about_parameters]


def _expand(scenario: Node, room: int) -> Iterator[Node]:
    """What is made of ``scenario``, in at most ``room`` values."""
    if not any(key in scenario.children for key in _KEYS):
        yield scenario
        return
    if all(key in scenario.children for key in _KEYS):
        raise Problem("a scenario has each: or matrix:, not both", MATRIX, about_key=True)
    sets = _each(scenario.children[EACH]) if EACH in scenario.children else _matrix(scenario.children[MATRIX])
    if sets is None:  # left to the models, which report more about it
        yield scenario
        return
    body = scenario
    for key in _KEYS:
        body = body.without(key)
    if body.count * len(sets) > room:
        keys = (EACH,) if EACH in scenario.children else (MATRIX,)
        raise Problem(f"makes more than {YAML_VALUES:,} values of the file", *keys, remedy="split the file")
    made = [(_fill_completely(body, parameters, scenario), parameters) for parameters in sets]
    names = {str(one.children["name"].value) for one, _ in made if "name" in one.children}
    for one, parameters in made:
        yield one if len(names) == len(made) else _named(one, body, parameters)


def _each(node: Node) -> list[Parameters] | None:
    if not node.children or not isinstance(node.value, list):
        return None
    if not all(isinstance(one.value, dict) and one.children for one in node.children.values()):
        return None
    sets: list[Parameters] = [
        {str(name): child for name, child in one.children.items()} for one in node.children.values()
    ]
    names = list(sets[0])
    for index, parameters in enumerate(sets):
        _check_names(parameters, EACH, index)
        for name in names:
            if name not in parameters:
                raise Problem(f"lacks '{name}', which the first entry has", EACH, index)
        for name in parameters:
            if name not in names:
                raise Problem(f"'{name}' is not in the first entry", EACH, index, name, about_key=True)
    _check_number(len(sets), EACH)
    return sets


def _matrix(node: Node) -> list[Parameters] | None:
    if not node.children or not isinstance(node.value, dict):
        return None
    if not all(isinstance(one.value, list) and one.children for one in node.children.values()):
        return None
    columns = {str(name): list(child.children.values()) for name, child in node.children.items()}
    _check_names(node.children, MATRIX)
    _check_number(math.prod(map(len, columns.values())), MATRIX)
    return [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]


def _check_names(parameters: Mapping[str | int, Node] | Parameters, *keys: str | int) -> None:
    for name in parameters:
        if not NAME.fullmatch(str(name)):
            raise Problem(
                f"'{name}' is not a valid parameter name",
                *keys,
                name,
                remedy="use letters, digits and _",
                about_key=True,
            )


def _check_number(count: int, key: str) -> None:
    if count > SCENARIOS_OF_ONE:
        raise Problem(f"makes {count:,} scenarios of one, and {SCENARIOS_OF_ONE:,} is the limit", key)


def _fill_completely(body: Node, parameters: Parameters, scenario: Node) -> Node:
    used: set[str] = set()
    made = _fill(body, parameters, used)
    for name in parameters:
        if name not in used:
            keys = (MATRIX, name) if MATRIX in scenario.children else (EACH,)
            raise Problem(f"'{name}' is used nowhere", *keys, remedy=f"write ${name} where its value belongs")
    return made


def _fill(node: Node, parameters: Parameters, used: set[str]) -> Node:
    """``node`` with values in place of ``$name``; other words with a ``$`` stay, they may be nft's variables."""
    if isinstance(node.value, str):
        if (whole := _USE.fullmatch(node.value)) and whole[1] in parameters:
            used.add(whole[1])
            return parameters[whole[1]]
        names = [name for name in _USE.findall(node.value) if name in parameters]
        used.update(names)
        if not names:
            return node
        return Node(_USE.sub(lambda found: _text(found, parameters), node.value), node.place)
    if not node.children:
        return node
    copy = Node([] if isinstance(node.value, list) else {}, node.place)
    for key, child in node.children.items():
        copy.put(key, child.key, _fill(child, parameters, used))
    return copy


def _text(found: re.Match[str], parameters: Parameters) -> str:
    if found[1] not in parameters:
        return found[0]
    value = parameters[found[1]].value
    if isinstance(value, dict | list):
        raise Problem(f"{found[0]} is part of a text, and one of its values is not a text", "name")
    return _word(value)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named(made: Node, body: Node, parameters: Parameters) -> Node:
    """``made`` with a name of its own: the parameters that ``body``'s name does not mention stand behind it."""
    if "name" not in body.children or not isinstance(body.children["name"].value, str):
        return made
    mentioned = _USE.findall(body.children["name"].value)
    rest = [
        f"{name} {_word(child.value)}"
        for name, child in parameters.items()
        if name not in mentioned and not isinstance(child.value, dict | list)
    ]
    copy = Node({}, made.place)
    for key, child in made.children.items():
        longer = key == "name" and rest
        copy.put(key, child.key, Node(f"{child.value} ({', '.join(rest)})", child.place) if longer else child)
    return copy
