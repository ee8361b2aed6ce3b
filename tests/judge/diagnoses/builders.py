"""What the tests of diagnoses share: what is said about a packet that was not as expected."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import msgspec

from harness.judge.advice import advise
from harness.model.observation import ObservedPacket, Rule, Step
from harness.model.result import Policy
from harness.reading.decision import outcome
from harness.scenario.models.expect import Expect
from tests.judge.test_judge import PASSED, observation, step


def advice(
    yaml: dict[str, object],
    packet: ObservedPacket,
    *others: ObservedPacket,
    rules: tuple[Rule, ...] = (),
    policies: tuple[Policy, ...] = (),
    **more: object,
) -> list[str]:
    """The sentences about ``packet``; ``others`` are what kernels made beside it, ``more`` is of the observation."""
    seen = msgspec.structs.replace(observation(packet), packets=(packet, *others), **more)
    expect = msgspec.convert(yaml, Expect)
    return list(advise(expect, outcome(packet, "device"), seen, packet, rules=rules, policies=policies))


def base(chain: str, hook: str = "", verdict: str = "accept") -> Policy:
    family, table, name = chain.split()
    return Policy(family=family, table=table, chain=name, hook=hook or name, verdict=verdict)


def headers(
    src: str = "203.0.113.5", dst: str = "10.0.2.2", *, flags: int = 2, sport: int = 40000, dport: int = 443
) -> bytes:
    """An IPv4 header and a TCP header, with the right checksum."""
    addresses = ip_address(src).packed + ip_address(dst).packed
    tcp = struct.pack(">HHIIBBHHH", sport, dport, 1000, 0, 5 << 4, flags, 64240, 0, 0)
    total = sum(struct.unpack(">10H", tcp)) + sum(struct.unpack(">4H", addresses)) + 6 + len(tcp)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    tcp = tcp[:16] + struct.pack(">H", 0xFFFF - total) + tcp[18:]
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + addresses + tcp


def ethernet(ip: bytes) -> bytes:
    return bytes(12) + b"\x08\x00" + ip


def at(one: Step, **more: object) -> Step:
    """``one`` with other values."""
    return msgspec.structs.replace(one, **more)


__all__ = ["PASSED", "advice", "at", "base", "ethernet", "headers", "step"]
