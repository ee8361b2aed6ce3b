"""Frames for generated truth: a value, its bytes, and bytes read back. Nothing of ``harness`` is used here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
SYN, ACK, RST = 0x02, 0x10, 0x04
HEADER = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8}
"""Bytes of each protocol's header; ICMP's with the four bytes behind the checksum."""


REQUEST, REPLY = 1, 2
"""Operations of ARP (RFC 826)."""
ETHERNET = 14
ETHERTYPES = {4: 0x0800, 6: 0x86DD, 0: 0x0806}
BROADCAST = (1 << 48) - 1


@dataclass(frozen=True)
class Packet:
    """An IP packet or an ARP message in its frame, and what the kernel keeps beside it."""

    src: str
    """The sender's address; of ARP, its protocol address."""
    dst: str
    proto: int
    """The protocol that IP carries; 0 of ARP."""
    sport: int = 0
    dport: int = 0
    flags: int = SYN
    type: int = 0
    code: int = 0
    id: int = 0
    payload: int = 0
    """Bytes behind the header of ``proto``; in a payload of zeros."""
    ttl: int = 64
    dscp: int = 0
    iif: str = ""
    oif: str = ""
    mark: int = 0
    smac: int = 0
    dmac: int = 0
    """Ethernet addresses as numbers; ``smac`` is also the one that an ARP message names as its sender's."""
    arp: int = 0
    """The operation of an ARP message; 0 of an IP packet."""
    target: int = 0
    """The Ethernet address that an ARP message names as its target's."""
    pkttype: int = 0
    """As in <linux/if_packet.h>: 0 for this host, 3 for another one."""

    @property
    def version(self) -> int:
        """Of IP; 0 of ARP."""
        return 0 if self.arp else 6 if ":" in self.src else 4

    @property
    def ethertype(self) -> int:
        return ETHERTYPES[self.version]

    @property
    def length(self) -> int:
        """Bytes behind the Ethernet header."""
        if self.arp:
            return 28
        return (40 if self.version == 6 else 20) + HEADER[self.proto] + self.payload

    @property
    def has_ports(self) -> bool:
        return self.proto in (TCP, UDP)

    def frame(self) -> bytes:
        """The packet in its Ethernet frame."""
        return struct.pack(">6s6sH", _mac(self.dmac), _mac(self.smac), self.ethertype) + self.bytes()

    def bytes(self) -> bytes:
        """The packet from its IP header on, with right checksums."""
        if self.arp:
            ends = _mac(self.smac), ip_address(self.src).packed, _mac(self.target), ip_address(self.dst).packed
            return struct.pack(">HHBBH", 1, 0x0800, 6, 4, self.arp) + b"".join(ends)
        source, destination = ip_address(self.src), ip_address(self.dst)
        size = HEADER[self.proto] + self.payload
        if self.proto == TCP:
            head = struct.pack(">HHIIBBHHH", self.sport, self.dport, 1000, 0, 5 << 4, self.flags, 64240, 0, 0)
            at = 16
        elif self.proto == UDP:
            head, at = struct.pack(">HHHH", self.sport, self.dport, size, 0), 6
        else:
            head, at = struct.pack(">BBHHH", self.type, self.code, 0, self.id, 1), 2
        inner = head + bytes(self.payload)
        pseudo = (
            b"" if self.proto == ICMP else source.packed + destination.packed + struct.pack(">II", size, self.proto)
        )
        check = _checksum(pseudo + inner)
        inner = inner[:at] + struct.pack(">H", check or 0xFFFF) + inner[at + 2 :]
        if self.version == 6:
            first = 6 << 28 | self.dscp << 22
            return struct.pack(">IHBB", first, size, self.proto, self.ttl) + source.packed + destination.packed + inner
        ends = source.packed + destination.packed
        fixed = struct.pack(">BBHHHBBH", 0x45, self.dscp << 2, self.length, 1, 0, self.ttl, self.proto, 0) + ends
        return fixed[:10] + struct.pack(">H", _checksum(fixed)) + fixed[12:] + inner

    def __str__(self) -> str:
        at = f"{self.iif or 'local'}: " if self.iif or not self.oif else ""
        at += f"{self.smac:012x} > {self.dmac:012x} "
        if self.arp:
            return f"{at}arp {self.arp} {self.src} > {self.dst} ({self.target:012x})"
        more = f"{self.sport} > {self.dport}" if self.has_ports else f"type {self.type} code {self.code} id {self.id}"
        name = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}[self.proto]
        flags = f" flags {self.flags:#x}" if self.proto == TCP else ""
        return f"{at}{self.src} > {self.dst} {name} {more}{flags} ttl {self.ttl} dscp {self.dscp} length {self.length}"


def read(data: bytes) -> Packet:
    """The packet in a frame."""
    head, data = data[:ETHERNET], data[ETHERNET:]
    macs = {"smac": int.from_bytes(head[6:12], "big"), "dmac": int.from_bytes(head[:6], "big")}
    if head[12:] == b"\x08\x06":
        operation, source, target, destination = struct.unpack_from(">6xH6x4s6s4s", data)
        named = {"arp": operation, "target": int.from_bytes(target, "big")}
        return Packet(str(ip_address(source)), str(ip_address(destination)), 0, **named, **macs)
    if data[0] >> 4 == 6:
        first, size, proto, ttl = struct.unpack_from(">IHBB", data)
        source, destination, dscp, inner = data[8:24], data[24:40], first >> 22 & 0x3F, data[40:]
    else:
        tos, total, ttl, proto = struct.unpack_from(">xBHxxxxBB", data)
        source, destination, dscp, size, inner = data[12:16], data[16:20], tos >> 2, total - 20, data[20:]
    ends = {"src": str(ip_address(source)), "dst": str(ip_address(destination))}
    more = {"payload": size - HEADER[proto], "ttl": ttl, "dscp": dscp, **macs}
    if proto in (TCP, UDP):
        sport, dport = struct.unpack_from(">HH", inner)
        flags = inner[13] if proto == TCP else SYN
        return Packet(**ends, proto=proto, sport=sport, dport=dport, flags=flags, **more)
    kind, code, number = struct.unpack_from(">BBxxH", inner)
    return Packet(**ends, proto=proto, type=kind, code=code, id=number, **more)


def _mac(number: int) -> bytes:
    return number.to_bytes(6, "big")


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
