"""The checksums of TCP, UDP, ICMP and ICMPv6 (RFC 1071)."""

from __future__ import annotations

import struct

from harness.packets.headers import ETHERNET, VLAN_TAG, vlan_tags

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58


def is_checksum_wrong(frame: bytes) -> bool:
    """Whether the transport checksum of an Ethernet frame is wrong.

    False also where that is not known: of fragments, behind IPv6 extension headers, of other protocols and of frames
    that are cut off.
    """
    packet = frame[ETHERNET + VLAN_TAG * len(vlan_tags(frame)) :]
    try:
        found = _ipv4(packet) if packet[0] >> 4 == 4 else _ipv6(packet)
    except (struct.error, IndexError):
        return False
    if found is None:
        return False
    protocol, pseudo, data = found
    if protocol == _UDP and data[6:8] == bytes(2):  # none; over IPv6 the kernel accepts that for tunnels alone
        return False
    return ones_sum(pseudo + data) != 0xFFFF


def _ipv4(packet: bytes) -> tuple[int, bytes, bytes] | None:
    first, length, fragment, protocol = struct.unpack_from(">BxHxxHxB", packet)
    data = packet[(first & 15) * 4 : length]
    if len(packet) < length or fragment & 0x3FFF or protocol not in (_TCP, _UDP, _ICMP):
        return None
    return protocol, b"" if protocol == _ICMP else packet[12:20] + struct.pack(">HH", protocol, len(data)), data


def _ipv6(packet: bytes) -> tuple[int, bytes, bytes] | None:
    length, protocol = struct.unpack_from(">4xHB", packet)
    data = packet[40 : 40 + length]
    if len(data) < length or protocol not in (_TCP, _UDP, _ICMPV6):
        return None
    return protocol, packet[8:40] + struct.pack(">II", len(data), protocol), data


def ones_sum(data: bytes) -> int:
    """The sum of all 16-bit words in one's complement."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
