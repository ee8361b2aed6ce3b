"""What a host answers by itself: a part of the reference (:mod:`tests.truth.reference`), from RFCs and nft(8)."""

from __future__ import annotations

from dataclasses import replace

from tests.truth.packets import ACK, ICMP, ICMPV6, RST, TCP, UDP, Packet

CODES = {
    "icmp port-unreachable": (3, 3),
    "icmp host-unreachable": (3, 1),
    "icmp net-unreachable": (3, 0),
    "icmp prot-unreachable": (3, 2),
    "icmp admin-prohibited": (3, 13),
    "icmp host-prohibited": (3, 10),
    "icmpv6 port-unreachable": (1, 4),
    "icmpv6 no-route": (1, 0),
    "icmpv6 admin-prohibited": (1, 1),
    "icmpv6 addr-unreachable": (1, 3),
    "icmpx port-unreachable": (3, 3),
    "icmpx no-route": (3, 0),
    "icmpx admin-prohibited": (3, 13),
    "icmpx host-unreachable": (3, 1),
}
OF_ICMPX = {(3, 3): (1, 4), (3, 0): (1, 0), (3, 13): (1, 1), (3, 1): (1, 3)}
"""``icmpx`` for IPv6 (nft(8), REJECT STATEMENT)."""


def of_host(packet: Packet) -> Packet | None:
    """What a host on which nothing listens answers."""
    if packet.proto == TCP:
        answer = None if packet.flags & RST else reset(packet)
        # Linux answers with the type of service of the packet (tcp_v4_send_reset() in net/ipv4/tcp_ipv4.c).
        return replace(answer, dscp=packet.dscp) if answer else None
    if packet.proto == UDP:
        return unreachable(packet, *((1, 4) if packet.version == 6 else (3, 3)), packet.dst)
    if packet.type == 8 or packet.type == 128:
        kind = 129 if packet.version == 6 else 0
        return Packet(
            *(packet.dst, packet.src, packet.proto), type=kind, id=packet.id, payload=packet.payload, dscp=packet.dscp
        )
    return None


def rejection(packet: Packet, how: str, source: str) -> Packet | None:
    """What ``reject`` sends from ``source``."""
    if how == "tcp reset":
        return None if packet.flags & RST else reset(packet)
    code = CODES[how or "icmpx port-unreachable"]
    return unreachable(packet, *(OF_ICMPX.get(code, code) if packet.version == 6 else code), source)


def reset(packet: Packet) -> Packet:
    flags = RST if packet.flags & ACK else RST | ACK
    return Packet(packet.dst, packet.src, TCP, packet.dport, packet.sport, flags=flags)


def unreachable(packet: Packet, kind: int, code: int, source: str) -> Packet:
    if packet.version == 6:
        return Packet(source, packet.src, ICMPV6, type=kind, code=code, payload=packet.length)
    # Precedence 6, and the type of service of what it is about (RFC 1812, 4.3.2.5; RFC 1122, 3.2.2).
    dscp = 0b110000 | packet.dscp & 0b000111
    return Packet(source, packet.src, ICMP, type=kind, code=code, payload=packet.length, dscp=dscp)
