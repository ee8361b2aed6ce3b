"""From the bytes of a frame to its header fields.

Reading needs no scapy, which takes 0.2 s to import, 3 s under emulation.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from harness.netfilter import PROTOCOLS, WITH_PORTS
from harness.packets import icmp

ETHERNET = 14
"""Bytes of that header."""
VLAN_TAG = 4

_FLAGS = "FSRPAUECN"
# Extension headers of IPv6 that may stand before the upper layer: hop-by-hop, routing, fragment,
# destination options, mobility, host identity, shim6 (RFC 7045).
_FRAGMENT = 44
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, 60, 135, 139, 140})


def fields(frame: bytes) -> Mapping[str, str | int]:
    """The headers of ``frame``, from Ethernet on, as flat fields; those it does not have are absent.

    ``ether_src ether_dst ether_type``; ``vlan`` of the innermost tag, ``vlans`` of all (text, the outermost first);
    ``src dst`` (text, of IP or ARP); ``family`` (4, 6), ``ttl`` (or hop limit), ``tos`` (or traffic class), ``dscp``
    (its upper bits), ``length`` (bytes, IP header included), ``proto`` (number), ``protocol`` (name); ``sport dport``;
    ``flags seq ack mss`` of TCP; ``type code`` of ICMP and ICMPv6; ``op`` of ARP; ``inner`` (text), what a packet of a
    tunnel carries.
    A truncated frame gives the fields up to there.
    """
    found: dict[str, str | int] = {}
    try:
        _read_ethernet(frame, found)
    except (struct.error, IndexError):
        found["truncated"] = 1
    return found


def framed(headers: bytes) -> bytes:
    """An Ethernet frame without addresses around a packet that begins with its IP header."""
    return bytes(12) + (b"\x86\xdd" if headers[0] >> 4 == 6 else b"\x08\x00") + headers


def vlan_tags(frame: bytes) -> tuple[int, ...]:
    """The VLANs of the tags of ``frame``, the outermost first."""
    tags = []
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        tags.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF)
        at += VLAN_TAG
    return tuple(tags)


def is_fragment(frame: bytes) -> bool:
    """Whether ``frame`` carries a fragment of an IP packet: one that is not the whole of it."""
    found = fields(frame)
    at = ETHERNET + VLAN_TAG * len(vlan_tags(frame))
    if found.get("family") == 4:
        return bool(int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF)
    proto, at = frame[at + 6] if found.get("family") == 6 else 0, at + 40
    while found.get("family") == 6 and proto in _EXTENSIONS and len(frame) >= at + 8:
        if proto == _FRAGMENT:
            return bool(int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF9)
        proto, at = frame[at], at + 8 * (frame[at + 1] + 1)
    return False


def summarise(frame: bytes) -> str:
    """One line about ``frame``, e.g. ``203.0.113.5:40000 → 10.0.2.2:443 tcp S (IPv4, 40 bytes)``."""
    return summary(fields(frame))


def _read_ethernet(frame: bytes, found: dict[str, str | int]) -> None:
    found["ether_dst"], found["ether_src"] = frame[:6].hex(":"), frame[6:12].hex(":")
    at, (kind,) = 14, struct.unpack_from(">H", frame, 12)
    while kind in (0x8100, 0x88A8):  # 802.1Q, 802.1ad; the innermost tag counts
        tag, kind = struct.unpack_from(">HH", frame, at)
        found["vlan"] = tag & 0xFFF
        found["vlans"] = f"{found['vlans']}, {found['vlan']}" if "vlans" in found else str(found["vlan"])
        at += 4
    found["ether_type"] = kind
    if kind == 0x0800:
        _read_ipv4(frame[at:], found)
    elif kind == 0x86DD:
        _read_ipv6(frame[at:], found)
    elif kind == 0x0806:
        (operation,) = struct.unpack_from(">H", frame, at + 6)
        source, target = struct.unpack_from(">4s6x4s", frame, at + 14)
        found |= {"protocol": "arp", "op": {1: "request", 2: "reply"}.get(operation, operation)}
        found |= {"src": str(IPv4Address(source)), "dst": str(IPv4Address(target))}


def _read_ipv4(packet: bytes, found: dict[str, str | int]) -> None:
    first, tos, length, _, fragment, ttl, proto, source, destination = struct.unpack_from(">BBHHHBBxx4s4s", packet)
    found |= {"family": 4, "src": str(IPv4Address(source)), "dst": str(IPv4Address(destination))}
    found |= {"ttl": ttl, "tos": tos, "dscp": tos >> 2, "length": length}
    _read_transport(proto, packet[(first & 15) * 4 : length], found, first_fragment=not fragment & 0x1FFF)


def _read_ipv6(packet: bytes, found: dict[str, str | int]) -> None:
    first, length, proto, hops, source, destination = struct.unpack_from(">IHBB16s16s", packet)
    found |= {"family": 6, "src": str(IPv6Address(source)), "dst": str(IPv6Address(destination))}
    found |= {"ttl": hops, "tos": first >> 20 & 0xFF, "dscp": first >> 22 & 0x3F, "length": length + 40}
    at, first_fragment = 40, True
    while proto in _EXTENSIONS and first_fragment:
        header, (proto, size) = proto, struct.unpack_from(">BB", packet, at)
        if header == _FRAGMENT:
            first_fragment = not struct.unpack_from(">H", packet, at + 2)[0] & 0xFFF8
        at += 8 if header == _FRAGMENT else 8 * (size + 1)
    _read_transport(proto, packet[at : length + 40], found, first_fragment=first_fragment)


def _read_transport(proto: int, data: bytes, found: dict[str, str | int], *, first_fragment: bool) -> None:
    name = PROTOCOLS.get(proto, str(proto))
    found |= {"proto": proto, "protocol": name}
    if not first_fragment:
        return
    if proto in _ENCAPSULATING:
        _read_inner(data, found)
    elif name == "gre":
        _read_gre(data, found)
    if proto in WITH_PORTS:
        found["sport"], found["dport"] = struct.unpack_from(">HH", data)
    if name == "udp" and found["dport"] == VXLAN_PORT and len(data) >= 16 + ETHERNET:
        _read_inner_frame(data[16:], found)
    if name == "tcp":
        found["seq"], found["ack"], bits = struct.unpack_from(">IIH", data, 4)
        found["flags"] = "".join(flag for bit, flag in enumerate(_FLAGS) if bits >> bit & 1)
        _read_options(data[20 : (bits >> 12) * 4], found)
    elif name in ("icmp", "icmpv6"):
        found["type"], found["code"] = struct.unpack_from(">BB", data)


_ENCAPSULATING = frozenset({4, 41})
"""IP in IP (RFC 2003) and IPv6 in IP (RFC 4213)."""
VXLAN_PORT = 4789
_GRE_FIELDS = (0x8000, 0x2000, 0x1000)
"""Bits of the GRE header (RFC 2784, RFC 2890) that say that checksum, key and sequence number follow, 4 bytes each."""


def _read_inner(packet: bytes, found: dict[str, str | int]) -> None:
    """Note what stands inside, in one line; other fields are those of the outer packet. One tunnel is looked into."""
    if packet and packet[0] >> 4 in (4, 6):
        _read_inner_frame(framed(packet), found)


def _read_inner_frame(frame: bytes, found: dict[str, str | int]) -> None:
    if "inner" in found:
        return
    inside: dict[str, str | int] = {"inner": ""}
    with suppress(struct.error, IndexError):
        _read_ethernet(frame, inside)
        found["inner"] = summary(inside)


def _read_gre(data: bytes, found: dict[str, str | int]) -> None:
    flags, kind = struct.unpack_from(">HH", data)
    start = 4 + sum(4 for bit in _GRE_FIELDS if flags & bit)
    if kind in (0x0800, 0x86DD) and not flags & 7:  # version 0
        _read_inner(data[start:], found)
    elif kind == 0x6558:
        _read_inner_frame(data[start:], found)


def _read_options(options: bytes, found: dict[str, str | int]) -> None:
    """Of TCP's options only the maximum segment size (RFC 9293 section 3.2)."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 2:
            (found["mss"],) = struct.unpack_from(">H", options, at + 2)
        at += 1 if options[at] == 1 else max(options[at + 1], 2)


