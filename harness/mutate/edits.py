"""One change of a loaded ruleset, as commands for nft and as the objects that nft would list after it.

The objects are those of ``nft -j list ruleset``, see libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from harness.model.observation import Place, Rule

Objects = Sequence[dict[str, Any]]


class Replaced(msgspec.Struct, frozen=True, kw_only=True, tag="replaced"):
    """A rule with other statements."""

    rule: Place
    expr: list[Any]


class Deleted(msgspec.Struct, frozen=True, kw_only=True, tag="deleted"):
    """A rule less."""

    rule: Place


class Swapped(msgspec.Struct, frozen=True, kw_only=True, tag="swapped"):
    """Two rules that follow one another, in the other order."""

    rule: Place
    following: int
    """The handle of the second one."""


class Turned(msgspec.Struct, frozen=True, kw_only=True, tag="turned"):
    """A base chain with another policy."""

    chain: Place
    policy: str


class Elements(msgspec.Struct, frozen=True, kw_only=True, tag="elements"):
    """A set or map with other elements."""

    family: str
    table: str
    name: str
    removed: list[Any] = []
    added: list[Any] = []


Edit = Replaced | Deleted | Swapped | Turned | Elements


Handles = Mapping[Place, int]
"""Of rules that were loaded again: the handles that they have now."""


def commands(edit: Edit, objects: Objects, handles: Handles = MappingProxyType({})) -> list[dict[str, Any]]:
    """The commands that make ``edit`` of the ruleset ``objects``, for one transaction."""
    match edit:
        case Replaced(rule=place, expr=expr):
            return [{"replace": {"rule": _rule(objects, place) | {"expr": expr, "handle": _now(place, handles)}}}]
        case Deleted(rule=place):
            return [{"delete": {"rule": _place(place, handles)}}]
        case Swapped(rule=place, following=following):
            second = (*place[:3], following)
            # The second is added before the first: a position is the handle of another rule.
            return [
                {"insert": {"rule": _rule(objects, second) | {"handle": _now(place, handles)}}},
                {"delete": {"rule": _place(second, handles)}},
            ]
        case Turned(chain=place, policy=policy):
            chain = {key: one for key, one in _chain(objects, place).items() if key != "handle"}
            return [{"add": {"chain": chain | {"policy": policy}}}]
        case Elements(family=family, table=table, name=name, removed=removed, added=added):
            of = {"family": family, "table": table, "name": name}
            return [
                {word: {"element": of | {"elem": elements}}}
                for word, elements in (("delete", removed), ("add", added))
                if elements
            ]


def undone(edit: Edit, objects: Objects, handles: Handles) -> list[dict[str, Any]]:
    """The commands that take ``edit`` back, for one transaction."""
    match edit:
        case Replaced(rule=place):
            return [{"replace": {"rule": _rule(objects, place) | {"handle": _now(place, handles)}}}]
        case Deleted(rule=place):
            return [_at_its_place(objects, place, handles)]
        case Swapped(rule=place, following=following):
            second = (*place[:3], following)
            return [_at_its_place(objects, second, handles), {"delete": {"rule": _place(second, handles)}}]
        case Turned(chain=place):
            return commands(Turned(chain=place, policy=_chain(objects, place)["policy"]), objects)
        case Elements():
            return commands(msgspec.structs.replace(edit, removed=edit.added, added=edit.removed), objects)


def _at_its_place(objects: Objects, place: Place, handles: Handles) -> dict[str, Any]:
    """The command that loads a rule before the one that follows it; ``add`` of nft 1.0.6 ignores a position."""
    rules = [one["rule"]["handle"] for one in objects if "rule" in one and place_of(one["rule"])[:3] == place[:3]]
    again = {key: one for key, one in _rule(objects, place).items() if key != "handle"}
    number = rules.index(place[3]) + 1
    if number < len(rules):
        return {"insert": {"rule": again | {"handle": _now((*place[:3], rules[number]), handles)}}}
    return {"add": {"rule": again}}


def rewritten(edit: Edit) -> Place | None:
    """The rule that is loaded from nft's JSON when ``edit`` is made or taken back."""
    match edit:
        case Replaced(rule=place) | Deleted(rule=place):
            return place
        case Swapped(rule=place, following=following):
            return (*place[:3], following)
    return None


def chain_of(edit: Edit) -> tuple[str, str, str] | None:
    """Family, table and name of the chain that ``edit`` changes; None for elements."""
    match edit:
        case Replaced(rule=place) | Deleted(rule=place) | Swapped(rule=place) | Turned(chain=place):
            return place[:3]
    return None


def applied(edit: Edit, objects: Objects) -> list[dict[str, Any]]:
    """``objects`` as nft would list them after ``edit``; replaced and swapped rules keep their handles."""
    found: list[dict[str, Any]] = []
    moved: dict[str, Any] | None = None
    if isinstance(edit, Swapped):
        moved = {"rule": _rule(objects, (*edit.rule[:3], edit.following))}
    for one in objects:
        ((kind, what),) = one.items()
        match edit:
            case Replaced(rule=place, expr=expr) if kind == "rule" and place_of(what) == place:
                found.append({kind: what | {"expr": expr}})
            case Deleted(rule=place) if kind == "rule" and place_of(what) == place:
                pass
            case Swapped(rule=place, following=following) if kind == "rule" and place_of(what) in (
                place,
                (*place[:3], following),
            ):
                if moved is not None and place_of(what) == place:
                    found += [moved, one]
            case Turned(chain=place, policy=policy) if kind == "chain" and _named(what) == place[:3]:
                found.append({kind: what | {"policy": policy}})
            case Elements() if kind in ("set", "map") and _named(what) == (edit.family, edit.table, edit.name):
                kept = [element for element in what.get("elem", []) if element not in edit.removed]
                found.append({kind: what | {"elem": [*kept, *edit.added]}})
            case _:
                found.append(one)
    return found


def order(edit: Edit, rules: Sequence[Rule]) -> list[Rule]:
    """``rules`` of a listing in the order in which they are listed after ``edit``."""
    found = list(rules)
    if isinstance(edit, Deleted):
        return [one for one in found if one.place != edit.rule]
    if isinstance(edit, Swapped):
        first, second = (
            next(number for number, one in enumerate(found) if one.place == place)
            for place in (edit.rule, (*edit.rule[:3], edit.following))
        )
        found.insert(first, found.pop(second))
    return found


def place_of(rule: dict[str, Any]) -> Place:
    """The place of a rule as nft's JSON has it."""
    return rule["family"], rule["table"], rule["chain"], rule["handle"]


def _named(what: dict[str, Any]) -> tuple[str, str, str]:
    return what["family"], what["table"], what["name"]


def _now(place: Place, handles: Handles) -> int:
    return handles.get(place, place[3])


def _place(place: Place, handles: Handles) -> dict[str, Any]:
    return dict(zip(("family", "table", "chain", "handle"), (*place[:3], _now(place, handles)), strict=True))


def _rule(objects: Objects, place: Place) -> dict[str, Any]:
    return next(one["rule"] for one in objects if "rule" in one and place_of(one["rule"]) == place)


def _chain(objects: Objects, place: Place) -> dict[str, Any]:
    return next(one["chain"] for one in objects if "chain" in one and _named(one["chain"]) == place[:3])
