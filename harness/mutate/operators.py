"""Mutants of a ruleset, each with one change that a tired administrator makes.

They are made on what ``nft -j list ruleset`` shows of the loaded ruleset (libnftables-json(5)), never on its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from harness.model.observation import Place
from harness.mutate import values
from harness.mutate.edits import Deleted, Edit, Elements, Objects, Replaced, Swapped, Turned, place_of

INTERFACES: Final = ("iifname", "oifname", "iif", "oif", "ibrname", "obrname")
OPPOSITE: Final = {"==": "!=", "in": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
VERDICTS: Final = {"accept": ("drop",), "drop": ("accept",), "reject": ("drop", "accept"), "return": ("accept",)}
"""What a verdict is turned to."""
STATES: Final = ("new", "invalid", "untracked")
"""By which ``ct state`` is widened: the first that it has not."""
NAT: Final = ("dnat", "snat", "redirect", "masquerade", "tproxy")
ELEMENTS_AT_MOST: Final = 8
"""Elements of one set, each of which has mutants of its own; of a larger set the first and the last ones."""


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """A ruleset with one change."""

    operator: str
    """``rule deleted``, ``match dropped``, …"""
    what: str
    """What has changed, in a few words."""
    place: Place
    """The rule, or with handle 0 the policy, that it is shown at."""
    touched: tuple[Place, ...]
    """A packet that came to none of these cannot distinguish the mutant from the original."""
    edit: Edit

    @property
    def key(self) -> str:
        """Names the mutant among those of a ruleset."""
        return msgspec.json.encode([self.operator, self.place, self.edit]).decode()


def mutants(objects: Objects, interfaces: Sequence[str] = ()) -> list[Mutant]:
    """The mutants of the ruleset ``objects``; the device also has ``interfaces`` that its rules do not name."""
    return list(_Making(objects, interfaces).all())


class _Making:
    def __init__(self, objects: Objects, interfaces: Sequence[str]) -> None:
        self._objects = objects
        self._rules = [one["rule"] for one in objects if "rule" in one]
        self._chains = [one["chain"] for one in objects if "chain" in one]
        named = {name for rule in self._rules for name in values.interfaces(rule["expr"])}
        self._interfaces = sorted({*named, *interfaces} - {"lo"})

    def all(self) -> Iterator[Mutant]:
        chains: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for rule in self._rules:
            chains.setdefault(place_of(rule)[:3], []).append(rule)
        for rules in chains.values():
            for number, rule in enumerate(rules):
                yield from self._of_rule(rule)
                if number + 1 < len(rules):
                    yield from self._swapped(rule, rules[number + 1])
        for chain in self._chains:
            if (policy := chain.get("policy")) in ("accept", "drop"):
                other = "drop" if policy == "accept" else "accept"
                place = (chain["family"], chain["table"], chain["name"], 0)
                edit = Turned(chain=place, policy=other)
                what = f"policy {policy} → {other}"
                yield Mutant(operator="policy turned", what=what, place=place, touched=(place,), edit=edit)
        for one in self._objects:
            for kind in ("set", "map"):
                if kind in one:
                    yield from self._of_set(one[kind])

    def _swapped(self, rule: dict[str, Any], following: dict[str, Any]) -> Iterator[Mutant]:
        if any(isinstance(part, str) for part in following["expr"]):
            return  # a block, of which nft's JSON has but the text
        edit = Swapped(rule=place_of(rule), following=following["handle"])
        what = "swapped with the rule after it"
        place = place_of(rule)
        yield Mutant(operator="rules swapped", what=what, place=place, touched=(place,), edit=edit)

    def _of_rule(self, rule: dict[str, Any]) -> Iterator[Mutant]:
        place, expr = place_of(rule), rule["expr"]

        def mutant(operator: str, what: str, edit: Edit) -> Mutant:
            return Mutant(operator=operator, what=what, place=place, touched=(place,), edit=edit)

        yield mutant("rule deleted", "deleted", Deleted(rule=place))
        if any(isinstance(part, str) for part in expr):
            return
        for number, part in enumerate(expr):
            ((word, what),) = part.items()
            for operator, words, changed in self._of_statement(rule, word, what):
                other = [*expr[:number], *([changed] if changed is not None else []), *expr[number + 1 :]]
                yield mutant(operator, words, Replaced(rule=place, expr=other))

    def _of_statement(self, rule: dict[str, Any], word: str, what: Any) -> Iterator[tuple[str, str, Any]]:
        """Operator, words and the statement in place of ``word`` with ``what``; None for none."""
        if word == "match":
            yield from self._of_match(what)
        elif word == "vmap":
            yield from self._of_vmap(what)
        elif word in VERDICTS:
            for other in VERDICTS[word]:
                yield "verdict turned", f"{word} → {other}", {other: None}
        elif word in ("jump", "goto"):
            if (chain := self._neighbour(rule, what["target"])) is not None:
                words = f"{word} {what['target']} → {word} {chain}"
                yield "jump to a neighbour", words, {word: {"target": chain}}
        elif word in NAT and isinstance(what, dict):
            for key, before, after in values.nat(what):
                yield "NAT target changed", f"{word} to {before} → {after}", {word: what | {key: after}}

    def _neighbour(self, rule: dict[str, Any], target: str) -> str | None:
        """The chain behind ``target`` among those that can be jumped to."""
        names = [
            one["name"]
            for one in self._chains
            if "hook" not in one and (one["family"], one["table"]) == (rule["family"], rule["table"])
        ]
        if target not in names or len(names) < 2:
            return None
        other: str = names[(names.index(target) + 1) % len(names)]
        return other if other != rule["chain"] else None

    def _of_match(self, what: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        left, right, shown = what["left"], what["right"], values.shown(what)
        yield "match dropped", f"without {shown}", None
        if (op := OPPOSITE.get(what["op"])) is not None:
            yield "match negated", f"{shown}: {what['op']} → {op}", {"match": what | {"op": op}}
        for operator, before, after in self._of_value(left, right):
            words = f"{values.left(left)} {values.text(before)} → {values.text(after)}"
            yield operator, words, {"match": what | {"right": values.replaced(right, before, after)}}
        for element, rest in values.with_one_less(right, ELEMENTS_AT_MOST):
            words = f"{values.left(left)} without {values.text(element)}"
            yield "element removed", words, {"match": what | {"right": rest}}
        if values.is_state(left) and (wider := values.widened(right, STATES)) is not None:
            state, wide = wider
            yield "ct state widened", f"ct state with {state}", {"match": what | {"op": what["op"], "right": wide}}

    def _of_value(self, left: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
        """Operator, a value of ``right`` and what it becomes."""
        for value in values.few(values.elements(right), ELEMENTS_AT_MOST):
            if values.is_port(left):
                yield from (("port off by one", value, other) for other in values.next_ports(value))
            elif values.is_address(left):
                yield from (("prefix off by one", value, other) for other in values.next_prefixes(value))
            elif values.is_of(left, INTERFACES) and isinstance(value, str):
                yield from (("interface changed", value, one) for one in values.following(value, self._interfaces))

    def _of_vmap(self, what: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        data = what["data"]
        if not isinstance(data, dict) or "set" not in data:
            return
        key, pairs = what["key"], data["set"]
        for number in values.few(range(len(pairs)), ELEMENTS_AT_MOST):
            element, verdict = pairs[number]
            shown = f"{values.left(key)} {values.text(element)}"
            ((word, _),) = verdict.items() if isinstance(verdict, dict) else ((verdict, None),)

            def changed(*others: list[Any], at: int = number) -> dict[str, Any]:
                return {"vmap": what | {"data": {"set": [*pairs[:at], *others, *pairs[at + 1 :]]}}}

            for other in VERDICTS.get(word, ()):
                yield "verdict turned", f"{shown} : {word} → {other}", changed([element, {other: None}])
            if len(pairs) > 1:
                yield "element removed", f"without {shown}", changed()
            if values.is_port(key):
                for port in values.next_ports(element):
                    yield "port off by one", f"{shown} → {values.text(port)}", changed([port, verdict])

    def _of_set(self, what: Mapping[str, Any]) -> Iterator[Mutant]:
        reference = f'"@{what["name"]}"'
        users = tuple(
            place_of(rule)
            for rule in self._rules
            if (rule["family"], rule["table"]) == (what["family"], what["table"]) and reference in json.dumps(rule)
        )
        elements = what.get("elem", [])
        if not users or not elements:
            return

        def mutant(operator: str, words: str, removed: list[Any], added: list[Any]) -> Mutant:
            edit = Elements(family=what["family"], table=what["table"], name=what["name"], removed=removed, added=added)
            shown = f"@{what['name']} {words}"
            return Mutant(operator=operator, what=shown, place=users[0], touched=users, edit=edit)

        for element in values.few(elements, ELEMENTS_AT_MOST):
            shown = values.text(values.bare(element))
            yield mutant("element removed", f"without {shown}", [element], [])
            if isinstance(element, list) and isinstance(element[1], dict):
                ((word, _),) = element[1].items()
                for other in VERDICTS.get(word, ()):
                    yield mutant(
                        "verdict turned", f"{shown} : {word} → {other}", [element], [[element[0], {other: None}]]
                    )
        known = [values.bare(one) for one in elements]
        for element in values.few(elements, ELEMENTS_AT_MOST):
            if (beside := values.beside(values.bare(element), known)) is not None:
                added = [beside, element[1]] if isinstance(element, list) else beside
                yield mutant("element added", f"with {values.text(beside)}", [], [added])
                break
