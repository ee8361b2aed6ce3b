"""Checksums of packets whose content has changed (RFC 1071)."""

from __future__ import annotations

from typing import Final

TCP, UDP = 6, 17
_AT: Final = {TCP: 16, UDP: 6}
"""Where the checksum stands in the header."""


def corrected(packet: bytes) -> bytes:
    """``packet``, from its IP header on, with the right TCP or UDP checksum; others, and fragments, as they are."""
    if len(packet) < 20:
        return packet
    if packet[0] >> 4 == 4:
        start, protocol, ends = (packet[0] & 15) * 4, packet[9], packet[12:20]
        if int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return packet
    else:
        start, protocol, ends = 40, packet[6], packet[8:40]
    place = start + _AT.get(protocol, 0)
    if protocol not in _AT or len(packet) < place + 2:
        return packet
    header = bytearray(packet[start:])
    header[place - start : place - start + 2] = bytes(2)
    pseudo = ends + len(header).to_bytes(4, "big") + bytes([0, 0, 0, protocol])
    found = _sum(pseudo + bytes(header)) ^ 0xFFFF
    header[place - start : place - start + 2] = (found or 0xFFFF if protocol == UDP else found).to_bytes(2, "big")
    return packet[:start] + bytes(header)


def _sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
