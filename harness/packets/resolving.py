"""Messages that ask for a neighbour's Ethernet address: ARP (RFC 826) and Neighbour Discovery (RFC 4861), as frames.

They are written by hand: Scapy is expensive to import in an emulated guest, and here every field is fixed.
"""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from harness.packets.checksum import ones_sum
from harness.packets.headers import ETHERNET
from harness.topology.parts import BROADCAST, NO_MAC, Address, Interface

ETH_P_IPV6: Final = 0x86DD
ETHER_ARP: Final = bytes.fromhex("0806")
ARP_IP: Final = bytes.fromhex("00010800")
"""Hardware type Ethernet, protocol type IPv4."""
ICMPV6: Final = 58
ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT = 135, 136
ND_OPT_SOURCE_LINKADDR, ND_OPT_TARGET_LINKADDR = 1, 2
SOLICITED_OVERRIDE: Final = 0x60000000
HOP_LIMIT: Final = 255
"""RFC 4861 section 7.1.1."""
_IPV6: Final = 40


class Kind(enum.Enum):
    """What a message is."""

    QUESTION = enum.auto()
    ANSWER = enum.auto()


_KINDS: Final = {
    1: Kind.QUESTION,
    2: Kind.ANSWER,
    ND_NEIGHBOR_SOLICIT: Kind.QUESTION,
    ND_NEIGHBOR_ADVERT: Kind.ANSWER,
}
"""By operation of ARP or type of ICMPv6."""


def pair(asking: Interface, mac: str, address: Address, source: IPv6Address | None) -> tuple[bytes, bytes]:
    """The frames by which ``asking`` asks for ``address``, and by which its owner with ``mac`` answers.

    ``source`` is that of a solicitation.
    """
    if isinstance(address, IPv6Address):
        source = source or IPv6Address("::")
        return _solicitation(asking.mac, source, address), _advertisement(asking.mac, source, mac, address)
    own = asking.address(4) or IPv4Address(0)
    return (
        _octets(BROADCAST) + _octets(asking.mac) + ETHER_ARP + _arp(1, asking.mac, own, NO_MAC, address),
        _octets(asking.mac) + _octets(mac) + ETHER_ARP + _arp(2, mac, address, asking.mac, own),
    )


def kind(frame: bytes, address: Address) -> Kind | None:
    """What ``frame`` is in the resolution of ``address``; None for any other frame."""
    found, about = _message(frame)
    return found if about == address.packed else None


def asked(frame: bytes) -> Address | None:
    """The address whose owner ``frame`` asks for; None for one that is no question, or cut short."""
    found, about = _message(frame)
    return ip_address(about) if found is Kind.QUESTION and len(about) in (4, 16) else None


def _message(frame: bytes) -> tuple[Kind | None, bytes]:
    """What ``frame`` is, and the address whose resolution it is about; None for one that resolves nothing."""
    network = frame[ETHERNET:]
    found = kind_of_headers(network, network[_IPV6:])
    if network[:4] == ARP_IP:
        return found, network[24:28] if found is Kind.QUESTION else network[14:18]
    return found, network[_IPV6 + 8 : _IPV6 + 24]


def kind_of_headers(network: bytes, transport: bytes) -> Kind | None:
    """What a packet is by its headers; None for one that resolves nothing."""
    if network[:4] == ARP_IP:
        return _KINDS.get(network[7]) if len(network) > 7 else None
    if network[:1] and network[0] >> 4 == 6 and len(network) > 6 and network[6] == ICMPV6 and transport:
        return _KINDS.get(transport[0]) if transport[0] > 2 else None
    return None


def _arp(operation: int, mac: str, own: Address, other_mac: str, other: Address) -> bytes:
    head = ARP_IP + struct.pack("!BBH", 6, 4, operation)
    return head + _octets(mac) + own.packed + _octets(other_mac) + other.packed


def solicited(address: IPv6Address) -> IPv6Address:
    """The multicast group of ``address`` (RFC 4291 section 2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def solicitation(mac: str, address: IPv6Address) -> bytes:
    """The ICMPv6 message that asks for ``address``, without its checksum (RFC 4861 section 4.3)."""
    message = struct.pack("!BBHI", ND_NEIGHBOR_SOLICIT, 0, 0, 0) + address.packed
    return message + bytes([ND_OPT_SOURCE_LINKADDR, 1]) + _octets(mac)


def _solicitation(mac: str, source: IPv6Address, address: IPv6Address) -> bytes:
    group = solicited(address)
    return b"\x33\x33" + group.packed[12:] + _octets(mac) + _icmpv6(source, group, solicitation(mac, address))


def _advertisement(to: str, source: IPv6Address, mac: str, address: IPv6Address) -> bytes:
    message = struct.pack("!BBHI", ND_NEIGHBOR_ADVERT, 0, 0, SOLICITED_OVERRIDE) + address.packed
    message += bytes([ND_OPT_TARGET_LINKADDR, 1]) + _octets(mac)
    return _octets(to) + _octets(mac) + _icmpv6(address, source, message)


def _icmpv6(source: IPv6Address, destination: IPv6Address, message: bytes) -> bytes:
    """From the Ethernet type on, with the checksum of RFC 4443 section 2.3."""
    pseudo = source.packed + destination.packed + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", ~ones_sum(pseudo + message) & 0xFFFF) + message[4:]
    head = struct.pack("!HIHBB", ETH_P_IPV6, 6 << 28, len(message), ICMPV6, HOP_LIMIT)
    return head + source.packed + destination.packed + message


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
