"""Whether limits have let pass more than they do at the pace of a scenario.

A slow machine sends packets late, and limits regain tokens meanwhile. What then passes, as expected or not, would not
have passed on a faster machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Final, NamedTuple

from harness.errors import BrokenMeasurement
from harness.judge.lateness import remedy
from harness.judge.unmet import place
from harness.model.observation import Observation, ObservedPacket, Place, Rule, Step
from harness.packets.headers import fields, framed
from harness.reading.clauses import MatchesHeld, chain_rules, clauses, passes
from harness.reading.elements import changes_headers, packet_value
from harness.reading.limits import Limit, limits_of
from harness.ruleset import listing
from harness.ruleset.load import Ruleset
from harness.text import counted

_ENOUGH: Final = 1 << 12
"""Elements that a set must take at least: in a smaller one there may have been no room for a packet's."""


class _Passed(NamedTuple):
    """A packet that a limit has let pass."""

    bucket: Hashable
    """Whose tokens it has taken."""
    limit: Limit
    rule: Rule
    cost: int
    """Packets, or bytes, at least."""


class Allowance:
    """What the limits of a ruleset have let pass of a scenario's packets since it was loaded."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._limits: dict[Place, tuple[Limit, ...]] = {}
        rules, listed = ruleset.rules, ruleset.listed
        if "limit" not in listed:
            return
        named = ruleset.limits
        of_rules = ((rule, limits_of(rule, named)) for rule in rules)
        self._limits = {rule.place: limits for rule, limits in of_rules if limits}
        if not self._limits:
            return
        self._chains = chain_rules(rules)
        self._believes_headers = not changes_headers(rules)
        self._sizes = listing.sizes(listed)
        self._stays = listing.timeouts(listed)
        self._emptied = {f"{one.family} {one.table} {name}" for one in rules for name in listing.deleted(one.text)}
        self._passed: Counter[Hashable] = Counter()

    def take(self, observation: Observation, seconds: float) -> None:
        """Count what its packet has passed, which the scenario asks for ``seconds`` after its first packet at most.

        Raises :class:`BrokenMeasurement` where that is more than a limit lets pass in that time.
        """
        if not self._limits:
            return
        for one in self._by_packet(observation.injected[0], observation.device):
            self._passed[one.bucket] += one.cost
            passed, limit = self._passed[one.bucket], one.limit
            again = 1 + int(seconds / kept) if (kept := self._kept(one)) else 1  # a new element has all its tokens
            most = limit.burst * again + int(seconds / limit.token + 1e-9)
            if passed > most:
                noun = "byte" if limit.bytes else "packet"
                raise BrokenMeasurement(
                    f"`{limit.text}` ({place(one.rule)}) let {counted(passed, noun)} pass, and not {most:,}, "
                    f"because they came later than the scenario asks",
                    remedy=remedy(limit.token * one.cost),
                )

    def _by_packet(self, packet: ObservedPacket, device: str) -> Iterator[_Passed]:
        """Each limit that certainly let ``packet`` pass."""
        steps = list(_with_headers(packet, device))
        if not any(step.chain_path in self._chains for step, _ in steps):
            return
        matched = {step.rule.place for step, _ in steps if step.rule}
        firsts: dict[str, Step | None] = {step.chain_path: first for step, first in steps}
        known = [(step, first if self._believes_headers else None) for step, first in steps]
        for rule, held in passes(known, self._chains):
            first = firsts.get(rule.chain_path)
            for number, limit in enumerate(self._limits.get(rule.place, ())):
                bucket = self._bucket(rule, limit, number, first)
                if bucket is None or not limit.token or not limit.burst:
                    continue
                if self._let_pass(rule, limit, held, is_matched=rule.place in matched):
                    yield _Passed(bucket, limit, rule, _length(first) if limit.bytes else 1)

    def _bucket(self, rule: Rule, limit: Limit, number: int, first: Step | None) -> Hashable | None:
        """Whose tokens a packet with the headers of ``first`` takes; None where that is not known."""
        table = f"{rule.family} {rule.table}"
        if limit.name:
            return table, limit.name
        if limit.shared:
            return rule.place, number
        if not limit.key or f"{table} {limit.set}" in self._emptied or not self._believes_headers:
            return None
        values = tuple(packet_value(part, first) for part in limit.key.split(" . "))
        return None if None in values else (table, limit.set, values)

    def _let_pass(self, rule: Rule, limit: Limit, held: MatchesHeld, *, is_matched: bool) -> bool:
        """Whether ``limit`` certainly let a packet pass that came to ``rule`` with these matches."""
        whole = is_matched and not (held.failed or held.open or held.stopped)
        if not limit.shared:
            table = f"{rule.family} {rule.table}"
            has_room = self._sizes.get(f"{table} {limit.set}", _ENOUGH) >= _ENOUGH
            alone = len(self._limits[rule.place]) == 1
            return held.stopped and has_room and alone if limit.over else whole
        if not limit.over:
            return whole
        matches = clauses(rule.text)
        own = [number for number, match in enumerate(matches) if match.startswith("limit ")]
        # Which of several limits it is does not matter where there is only one.
        return len(own) == 1 and held.failed == matches[own[0]] and len(held.held) == own[0]

    def _kept(self, one: _Passed) -> float:
        """Seconds after which the element of a set is forgotten; 0 where it is not."""
        if not one.limit.set:
            return 0.0
        of_set = self._stays.get(f"{one.rule.family} {one.rule.table} {one.limit.set.removeprefix('@')}", "")
        return listing.seconds(one.limit.timeout or of_set)


def _with_headers(packet: ObservedPacket, device: str) -> Iterator[tuple[Step, Step]]:
    """The steps of ``packet`` on the device, each with that which has the headers."""
    first: Step | None = None
    for step in packet.steps:
        if step.host == device:
            first = step if step.headers or step.iif or step.oif or first is None else first
            yield step, first


def _length(first: Step | None) -> int:
    """Bytes that a limit counts of a packet, at least: those that its IP header says."""
    found = fields(framed(first.headers)) if first and first.headers else {}
    return int(found.get("length", 0))