def summary(found: Mapping[str, str | int], sender: str | None = None, receiver: str | None = None) -> str:
    """One line about a frame with the fields ``found``, with the names of the hosts that send and receive it."""
    if "src" not in found:
        return f"{found.get('ether_src')} → {found.get('ether_dst')} type 0x{found.get('ether_type', 0):04x}"
    ends = []
    for end, port, name in (("src", "sport", sender), ("dst", "dport", receiver)):
        address = str(found[end])
        if port in found:
            address = f"[{address}]:{found[port]}" if ":" in address else f"{address}:{found[port]}"
        ends.append(f"{name} {address}" if name else address)
    words = [" → ".join(ends), str(found.get("protocol", ""))]
    if found.get("protocol") == "arp":
        return " ".join([*words, str(found["op"])])
    if flags := found.get("flags"):
        words.append(str(flags))
    if "type" in found:
        types = icmp.TYPES if found["protocol"] == "icmp" else icmp.TYPES_V6
        words.append(icmp.name_of(types, found["type"], f"type {found['type']}"))
        if found["code"]:
            words.append(f"code {found['code']}")
    if inner := found.get("inner"):
        words.append(f"[{inner}]")
    tags = f", VLAN {found['vlans']}" if "vlans" in found else ""
    return f"{' '.join(words)} (IPv{found['family']}, {found['length']} bytes{tags})"
