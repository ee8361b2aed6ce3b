"""Answers of the device that its own ruleset dropped, and answers from elsewhere than was called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.judge.evidence import Evidence
from harness.judge.flow import foreign_answers
from harness.judge.unmet import place
from harness.model.observation import ObservedPacket, Step
from harness.packets import icmp
from harness.packets.headers import fields
from harness.reading.decision import FORWARDING, REFUSED
from harness.reading.path import hops_on
from harness.reading.rules import translated
from harness.reading.words import describe_decision

OUT = ("output", "postrouting")
"""Hooks that a packet passes which the device itself has made."""


def own_answer_was_dropped(evidence: Evidence) -> Iterator[str]:
    """The device's kernel answered, and the device's ruleset dropped that on its way out."""
    if not evidence.expects_answer:
        return
    callers = {found["src"] for one in evidence.observation.injected if "src" in (found := fields(one.frame))}
    for answer, headers in evidence.answers():
        step = _refusal(answer, evidence.device)
        if step and headers.get("dst") in callers:
            yield (
                f"{evidence.device} made the answer, {_kind(headers)}, and its own ruleset dropped it: "
                f"{describe_decision(step)}, at hook {step.hook}; accept it there"
            )
            return


def _refusal(answer: ObservedPacket, device: str) -> Step | None:
    steps = [step for step in answer.steps if step.host == device]
    return steps[-1] if steps and steps[-1].verdict in REFUSED and steps[-1].hook in OUT else None


def _kind(headers: Mapping[str, str | int]) -> str:
    """What an answer is, in a few words."""
    protocol = headers.get("protocol")
    if protocol == "tcp":
        flags = set(str(headers.get("flags", "")))
        return "a TCP reset" if "R" in flags else "a SYN-ACK" if {"S", "A"} <= flags else "a TCP packet"
    if protocol in ("icmp", "icmpv6"):
        types, codes = (icmp.TYPES, icmp.CODES) if protocol == "icmp" else (icmp.TYPES_V6, icmp.CODES_V6)
        kind = icmp.name_of(types, number := headers.get("type"), str(number))
        if kind == "destination-unreachable":
            kind = icmp.name_of(codes, number := headers.get("code"), str(number))
        return f"{'ICMP' if protocol == 'icmp' else 'ICMPv6'} {kind}"
    return f"a packet of protocol {protocol}"


def answer_came_from_another_address(evidence: Evidence) -> Iterator[str]:
    """A program takes an answer only from the address that it has called (RFC 9293 section 3.10.7, connect(2))."""
    flow = evidence.observation.flow
    if flow is None or flow.result != "timeout" or not evidence.expects_answer:
        return
    device = evidence.device
    for source, called, answer in foreign_answers(evidence.observation):
        sentence = f"{answer.sender} answered from {source}, and {called} was called"
        routed = any(hop.function in FORWARDING for hop in hops_on(answer, device))
        by = translated(evidence.packet, device)
        if by and evidence.observation.whole and not routed and answer.sender != device:
            yield (
                f"{sentence}: {place(by)} translated the destination, but the answer was not routed by {device}, so "
                f"it was not translated back; masquerade what {device} sends there, so that it gets the answers"
            )
        elif by:
            yield f"{sentence}: the answer was not translated back"
        else:
            yield f"{sentence}; a program takes answers only from where it has called"
        return
