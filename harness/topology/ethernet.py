"""Ethernet addresses of a lab."""

from __future__ import annotations

from harness.topology.parts import BROADCAST, EVERYBODY, Address


def station_mac(host: int, interface: int) -> str:
    """The address of an interface, both counted from 1: locally administered, each number in two bytes."""
    return f"02:00:{host >> 8:02x}:{interface >> 8:02x}:{host & 255:02x}:{interface & 255:02x}"


def group_mac(address: Address) -> str:
    """The Ethernet address of a broadcast or multicast group: RFC 1112 section 6.4, RFC 2464 section 7."""
    if address == EVERYBODY:
        return BROADCAST
    octets = address.packed
    if address.version == 6:
        return (b"\x33\x33" + octets[-4:]).hex(":")
    return bytes([0x01, 0x00, 0x5E, octets[1] & 0x7F, *octets[2:]]).hex(":")
