"""Hand-made answers to the packets of real sockets: how a scenario writes them, and their bytes.

Like :mod:`harness.packets.resolving`, the bytes are written without Scapy, which is expensive to import under TCG.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Final

from msgspec import Meta

from harness.model.fields import AnyAddress, Byte, HostName, Model, Port, Word
from harness.model.problem import Problem
from harness.packets import icmp
from harness.packets.checksum import ones_sum
from harness.packets.headers import ETHERNET, VLAN_TAG, fields, vlan_tags
from harness.packets.spec import HEX, SeesICMP
from harness.topology.parts import Address

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_IPV4, _IPV6 = 20, 40
"""Bytes of these headers without options."""
FIRST_SEQUENCE: Final = 1000
_REDIRECT: Final = 5
QUOTED: Final[Mapping[int, int]] = {4: 548, 6: 1232}
"""Most bytes of the packet that an ICMP error quotes: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4."""
_FLAGS: Final = "FSRPAUECN"
_CODES: Final = {_ICMP: icmp.CODES, _ICMPV6: icmp.CODES_V6}
_TYPES: Final = {_ICMP: icmp.TYPES, _ICMPV6: icmp.TYPES_V6}
_MTU: Final = {(_ICMP, 3): 2, (_ICMPV6, 2): 0}
"""Where the MTU stands behind the checksum, in messages that have one: RFC 1191 section 4, RFC 4443 section 3.2."""


Relative = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class AnswerTCP(Model, frozen=True, kw_only=True):
    """A TCP segment; keys left out are chosen to match the segment that it answers."""

    flags: Annotated[
        str,
        Meta(pattern="^[FSRPAUECN]*$", description="Flags by their first letter; C is CWR.", examples=["RA", "SA"]),
    ] = "SA"
    seq: Annotated[
        Relative,
        Meta(
            description="Offset to the matching sequence number: the one that was acknowledged, else 0 for a "
            "reset and 1000 for others.",
            examples=[100000],
        ),
    ] = 0
    ack: Annotated[
        Relative,
        Meta(
            description="Offset to the matching acknowledgement number, which acknowledges everything received.",
            examples=[100000, -1],
        ),
    ] = 0
    window: Annotated[Word, Meta(description="Window, in bytes.", examples=[0])] = 64240
    mss: Annotated[Word | None, Meta(description="Option: maximum segment size, in bytes.", examples=[1460])] = None


class AnswerUDP(Model, frozen=True, kw_only=True):
    """A UDP datagram."""


class AnswerICMP(Model, frozen=True, kw_only=True):
    """An ICMP or ICMPv6 error that quotes the packet which it answers."""

    type: Annotated[
        str | Byte,
        Meta(description="Name as nft writes it, or number.", examples=["time-exceeded", "packet-too-big", 11]),
    ] = "destination-unreachable"
    code: Annotated[
        str | Byte | None,
        Meta(
            description="Number; or name, for destination-unreachable, which has `port-unreachable` unless given.",
            examples=["host-unreachable", 1],
        ),
    ] = None
    mtu: Annotated[
        Word | None,
        Meta(description="The MTU that `frag-needed` and `packet-too-big` report, in bytes.", examples=[1400]),
    ] = None
    gateway: Annotated[
        AnyAddress | None,
        Meta(description="Of a `redirect` the router to be used instead, an IPv4 address.", examples=["192.0.2.3"]),
    ] = None


class AnswerBytes(Model, frozen=True, kw_only=True):
    """Bytes in hexadecimal."""

    hex: Annotated[
        Annotated[str, Meta(pattern=HEX)],
        Meta(description="Two digits for each byte, with or without spaces between bytes.", examples=["00 01"]),
    ]


class RawAnswer(Model, frozen=True, kw_only=True):
    """A hand-made packet: one of `tcp`, `udp`, `icmp` and `icmpv6`.

    Addresses and ports are those of the packet that it answers, in the other direction.
    """

    tcp: Annotated[AnswerTCP | None, Meta(description="A TCP segment.", examples=[{"flags": "RA"}])] = None
    udp: Annotated[AnswerUDP | None, Meta(description="A UDP datagram.", examples=[{}])] = None
    icmp: Annotated[AnswerICMP | None, Meta(description="An ICMP error.", examples=[{"code": "host-unreachable"}])] = (
        None
    )
    icmpv6: Annotated[
        AnswerICMP | None, Meta(description="An ICMPv6 error.", examples=[{"code": "addr-unreachable"}])
    ] = None
    payload: Annotated[
        str | AnswerBytes | None,
        Meta(
            description="Bytes after the header of TCP or UDP: as UTF-8 text or in hexadecimal.",
            examples=["220 ready", {"hex": "00 01"}],
        ),
    ] = None
    src: Annotated[
        AnyAddress | None,
        Meta(description="Another source address, such as that of a router.", examples=["198.51.100.9"]),
    ] = None
    sport: Annotated[Port | None, Meta(description="Another source port.", examples=[5353])] = None
    ttl: Annotated[Byte, Meta(description="Time to live or hop limit.", examples=[1])] = 64


class Answer(Model, frozen=True, kw_only=True, rename={"with_": "with"}):
    """Hand-made answers of a silent host to the packets of `connect` and `exchange`, until the scenario ends.

    In each of these steps the first packet that the host receives is answered by the first entry, the second by the
    second, and so on; later packets are not answered. The kernel of such a host answers nothing, so
    there can be no program on it. A segment of TCP in answer to a datagram is an error, and so are an answer of the
    other IP version and one that is never sent although no packet was dropped (which only functions show).
    """

    on: Annotated[HostName, Meta(description="The host that answers.", examples=["server"])]
    with_: Annotated[
        Annotated[list[RawAnswer], Meta(min_length=1, max_length=100)],
        Meta(
            description="The answers.",
            examples=[[{"tcp": {"flags": "SA"}}, {"tcp": {"flags": "R"}}], [{"icmp": {"code": "host-unreachable"}}]],
        ),
    ]


def check(answer: RawAnswer) -> int | None:
    """The IP version that ``answer`` is for, None for both. Raises Problem, with keys below it, when it is wrong."""
    given = [key for key in ("tcp", "udp", "icmp", "icmpv6") if getattr(answer, key) is not None]
    if not given:
        raise Problem("is no packet", remedy="add tcp:, udp:, icmp: or icmpv6:")
    if len(given) > 1:
        raise Problem(f"a packet cannot be {given[0]} and {given[1]} at once", given[1])
    for key in ("payload", "sport"):
        if given[0].startswith("icmp") and getattr(answer, key) is not None:
            raise Problem(f"an ICMP error has no {key}: it quotes the packet that it answers", key, about_key=True)
    version = {"icmp": 4, "icmpv6": 6}.get(given[0])
    if version is not None:
        _check_error(answer, given[0])
    if answer.src is not None:
        try:
            source = ip_address(answer.src)
        except ValueError:
            raise Problem(f"'{answer.src}' is not an address", "src") from None
        if version not in (None, source.version):
            raise Problem(f"{answer.src} is IPv{source.version}, but {given[0]} is IPv{version}", "src")
        version = source.version
    return version


def _check_error(answer: RawAnswer, key: str) -> None:
    said: AnswerICMP = getattr(answer, key)
    try:
        kind, _ = icmp.numbers(SeesICMP(type=said.type, code=said.code), key)
    except Problem as problem:
        raise problem.below(key) from None
    if not _is_error(kind or 0, key):
        remedy = "send what is no error by a step send:"
        raise Problem(f"{said.type} is not an error, so it answers no packet of a socket", key, "type", remedy=remedy)
    is_redirect = key == "icmp" and kind == _REDIRECT
    if is_redirect and said.gateway is None:
        raise Problem("a redirect needs a gateway", key, remedy="add gateway:, the router to be used instead")
    if said.gateway is not None and not is_redirect:
        raise Problem("only a redirect has a gateway", key, "gateway", remedy="leave it out, or add type: redirect")
    try:
        IPv4Address(said.gateway or "0.0.0.0")
    except ValueError:
        raise Problem(f"'{said.gateway}' is not an IPv4 address", key, "gateway") from None


def _is_error(kind: int, key: str) -> bool:
    """RFC 1122 section 3.2.2, RFC 4443 section 2.1; a redirect quotes the packet as well."""
    return kind in (3, 4, 5, 11, 12) if key == "icmp" else kind < 128


def answer_to(frame: bytes, answer: RawAnswer) -> bytes | None:
    """The frame that answers ``frame``, a packet of TCP or UDP, by ``answer``; None where it cannot.

    That is so for fragments but the first, for a segment of TCP where none came, and for the other IP version than an
    ICMP error or an address is for.
    """
    seen = fields(frame)
    version = seen.get("family")
    if "sport" not in seen or check(answer) not in (None, version) or (answer.tcp and seen["protocol"] != "tcp"):
        return None
    start = ETHERNET + VLAN_TAG * len(vlan_tags(frame))
    packet = frame[start : start + int(seen["length"])]
    source = ip_address(answer.src or str(seen["dst"]))
    destination = ip_address(str(seen["src"]))
    if answer.tcp is not None:
        protocol, body = _TCP, _segment(answer, answer.tcp, seen, _size(packet, seen))
    elif answer.udp is not None:
        load = _payload(answer)
        protocol, body = _UDP, struct.pack("!HHHH", *_ports(answer, seen), 8 + len(load), 0) + load
    else:
        protocol = _ICMP if version == 4 else _ICMPV6
        said = answer.icmp or answer.icmpv6 or AnswerICMP()
        body = _error(said, protocol) + packet[: QUOTED[int(seen["family"])]]
    body = _with_checksum(protocol, source, destination, body)
    return frame[6:12] + frame[:6] + frame[12:start] + _header(protocol, source, destination, answer.ttl, body) + body


def _size(packet: bytes, seen: Mapping[str, str | int]) -> int:
    """The sequence numbers that a TCP segment takes: of its data, SYN and FIN. IPv6 extensions are not counted."""
    flags = str(seen.get("flags", ""))
    at = _IPV6 if seen["family"] == 6 else (packet[0] & 15) * 4
    offset = (packet[at + 12] >> 4) * 4 if len(packet) > at + 12 else 0
    return len(packet) - at - offset + ("S" in flags) + ("F" in flags)


def _segment(answer: RawAnswer, said: AnswerTCP, seen: Mapping[str, str | int], size: int) -> bytes:
    bits = sum(1 << _FLAGS.index(flag) for flag in said.flags)
    options = b"" if said.mss is None else struct.pack("!BBH", 2, 4, said.mss)
    first = 0 if "R" in said.flags else FIRST_SEQUENCE  # RFC 9293 section 3.10.7.1
    seq = ((int(seen["ack"]) if "A" in str(seen["flags"]) else first) + said.seq) & 0xFFFFFFFF
    ack = (int(seen["seq"]) + size + said.ack) & 0xFFFFFFFF if "A" in said.flags else 0
    offset = (20 + len(options)) // 4 << 12
    head = struct.pack("!HHIIHHHH", *_ports(answer, seen), seq, ack, offset | bits, said.window, 0, 0)
    return head + options + _payload(answer)


def _ports(answer: RawAnswer, seen: Mapping[str, str | int]) -> tuple[int, int]:
    """Source and destination port of the answer."""
    return answer.sport if answer.sport is not None else int(seen["dport"]), int(seen["sport"])


def _payload(answer: RawAnswer) -> bytes:
    if isinstance(answer.payload, AnswerBytes):
        return bytes.fromhex(answer.payload.hex)
    return (answer.payload or "").encode()


def _error(said: AnswerICMP, protocol: int) -> bytes:
    """The eight bytes before the packet that is quoted, without the checksum."""
    unreachable = _TYPES[protocol]["destination-unreachable"]
    name = "icmp" if protocol == _ICMP else "icmpv6"
    kind, code = icmp.numbers(SeesICMP(type=said.type, code=said.code), name)
    assert kind is not None
    if code is None:
        code = _CODES[protocol]["port-unreachable"] if kind == unreachable else 0
    rest = bytearray(IPv4Address(said.gateway).packed if said.gateway else 4)
    if said.mtu is not None and (at := _MTU.get((protocol, kind))) is not None:
        rest[at:] = said.mtu.to_bytes(4 - at, "big")
    return struct.pack("!BBH", kind, code, 0) + bytes(rest)


def _with_checksum(protocol: int, source: Address, destination: Address, body: bytes) -> bytes:
    """``body`` with its checksum (RFC 9293 section 3.1, RFC 768, RFC 792, RFC 4443 section 2.3)."""
    pseudo = source.packed + destination.packed + struct.pack("!II", len(body), protocol)
    total = ~ones_sum((b"" if protocol == _ICMP else pseudo) + body) & 0xFFFF
    if protocol == _UDP and not total:
        total = 0xFFFF
    at = {_TCP: 16, _UDP: 6}.get(protocol, 2)
    return body[:at] + total.to_bytes(2, "big") + body[at + 2 :]


def _header(protocol: int, source: Address, destination: Address, ttl: int, body: bytes) -> bytes:
    if isinstance(source, IPv6Address):
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + source.packed + destination.packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, _IPV4 + len(body), 1, 0, ttl, protocol, 0)
    head += source.packed + destination.packed
    return head[:10] + (~ones_sum(head) & 0xFFFF).to_bytes(2, "big") + head[12:]
