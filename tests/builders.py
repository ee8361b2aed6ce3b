"""Observed packets made by hand: one that goes from client to server, changes of it, and what is judged of them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import msgspec

from harness.errors import Position
from harness.judge.advice import advise
from harness.judge.evidence import Evidence
from harness.judge.expectations import judge
from harness.model.observation import Delivery, Hop, Loss, Observation, ObservedPacket, Rule, Step, Verdict
from harness.model.result import Policy
from harness.reading.decision import outcome
from harness.scenario.models.expect import Expect
from harness.topology.network import Network

FORWARD = "inet filter forward"


def frame(src: str = "203.0.113.5", dst: str = "10.0.2.2", *, ttl: int = 64) -> bytes:
    tcp = struct.pack(">HHIIBBHHH", 40000, 443, 1000, 0, 5 << 4, 2, 64240, 0, 0)
    source, destination = ip_address(src), ip_address(dst)
    if source.version == 6:
        ip = struct.pack(">IHBB", 6 << 28, len(tcp), 6, ttl) + source.packed + destination.packed
    else:
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, ttl, 6, 0) + source.packed + destination.packed
    return bytes(12) + (b"\x86\xdd" if source.version == 6 else b"\x08\x00") + ip + tcp


def rule(text: str, *, line: int = 18, handle: int = 9, comment: str = "", chain: str = FORWARD) -> Rule:
    family, table, name = chain.split()
    place = Position("rulesets/edge.nft", line)
    return Rule(family=family, table=table, chain=name, handle=handle, text=text, comment=comment, position=place)


def step(verdict: str, found: Rule | None = None, *, chain: str = FORWARD, hook: str = "", target: str = "") -> Step:
    family, table, name = chain.split()
    return Step(
        time=0,
        host="device",
        hook=hook or name,
        family=family,
        table=table,
        chain=name,
        kind="rule" if found else "policy",
        verdict=Verdict(verdict),
        target=target,
        rule=found,
    )


def hop(function: str, layer: str = "IPv4", *, host: str = "device", device: str = "wan0", **detail: str) -> Hop:
    return Hop(time=0, cpu=0, host=host, device=device, function=function, layer=layer, detail=detail)


def arrival(host: str = "server", data: bytes | None = None) -> Delivery:
    return Delivery(time=0, host=host, device="eth0", frame=frame(ttl=63) if data is None else data)


HTTPS = rule("tcp dport { 22, 443 } accept")
WAY = (
    hop("dev_queue_xmit", "Xmit", host="client", device="eth0"),
    hop("netif_receive_skb", "Device"),
    hop("ip_rcv"),
    hop("nft_do_chain", "Netfilter", chain=FORWARD, hook="forward", verdict="accept"),
    hop("ip_forward_finish"),
    hop("__dev_queue_xmit", "Xmit", device="lan0"),
    hop("ip_rcv", host="server", device="eth0"),
)
PASSED = ObservedPacket(
    number=0, sender="client", frame=frame(), hops=WAY, steps=(step("accept", HTTPS),), deliveries=(arrival(),)
)


def changed(packet: ObservedPacket = PASSED, **changes: object) -> ObservedPacket:
    return msgspec.structs.replace(packet, **changes)


def dropped(*steps: Step, **changes: object) -> ObservedPacket:
    return changed(steps=steps, deliveries=(), hops=(), **changes)


def observation(packet: ObservedPacket) -> Observation:
    traced = frozenset({hop.function for hop in WAY} | {"sk_skb_reason_drop", "ip_local_deliver", "nf_hook_slow"})
    return Observation(
        packets=(packet,),
        loss=Loss(entered=9, received=9),
        kernel="6.12",
        engine="kprobe.multi",
        device="device",
        traced=traced,
    )


def place(keys: tuple[str | int, ...]) -> Position:
    return Position("edge.yaml", 31, len(keys))


def complaints(yaml: dict[str, object], packet: ObservedPacket = PASSED, **more: object) -> list[str]:
    """Return what ``judge`` says, one line for each mismatch."""
    expect = msgspec.convert(yaml, Expect)
    return [
        f"{one.key}: {one.expected} / {one.seen}" + (f" / {one.note}" if one.note else "")
        for one in judge(expect, msgspec.structs.replace(observation(packet), **more), packet, at=place)
    ]


def advice(
    yaml: dict[str, object],
    packet: ObservedPacket,
    *others: ObservedPacket,
    rules: tuple[Rule, ...] = (),
    policies: tuple[Policy, ...] = (),
    sets: dict[str, tuple[str, ...]] | None = None,
    network: Network | None = None,
    **more: object,
) -> list[str]:
    """The sentences about ``packet``; ``others`` are what kernels made beside it, ``more`` is of the observation."""
    seen = msgspec.structs.replace(observation(packet), packets=(packet, *others), **more)
    expect = msgspec.convert(yaml, Expect)
    return list(advise(Evidence(expect, outcome(packet, "device"), seen, packet, rules, policies, sets or {}, network)))


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
