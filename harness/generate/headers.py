"""Fields of headers, options and lengths that packets are made with, beside addresses, ports and types.

Each has a name of its own among a packet's :data:`~harness.generate.expressions.Fields`, since nft calls several of
them alike: ``ip id``, ``icmp id``. What there may be or not, such as an option, is a field that is true or false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class HeaderField(NamedTuple):
    """A number in a header."""

    name: str
    highest: int
    usual: int | None = None
    """Of a packet that says nothing of it, see :mod:`harness.packets.spec`; None where it depends on the packet."""


_WORD: Final = 0xFFFF
_LONG: Final = 0xFFFFFFFF
MTU: Final = 1500
"""Bytes of the longest packet that a lab's links carry."""

FIELDS: Final[Mapping[tuple[str, str], HeaderField]] = {
    ("ip", "id"): HeaderField("ip_id", _WORD, 1),
    ("ip", "ecn"): HeaderField("ecn", 3, 0),
    ("ip6", "ecn"): HeaderField("ecn", 3, 0),
    ("ip6", "flowlabel"): HeaderField("flow", 0xFFFFF, 0),
    ("ip", "hdrlength"): HeaderField("hdrlength", 15),
    ("ip", "length"): HeaderField("length", MTU),
    ("ip6", "length"): HeaderField("length6", MTU - 40),
    ("udp", "length"): HeaderField("udp_length", MTU - 20),
    ("tcp", "sequence"): HeaderField("seq", _LONG, 1000),
    ("tcp", "ackseq"): HeaderField("ack", _LONG, 0),
    ("tcp", "window"): HeaderField("window", _WORD, 64240),
    ("tcp", "doff"): HeaderField("doff", 15),
    ("tcp", "urgptr"): HeaderField("urgptr", 0, 0),
    ("tcp", "checksum"): HeaderField("checksum", _WORD),
    ("udp", "checksum"): HeaderField("checksum", _WORD),
    ("icmp", "id"): HeaderField("echo_id", _WORD, 1),
    ("icmp", "sequence"): HeaderField("echo_seq", _WORD, 1),
    ("icmpv6", "id"): HeaderField("echo_id", _WORD, 1),
    ("icmpv6", "sequence"): HeaderField("echo_seq", _WORD, 1),
    ("sctp", "vtag"): HeaderField("tag", _LONG, 0),
}
"""By protocol and field, as nft's JSON has them."""
HIGHEST: Final[Mapping[str, int]] = {one.name: one.highest for one in FIELDS.values()} | {"rt_type": 255}
LENGTHS: Final = ("length", "length6", "udp_length")
"""Fields that a payload gives the value asked for."""

CARRIED: Final[Mapping[tuple[str, str], tuple[int, int]]] = {
    ("esp", "spi"): (0, 4),
    ("esp", "sequence"): (4, 4),
    ("ah", "spi"): (4, 4),
    ("ah", "sequence"): (8, 4),
    ("comp", "cpi"): (2, 2),
    ("igmp", "type"): (0, 1),
    ("igmp", "group"): (4, 4),
}
"""Fields of headers that packets get as payload: where in it, and how long, in bytes."""
CARRIED_BYTES: Final = 16
_OPTION_WORDS: Final[Mapping[str, int]] = {"ra": 1, "rr": 2, "lsrr": 2, "ssrr": 2}
"""Words of 4 bytes that options of IPv4 take, with one address in a route."""
OPTIONS: Final = tuple(_OPTION_WORDS)
EXTENSIONS: Final = ("hbh", "dst", "rt", "frag")
CHUNKS: Final = ("init", "data", "abort", "shutdown", "heartbeat", "cookie-ack")
_EXISTING: Final[Mapping[str, tuple[str, ...]]] = {"exthdr": EXTENSIONS, "ip option": OPTIONS}
_OF_LENGTH: Final[Mapping[int, tuple[str, ...]]] = {5: (), 6: ("ra",), 7: ("rr",), 8: ("ra", "rr")}
"""Options with which the header of IPv4 has so many words."""
_TRANSPORT: Final[Mapping[str, int]] = {"tcp": 20, "udp": 8, "icmp": 8, "ipv6-icmp": 8, "sctp": 32}
"""Bytes of the headers above IP; SCTP's with the chunk INIT."""


def existing(kind: str, what: Mapping[str, Any]) -> str:
    """The field for whether a packet has an extension header or option; "" for one that packets are not made with."""
    name = str(what.get("name", ""))
    if kind == "exthdr" and name == "rt" and what.get("field") == "type":
        return "rt_type"
    return f"{kind} {name}" if "field" not in what and name in _EXISTING.get(kind, ()) else ""


def held(fields: Mapping[str, Any], kind: str) -> list[str]:
    """The extension headers (``exthdr``) or options (``ip option``) that a packet has, in their order."""
    return [name for name in _EXISTING[kind] if fields.get(f"{kind} {name}")]


def options_of(words: int) -> dict[str, Any] | None:
    """What a packet with a header of so many words has; None where none is made."""
    wanted = _OF_LENGTH.get(words)
    return None if wanted is None else {f"ip option {name}": name in wanted for name in OPTIONS} | {"family": 4}


def measured(fields: Mapping[str, Any], name: str) -> int | None:
    """A length of the packet, in the unit of its header; None where it has none of this name."""
    is_four, proto = fields.get("family") == 4, fields.get("proto")
    words = 5 + sum(_OPTION_WORDS[one] for one in held(fields, "ip option"))
    doff = 5 + ("mss" in fields)
    extensions = held(fields, "exthdr") or (["rt"] if "rt_type" in fields else [])
    below = 4 * words if is_four else 40 + 8 * len(extensions)
    above = _TRANSPORT.get(str(proto), 0) + 4 * (proto == "tcp" and "mss" in fields)
    payload = len(str(fields.get("payload", ""))) // 2 + int(fields.get("size", 0))
    found: Mapping[str, int | None] = {
        "hdrlength": words if is_four else None,
        "doff": doff if proto == "tcp" else None,
        "length": below + above + payload,
        "length6": None if is_four else below - 40 + above + payload,
        "udp_length": 8 + payload if proto == "udp" else None,
    }
    return found[name]


def carried(place: tuple[int, int], value: int | None) -> dict[str, Any]:
    """A payload that begins with a header that has ``value`` at ``place``, see :data:`CARRIED`."""
    offset, length = place
    if value is None or value >> (8 * length):
        return {}
    return {"payload": (bytes(offset) + value.to_bytes(length, "big")).ljust(CARRIED_BYTES, b"\0").hex()}


def filled(fields: dict[str, Any]) -> dict[str, Any] | None:
    """``fields`` with a payload of the size that a length asks for; None where the headers alone are longer."""
    for name in LENGTHS:
        if name not in fields:
            continue
        least = measured({key: value for key, value in fields.items() if key != "size"}, name)
        size = -1 if least is None else fields[name] - least
        if size < 0 or fields.get("size", size) != size or (size and str(fields["proto"]) not in _TRANSPORT):
            return None
        fields = fields | {"size": size}
    return fields
