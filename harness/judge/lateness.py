"""Whether a packet may be other than expected because the machine was slow.

Limits let more pass, and elements and connections expire, while a busy machine takes its time between two packets. A
scenario says how fast they come: at once, or at a rate. What a ruleset decides when they are late says nothing then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from harness.errors import BrokenMeasurement
from harness.judge.evidence import Evidence
from harness.judge.unmet import evaluations_of, place
from harness.model.observation import Pace, Rule
from harness.reading.elements import changes_headers, plain
from harness.reading.limits import Limit, limits_of, may_come_behind, recent
from harness.reading.rules import bare

REMEDY: Final = "run it on a machine that does less besides, for example with fewer workers (-n 1)"
FASTEST_S: Final = 0.01
"""Seconds between two packets below which a scenario had better say how fast they come: no machine sends all at once,
and an emulated guest needs some milliseconds for each."""
LEAST: Final = 20
"""Bytes of a packet."""
_CHANGED: Final = re.compile(r"(?<!\S)(?:add|update|delete) (@\S+)")
_MARKS: Final = re.compile(r"(?<!\S)ct mark set\b")
_TRANSLATES: Final = re.compile(r"(?<!\S)(?:dnat|snat|masquerade|redirect)\b")


def remedy(token: float) -> str:
    """What to do about a limit that lets a packet pass again after ``token`` seconds."""
    if token >= FASTEST_S:
        return REMEDY
    return f"{REMEDY}; or say how fast packets come, by `rate` or `interval`, as no machine sends them all at once"


def refuse_late(evidence: Evidence, pace: Pace, named: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise :class:`~harness.errors.BrokenMeasurement` where a packet that is not as expected may have come too late.

    ``named`` are the texts of limits with a name and of sets, as of :func:`~harness.reading.limits.limits_of`.

    A limit by packets cannot have been exceeded, at whatever speed, while no more of them came than it lets pass at
    once; and it decides the same in a time that is shorter than that of a token.
    """
    if pace.late <= 0:
        return
    for rule, limit in ((one, limit) for one in evidence.rules for limit in limits_of(one, named)):
        if not limit.token or pace.late < limit.token:
            continue
        came = pace.bytes if limit.bytes else pace.packets
        if came > limit.burst and _concerns(rule, limit, evidence):
            raise BrokenMeasurement(
                f"packets came {pace.late:.3g} s later than the scenario asks, in which `{limit.text}` ({place(rule)}) "
                f"lets more of them pass",
                remedy=remedy(limit.token * (LEAST if limit.bytes else 1)),
            )
    for rule, seconds in ((one, seconds) for one in evidence.rules for seconds in recent(one)):
        if pace.late >= seconds and _may_have_come(rule, "", evidence):
            raise BrokenMeasurement(
                f"packets came {pace.late:.3g} s later than the scenario asks, and {place(rule)} looks back "
                f"{seconds:g} s",
                remedy=REMEDY,
            )
    for what, seconds, asked_by in pace.lasting:
        if _is_asked(asked_by, evidence):
            raise BrokenMeasurement(
                f"{what} stays {seconds:g} s, and more than that has passed which the scenario has not asked for",
                remedy=REMEDY,
            )


def _concerns(rule: Rule, limit: Limit, evidence: Evidence) -> bool:
    """Whether the limit may have decided about the packet, or about what another rule asks for."""
    if _may_have_come(rule, limit.before, evidence):
        return True
    changed = [*_CHANGED.findall(rule.text), *(["ct"] if _MARKS.search(rule.text) else [])]
    return any(_is_asked(one, evidence) for one in changed)


def _is_asked(word: str, evidence: Evidence) -> bool:
    """Whether the packet may have come to a rule that asks for ``word``, or was translated by its connection."""
    asks = re.compile(rf"(?<!\S){re.escape(word)}(?!\S)")
    for rule in evidence.rules:
        if word == "ct" and _TRANSLATES.search(bare(rule.text)):
            return True
        if (found := asks.search(plain(rule.text))) and _may_have_come(
            rule, plain(rule.text)[: found.start()], evidence
        ):
            return True
    return False


def _may_have_come(rule: Rule, before: str, evidence: Evidence) -> bool:
    """Whether the packet may have come to what stands in ``rule`` behind its text ``before``."""
    packet, device = evidence.packet, evidence.device
    if any(step.rule and step.rule.place == rule.place for step in packet.steps):
        return True
    firsts = evaluations_of(rule, evidence.rules, packet, device)
    return any(changes_headers(evidence.rules) or may_come_behind(before, first) for first in firsts)
