"""Which rules and policies of the rulesets the scenarios met.

nf_tables' trace tells only of rules that *matched* a packet. That a rule was at least *evaluated*
follows from it: a chain is evaluated from its first rule on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from harness.errors import Position
from harness.observation import Rule, Step
from harness.result import Policy, Result


class Place(msgspec.Struct, kw_only=True):
    """A rule or policy, and who met it."""

    position: Position
    chain_path: str
    text: str
    is_policy: bool
    evaluated: bool = False
    """Whether a packet came as far as that."""
    matched: dict[str, None] = {}
    """Names of the scenarios in which it matched, in order."""
    decided: dict[str, None] = {}
    """Names of the scenarios in which it was among those that decided."""

    @property
    def fate(self) -> str:
        """How far it came, in words."""
        if self.decided:
            return "decided"
        if self.matched:
            return "matched"
        if self.is_policy:
            return "never decided"
        return "evaluated, never matched" if self.evaluated else "never evaluated"


def places(results: Iterable[Result]) -> list[Place]:
    """Return every rule and policy that stands in a file, in the order of files and lines."""
    found: dict[tuple[Position, str], Place] = {}
    for result in results:
        if result.ruleset is None:
            continue
        chains: dict[str, list[Place | None]] = defaultdict(list)
        handles: dict[str, list[int]] = defaultdict(list)
        for rule in result.ruleset.rules:
            chains[rule.chain_path].append(_place(found, rule, rule.text))
            handles[rule.chain_path].append(rule.handle)
        policies = {one.chain_path: _place(found, one, f"policy {one.verdict}") for one in result.ruleset.policies}
        deciding = [step for sent in result.sent for step in sent.decided]
        for step in _steps(result):
            rules = chains[step.chain_path]
            if step.rule is None:
                _mark_evaluated(rules)
                place = policies.get(step.chain_path) if step.kind == "policy" else None
            else:
                number = handles[step.chain_path].index(step.rule.handle)
                _mark_evaluated(rules[: number + 1])
                place = rules[number]
            if place:
                place.evaluated = True
                place.matched[result.name] = None
                if step in deciding:
                    place.decided[result.name] = None
    return sorted(found.values(), key=lambda place: place.position)


def _place(found: dict[tuple[Position, str], Place], one: Rule | Policy, text: str) -> Place | None:
    if one.position is None:
        return None
    new = Place(position=one.position, chain_path=one.chain_path, text=text, is_policy=isinstance(one, Policy))
    return found.setdefault((one.position, one.chain_path), new)


def _steps(result: Result) -> Iterator[Step]:
    """What happened on the device to any packet, replies included."""
    for sent in result.sent:
        for packet in sent.observation.packets:
            yield from (step for step in packet.steps if step.host == sent.observation.device)


def _mark_evaluated(rules: Iterable[Place | None]) -> None:
    for place in rules:
        if place:
            place.evaluated = True
