"""Which rules and policies of the rulesets the scenarios met, and which elements of the sets in rules.

The nftables trace reports only rules that *matched* a packet. That a rule was at least *evaluated*
follows from it: a chain is evaluated from its first rule on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from harness.errors import Position
from harness.model.observation import ObservedPacket, Rule, Step
from harness.model.result import PacketResult, Policy, Result, RulesetPlan
from harness.reading.clauses import MatchesHeld, chain_rules, clauses, passes
from harness.reading.decision import FINAL
from harness.reading.elements import candidates, changes_headers, lookups
from harness.reading.reach import unreachable


class SeenClause(msgspec.Struct, kw_only=True):
    """A match of a rule, and what packets have shown of it."""

    held: dict[str, None] = {}
    """Names of the scenarios in which it held, in order."""
    failed: dict[str, None] = {}
    """Names of those in which it failed."""
    is_open: bool = False
    """Whether it may have failed for a packet."""

    @property
    def missing(self) -> str:
        """What was not seen of it, in words; "" where it was seen to hold and to fail."""
        if self.held and self.failed:
            return ""
        if self.held:
            return "not known whether it failed" if self.is_open else "never seen to fail"
        if self.failed:
            return "never seen to hold"
        return "not known whether it held or failed" if self.is_open else "never evaluated"


class CoveredRule(msgspec.Struct, kw_only=True):
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
    elements: dict[str, dict[str, None]] = {}
    """The elements of the sets and maps that a rule looks into, where they can be distinguished: ``tcp dport 443``,
    each with the names of the scenarios that met it."""
    unclear: set[str] = set()
    """Those that may have been met: another element fits as well."""
    is_reachable: bool = True
    """Whether any packet could come to it."""
    clauses: dict[str, SeenClause] = {}
    """Its matches, in order."""

    @property
    def status(self) -> str:
        """How far it came, in words."""
        if self.decided:
            return "decided"
        if self.matched:
            return "matched"
        if self.is_policy:
            return "never decided"
        if not self.is_reachable:
            return "can't be reached"
        return "evaluated, never matched" if self.evaluated else "never evaluated"

    @property
    def missed(self) -> list[str]:
        """The elements that surely no packet met."""
        return [element for element, names in self.elements.items() if not names and element not in self.unclear]

    @property
    def unclear_only(self) -> list[str]:
        """The elements of which it is not known whether a packet met them."""
        return [element for element in self.elements if element in self.unclear and not self.elements[element]]


def covered_rules(results: Iterable[Result]) -> list[CoveredRule]:
    """Return every rule and policy that stands in a file, in the order of files and lines."""
    found: dict[tuple[Position, str], CoveredRule] = {}
    last: RulesetPlan | None = None
    known: dict[tuple[Rule, ...], dict[str, _Places]] = {}
    for result in results:
        for plan, sent in result.by_ruleset():
            if plan is not last:  # scenarios with one ruleset stand together, and to compare large ones takes long
                last, of_plan = plan, known.setdefault(plan.rules, {})
            file = result.position.file
            places = of_plan.get(file) or of_plan.setdefault(file, _Places(found, plan, file))
            places.add(result.name, sent)
    return sorted(found.values(), key=lambda place: place.position)


class _Places:
    """The rules and policies of a ruleset that stand in its files, and what scenarios of one file met of them."""

    def __init__(self, found: dict[tuple[Position, str], CoveredRule], plan: RulesetPlan, of_steps: str) -> None:
        self._ruleset = ruleset = _Ruleset(plan)
        self._chains: dict[str, list[CoveredRule | None]] = defaultdict(list)
        self._numbers: dict[tuple[str, int], int] = {}
        """Of rules in their chains, by chain and handle."""
        self._evaluated: dict[str, int] = defaultdict(int)
        """How many rules of a chain are marked."""
        for rule in plan.rules:
            place = _place(found, rule, rule.text, of_steps)
            chain = self._chains[rule.chain_path]
            self._numbers[rule.chain_path, rule.handle] = len(chain)
            chain.append(place)
            if place:
                _fill(place, rule, ruleset)
        self._policies = {
            one.chain_path: _place(found, one, f"policy {one.verdict}", of_steps) for one in plan.policies
        }

    def add(self, name: str, sent: Sequence[PacketResult]) -> None:
        """Count what the packets ``sent`` by the scenario ``name`` met."""
        for rule, seen in self._ruleset.passes(sent):
            if place := self._chains[rule.chain_path][self._numbers[rule.chain_path, rule.handle]]:
                _count_clauses(place, name, seen)
        for one in sent:
            for packet in one.observation.packets:
                for step, first in _of_packet(packet, one.observation.device):
                    self._count(name, step, first, decided=step in one.decided)

    def _count(self, name: str, step: Step, first: Step | None, *, decided: bool) -> None:
        chain = step.chain_path
        if step.rule is None:
            self._mark_evaluated(chain, len(self._chains[chain]))
            place = self._policies.get(chain) if step.kind == "policy" else None
        else:
            number = self._numbers[chain, step.rule.handle]
            self._mark_evaluated(chain, number + 1)
            place = self._chains[chain][number]
        if place:
            place.evaluated = True
            place.matched[name] = None
            if decided:
                place.decided[name] = None
            if step.rule:
                self._ruleset.count(place, name, step, first)

    def _mark_evaluated(self, chain: str, count: int) -> None:
        """Mark the first ``count`` rules of ``chain``."""
        for place in self._chains[chain][self._evaluated[chain] : count]:
            if place:
                place.evaluated = True
        self._evaluated[chain] = max(self._evaluated[chain], count)


def _fill(place: CoveredRule, rule: Rule, ruleset: _Ruleset) -> None:
    """Enter into ``place`` what there is to see of ``rule``: its elements and its matches."""
    if not place.elements:
        place.is_reachable = (rule.chain_path, rule.handle) not in ruleset.unreachable
        place.elements = {element: {} for element in ruleset.elements(rule)}
    if not place.clauses:
        place.clauses = {one: SeenClause() for one in clauses(rule.text)}


def _count_clauses(place: CoveredRule, name: str, seen: MatchesHeld) -> None:
    """Put into ``place`` which matches held or failed for a packet of the scenario ``name`` that came there."""
    for one in seen.held:
        place.clauses.setdefault(one, SeenClause()).held[name] = None
    if seen.failed:
        place.clauses.setdefault(seen.failed, SeenClause()).failed[name] = None
    for one in seen.open:
        place.clauses.setdefault(one, SeenClause()).is_open = True


def _place(
    found: dict[tuple[Position, str], CoveredRule], one: Rule | Policy, text: str, of_steps: str
) -> CoveredRule | None:
    if one.position is None or one.position.file == of_steps:
        return None
    path = _OF_BLOCK.sub("__chain", one.chain_path)
    new = CoveredRule(position=one.position, chain_path=path, text=text, is_policy=isinstance(one, Policy))
    return found.setdefault((one.position, path), new)


_OF_BLOCK = re.compile(r"__chain\d+$")
"""The name of a block in braces, numbered anew whenever a ruleset is loaded (nf_tables_addchain() in
net/netfilter/nf_tables_api.c)."""


class _Ruleset:
    """What can be read off a ruleset, once for all scenarios that load it."""

    def __init__(self, plan: RulesetPlan) -> None:
        self.unreachable = unreachable(plan)
        self._lookups = {rule: tuple(lookups(rule, plan.sets)) for rule in plan.rules}
        self._believes_headers = not changes_headers(plan.rules)
        self._of_chains = chain_rules(plan.rules)

    def passes(self, sent: Iterable[PacketResult]) -> Iterator[tuple[Rule, MatchesHeld]]:
        """For each time that a packet came to a rule, which matches of that held."""
        for one in sent:
            for packet in one.observation.packets:
                steps = list(_of_packet(packet, one.observation.device))
                yield from passes(
                    [(step, first if self._believes_headers else None) for step, first in steps], self._of_chains
                )

    def elements(self, rule: Rule) -> Iterator[str]:
        for lookup in self._lookups[rule]:
            yield from (f"{lookup.key} {key}" for key, _ in lookup.elements)

    def count(self, place: CoveredRule, name: str, step: Step, first: Step | None) -> None:
        """Put into ``place`` which elements the packet of ``step`` met in the scenario ``name``."""
        for lookup in self._lookups.get(step.rule, ()) if step.rule else ():
            fit = [f"{lookup.key} {key}" for key in candidates(lookup, step, first if self._believes_headers else None)]
            if len(fit) == 1:
                place.elements.setdefault(fit[0], {})[name] = None
            else:
                place.unclear.update(fit)


def _of_packet(packet: ObservedPacket, device: str) -> Iterator[tuple[Step, Step | None]]:
    """What happened on the device to a packet, replies included; each step with that which has the headers."""
    first = None
    for step in packet.steps:
        if step.host == device:
            first = step if step.headers or step.iif or step.oif else first
            yield step, first
            first = None if step.verdict in FINAL else first
