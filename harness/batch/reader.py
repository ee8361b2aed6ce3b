"""What was observed of a packet, as one :class:`~harness.batch.messages.Effect`; nothing here touches the system."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Final, NamedTuple, Self

from harness.batch.messages import Effect, Timed
from harness.batch.reached import Statements
from harness.batch.timing import Timing
from harness.errors import BrokenMeasurement
from harness.model.observation import (
    Connection,
    Delivery,
    Drop,
    Observation,
    ObservedPacket,
    Place,
    Rule,
    Step,
    Verdict,
)
from harness.model.result import PacketResult
from harness.packets.frames import Frame
from harness.packets.headers import fields, summarise
from harness.reading.decision import FINAL, Outcome, arrivals, decisive, outcome
from harness.reading.rules import bare
from harness.recording import chance
from harness.recording.sample import NotRecordableError, Sample

UNTIMED: Final = Timed()
_COUNT: Final = re.compile(r"\bct count\b")
_LOG: Final = re.compile(r'\blog\b(?: prefix "[^"]*"| group \d+| level \w+)*')


class LeftBehind(NamedTuple):
    """What a step left behind, and where chains decided."""

    hooks: tuple[str, ...]
    elements: Mapping[str, tuple[str, ...]]
    connections: tuple[Connection, ...]
    steps: tuple[Step, ...] = ()
    """Those of the ruleset, of packets and their answers."""
    age_s: float = 0.0
    """As of :class:`~harness.batch.messages.Effect`."""

    @classmethod
    def of(
        cls,
        steps: Sequence[Step],
        device: str,
        elements: Mapping[str, tuple[str, ...]],
        connections: tuple[Connection, ...],
        age_s: float = 0.0,
    ) -> Self:
        """With ``steps``, all that were reported meanwhile; those of the host ``device`` are those of the ruleset."""
        hooks = (f"{step.hook} {step.verdict}" for step in steps if step.verdict in FINAL)
        own = tuple(step for step in steps if step.host == device)
        return cls(tuple(one for one, _ in groupby(hooks)), elements, connections, own, age_s)


Group = tuple[Sequence[Frame], Sequence[Observation], LeftBehind]
"""Frames that were sent together, what was observed of each, and what they left behind."""


class EffectReader:
    """Reads observations of packets that came to a ruleset with ``rules``."""

    def __init__(self, rules: tuple[Rule, ...], timed: Timed = UNTIMED) -> None:
        self._rules = rules
        self._timing = Timing(rules, timed)
        self._counts = Statements(rules, _counts)
        self._is_drawn = chance.decides(rules)
        self._may_be_refused = chance.may_refuse(rules)

    def effects(self, groups: Iterable[Group]) -> tuple[Effect, ...]:
        """What became of a packet and those before it, which came in ``groups`` to the ruleset as just loaded.

        Raises :class:`~harness.errors.HarnessError` where the oracles contradict each other.
        """
        self._timing.begin()
        found: list[Effect] = []
        for frames, observations, left in groups:
            certain = self._timing.certain(left.steps, [len(frame.data) for frame in frames])
            counts = next(self._counts.reached(left.steps), False)
            for number, (frame, observation) in enumerate(zip(frames, observations, strict=True), 1):
                # What they left behind together is that of the last: by then it is known whether chance decides.
                own = left if number == len(frames) else left._replace(hooks=(), elements={}, connections=())
                found.append(self._effect(frame, observation, own, certain=certain, counts=counts))
        return tuple(found)

    def _effect(
        self, frame: Frame, observation: Observation, left: LeftBehind, *, certain: float, counts: bool
    ) -> Effect:
        packet, device = decisive(observation), observation.device
        seen = outcome(packet, device)
        steps = [step for step in packet.steps if step.host == device]
        _refuse_unlisted(steps)
        drawn, by_chance = self._drawn(frame, observation, packet) if self._is_drawn else (frozenset(), "")
        arrived = [_frame(one, drawn) for one in packet.deliveries if one.frame]
        taken_in = [device] if device in arrivals(packet) else []
        marks = [step.mark for step in steps]
        is_tracked = seen.verdict is Verdict.ACCEPT and not drawn
        return Effect(
            verdict=str(seen),
            decided=tuple(map(_place, seen.deciding)),
            met=tuple(_place(step) for step in steps if step.kind != "return"),
            came=tuple(dict.fromkeys(map(_place, [*steps, *left.steps]))),
            arrived=tuple(dict.fromkeys([*arrived, *taken_in])),
            answers=tuple(dict.fromkeys(_frame(one, drawn) for one in observation.replies)),
            mark=marks[-1] if marks else 0,
            logs=tuple(_logs(steps)),
            elements=left.elements,
            connections=tuple(sorted(map(_connection, left.connections))) if is_tracked else (),
            hooks=left.hooks,
            ended="" if arrived else _ended(packet.drop, device, seen),
            by_chance=by_chance,
            counts_connections=counts,
            age_s=left.age_s,
            certain_s=None if certain == inf else certain,
        )

    def _drawn(self, frame: Frame, observation: Observation, packet: ObservedPacket) -> tuple[frozenset[str], str]:
        """The ports and addresses that chance has drawn, and why chance decides about the packet; "" if it does not."""
        sample = Sample(
            sent=PacketResult(action=0, summary=frame.summary, packet=packet.number, observation=observation),
            rules=self._rules,
            where="",
        )
        try:
            if self._may_be_refused:
                chance.refuse(sample)
        except NotRecordableError as refused:
            return chance.random_fields(sample), str(refused)
        return chance.random_fields(sample), ""


def _logs(steps: Iterable[Step]) -> Iterator[str]:
    """The log statements that a packet met, except those that it meets by chance."""
    for step in steps:
        if step.rule and "log" in step.rule.text and not chance.matches_by(step.rule):
            yield from (found[0] for found in _LOG.finditer(step.rule.text))


def _counts(rule: Rule) -> Iterator[tuple[str, bool]]:
    """The statement of ``rule`` that counts connections."""
    text = bare(rule.text)
    if found := _COUNT.search(text):
        yield text[: found.start()], True


def _refuse_unlisted(steps: Iterable[Step]) -> None:
    if any(step.kind == "rule" and step.rule is None for step in steps):
        raise BrokenMeasurement("a rule decided that is not in the ruleset's listing")


def _ended(drop: Drop | None, device: str, seen: Outcome) -> str:
    """Where and why the kernel of ``device`` dropped what the ruleset accepted; "" where it did not."""
    if drop is None or drop.host != device or not str(seen).startswith("accept"):
        return ""
    return f"{drop.function}: {drop.reason}"


def _place(step: Step) -> Place:
    return step.family, step.table, step.chain, step.rule.handle if step.rule else 0


def _frame(one: Delivery, drawn: frozenset[str]) -> str:
    """What arrived, without what chance has drawn and without lengths of what the kernel quotes."""
    found = fields(one.frame)
    if drawn:
        ports = {name: "*" if name in drawn else found.get(name, "") for name in ("sport", "dport")}
        source = "*" if "src" in drawn else found.get("src")
        ends = f"{source}:{ports['sport']} → {found.get('dst')}:{ports['dport']} {found.get('protocol')}"
    else:
        ends = summarise(one.frame)
    more = [f"{name} {found[name]}" for name in ("ttl", "tos", "mss", "vlan") if found.get(name)]
    return f"{one.host} {one.device}: {', '.join([ends, *more])}"


def _connection(one: Connection) -> str:
    ways = " / ".join(f"{way.src}:{way.sport} → {way.dst}:{way.dport}" for way in (one.original, one.reply))
    status = ", ".join(name for name in one.status if name not in ("DYING",))
    more = [f"mark {one.mark}"] * bool(one.mark) + [f"zone {one.zone}"] * bool(one.zone)
    more += [f"helper {one.helper}"] * bool(one.helper)
    return " ".join([f"protocol {one.protocol}", ways, one.state, status, *more])
