"""Expressions of nft about a packet: the field that one reads, its value, and whether a set has that.

See libnftables-json(5) for their form. What is not understood is :data:`UNKNOWN`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Final

from harness.generate import headers, names
from harness.topology.parts import EVERYBODY, LOOPBACK

Fields = dict[str, Any]
"""A packet as expressions see it: ``iif oif family proto saddr daddr sport dport flags type code
ether_saddr ether_daddr ether_type vlan ttl dscp state status mark local mss``, and those of
:mod:`harness.generate.headers`."""

UNKNOWN: Final = object()

_META: Final = {
    "iifname": "iif",
    "oifname": "oif",
    "iif": "iif",
    "oif": "oif",
    "l4proto": "proto",
    "nfproto": "family",
    "ibrname": "ibr",
    "obrname": "obr",
    "sdifname": "sdif",
    "protocol": "ether_type",
}
_PAYLOAD: Final = {
    "frag-off": "frag",
    "protocol": "proto",
    "nexthdr": "proto",
    "hoplimit": "ttl",
    "operation": "op",
    "saddr ip": "saddr",
    "daddr ip": "daddr",
}
_ORIGINAL: Final = {
    "ip saddr": "saddr",
    "ip daddr": "daddr",
    "ip6 saddr": "saddr",
    "ip6 daddr": "daddr",
    "proto-src": "sport",
    "proto-dst": "dport",
}
"""What a connection remembers of its first packet."""
ORIGINAL: Final = "original "
"""What such fields begin with in the constraints for a packet, and in a packet that was translated."""
_TRANSPORTS: Final = names.WITH_PORTS | {"th"}
BITWISE: Final = ("&", "|", "^", "<<", ">>")
"""Operators of expressions."""


def unpacked(expression: Any) -> tuple[str, Any]:
    """The kind of an expression and what it consists of; "" for a constant."""
    if isinstance(expression, dict) and len(expression) == 1:
        ((kind, what),) = expression.items()
        return str(kind), what
    return "", expression


def field(left: Any) -> str:
    """The field of a packet that an expression reads, as :data:`Fields` calls it; "" for none."""
    kind, what = unpacked(left)
    if kind in BITWISE and isinstance(what, list):
        return field(what[0])
    if not isinstance(what, Mapping):
        return ""
    if kind == "meta":
        return str(_META.get(what.get("key", ""), what.get("key", "")))
    if kind == "payload":
        return _payload_field(str(what.get("protocol", "")), str(what.get("field", "")))
    if kind == "ct":
        key = str(what.get("key", ""))
        return _ORIGINAL.get(key, key) if what.get("dir") == "original" else key
    if kind == "fib":
        if what.get("result") != "type":
            return "path" if _is_reverse_path(what) else ""
        return "origin" if "saddr" in what.get("flags", ()) else "local"
    if kind == "sctp chunk":
        return f"chunk {what.get('name')}" if "field" not in what and what.get("name") in headers.CHUNKS else ""
    if kind == "tcp option" and what.get("name") == "maxseg":
        return "mss" if "field" in what else "tcp option maxseg"
    return headers.existing(kind, what)


def original(left: Any) -> str:
    """The field of a connection's first packet, as it was sent, that ``left`` reads; "" for none."""
    kind, what = unpacked(left)
    if kind in BITWISE and isinstance(what, list):
        return original(what[0])
    if kind != "ct" or not isinstance(what, Mapping) or what.get("dir") != "original":
        return ""
    return _ORIGINAL.get(str(what.get("key", "")), "")


def _payload_field(protocol: str, name: str) -> str:
    if (own := headers.FIELDS.get((protocol, name))) is not None:
        return own.name
    if protocol == "ether":
        return f"ether_{name}"
    if protocol == "vlan":
        return {"id": "vlan", "type": "ether_type"}.get(name, f"vlan_{name}")
    return _PAYLOAD.get(name, name)


def value(expression: Any, fields: Fields) -> Any:
    """The value of an expression; None where the packet has no such field, UNKNOWN where it is not known."""
    kind, what = unpacked(expression)
    if not kind:
        return what
    if kind == "concat":
        values = [value(one, fields) for one in what]
        if None in values:
            return None
        return UNKNOWN if UNKNOWN in values else tuple(values)
    if kind in BITWISE and isinstance(what, list) and len(what) == 2:
        return _combined(kind, *(value(one, fields) for one in what), name=field(what[0]))
    return _VALUES[kind](what, fields) if kind in _VALUES and isinstance(what, Mapping) else UNKNOWN


def _combined(operator: str, a: Any, b: Any, *, name: str) -> Any:
    """The value of a bitwise operation."""
    if a is None:
        return None
    if a is UNKNOWN or b is UNKNOWN:
        return UNKNOWN
    x, y = (names.flags(one) if name == "flags" else names.number(one, name) for one in (a, b))
    if x is None or y is None:
        return UNKNOWN
    if operator in ("<<", ">>"):
        return (x << min(y, 64)) if operator == "<<" else x >> min(y, 64)
    return {"&": x & y, "|": x | y, "^": x ^ y}[operator]


def _meta(what: Mapping[str, Any], fields: Fields) -> Any:
    key = what.get("key", "")
    name = _META.get(key, key)
    if name == "pkttype":
        return _packet_type(fields.get("daddr"))
    if name in ("mark", "priority"):
        return fields.get(name, 0)
    if name in ("iiftype", "oiftype"):
        interface = fields.get(name.removesuffix("type"))
        return None if interface is None else "loopback" if interface == LOOPBACK else "ether"
    if name == "length":
        return fields.get("length", headers.measured(fields, "length"))
    return fields.get(name) if key in _META else UNKNOWN


def _packet_type(destination: Any) -> Any:
    """``meta pkttype`` of a packet that another host has sent: that of its Ethernet destination."""
    try:
        address = ip_address(str(destination))
    except ValueError:
        return UNKNOWN
    return "multicast" if address.is_multicast else "broadcast" if address == EVERYBODY else "host"


def _payload(what: Mapping[str, Any], fields: Fields) -> Any:
    protocol, name = what.get("protocol"), str(what.get("field", ""))
    own = _payload_field(str(protocol), name)
    if (known := headers.FIELDS.get((str(protocol), name))) is not None and own not in fields:
        if implied_proto(str(protocol), fields):
            return known.usual if known.usual is not None else _computed(fields, own)
        return None
    if protocol in ("ip", "ip6"):
        if fields.get("family") != names.FAMILIES[protocol] or fields.get("proto") == "arp":
            return None
        return fields.get(own, {"ttl": 64, "frag": 0, "dscp": 0}.get(own, UNKNOWN))
    if protocol in _TRANSPORTS:
        if protocol != "th" and fields.get("proto") != protocol:
            return None
        if own == "flags":
            return frozenset(fields.get("flags", ())) if protocol == "tcp" else None
        return fields.get(own, None if own in ("sport", "dport") else UNKNOWN)
    if protocol in ("icmp", "icmpv6"):
        return fields.get(own, UNKNOWN) if fields.get("proto") == names.protocol(protocol) else None
    if protocol in ("ether", "vlan"):
        return fields.get(own) if own in ("vlan", "ether_type", "ether_saddr", "ether_daddr") else UNKNOWN
    if protocol == "arp":
        return fields.get(own, UNKNOWN) if fields.get("proto") == "arp" else None
    return UNKNOWN


def implied_proto(protocol: str, fields: Fields) -> bool:
    """Whether a packet has the header that nft calls ``protocol``."""
    if protocol in ("ip", "ip6"):
        return bool(fields.get("family") == names.FAMILIES[protocol] and fields.get("proto") != "arp")
    return bool(fields.get("proto") == names.protocol(protocol))


def _computed(fields: Fields, name: str) -> Any:
    return UNKNOWN if name == "checksum" else headers.measured(fields, name)


REQUESTS: Final = ("echo-request", "timestamp-request", "info-request", "address-mask-request")
"""ICMP messages that begin a connection: valid_new[] of nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c."""
_UNTRACKED: Final = {
    *("mld-listener-query", "mld-listener-report", "mld-listener-done", "nd-router-solicit", "nd-router-advert"),
    *("mld-listener-reduction", "nd-neighbor-solicit", "nd-neighbor-advert", "mld2-listener-report"),
}
"""ICMPv6 messages that are not tracked: noct_valid_new[] of nf_conntrack_proto_icmpv6.c."""


def state(fields: Fields) -> str:
    """The state that conntrack gives a packet of which nothing else is known than its ``fields``."""
    shows = "flags" in fields and not fields.get("reply")
    if "state" in fields and not (shows and fields["state"] in ("new", "invalid")):
        return str(fields["state"])
    if fields.get("proto") in ("icmp", "ipv6-icmp") and "type" in fields:
        kind = fields["type"]
        return "new" if kind in REQUESTS else "untracked" if kind in _UNTRACKED else "invalid"
    if shows and fields.get("proto") == "tcp":
        return "new" if _begins(frozenset(fields["flags"])) else "invalid"
    return "new"


def _begins(flags: frozenset[str]) -> bool:
    """Whether conntrack takes a TCP packet of no known connection for the first of one: tcp_valid_flags[] and the
    column of TCP_CONNTRACK_NONE in tcp_conntracks[] of nf_conntrack_proto_tcp.c, with nf_conntrack_tcp_loose."""
    return flags & {"syn", "ack", "fin", "rst"} in ({"syn"}, {"ack"})


def _conntrack(what: Mapping[str, Any], fields: Fields) -> Any:
    key = what.get("key")
    if name := original({"ct": what}):
        return fields.get(f"{ORIGINAL}{name}", fields.get(name, UNKNOWN))
    if key == "state":
        return frozenset({state(fields)})
    if key == "status":
        seen = frozenset({"confirmed", "seen-reply"}) if fields.get("reply") or fields.get("assured") else frozenset()
        seen |= {"assured"} if fields.get("assured") else frozenset()
        return frozenset(fields.get("status", ())) | seen
    if key == "mark":
        return fields.get("ct_mark", 0)
    if key == "direction":
        return "reply" if fields.get("reply") else "original"
    return UNKNOWN


def _is_reverse_path(what: Mapping[str, Any]) -> bool:
    """Whether a lookup asks for the interface by which the sender is reached, if that is where the packet came in."""
    return what.get("result") in ("oif", "oifname") and {"saddr", "iif"} <= set(what.get("flags", ()))


def _fib(what: Mapping[str, Any], fields: Fields) -> Any:
    if _is_reverse_path(what):
        return fields.get("path", UNKNOWN)
    flags = what.get("flags", ())
    flags = [flags] if isinstance(flags, str) else flags
    if what.get("result") != "type" or not {"saddr", "daddr"} & set(flags):
        return UNKNOWN
    name = "daddr" if "daddr" in flags else "saddr"
    try:
        address = ip_address(str(fields.get(name)))
    except ValueError:
        return UNKNOWN
    if address.is_multicast:
        return "multicast"
    if address == EVERYBODY:
        return "broadcast"
    if name == "saddr":
        return UNKNOWN
    return "local" if fields.get("local") else "unicast"


def _option(what: Mapping[str, Any], fields: Fields) -> Any:
    if what.get("name") != "maxseg":
        return UNKNOWN
    return fields.get("mss") if "field" in what else "mss" in fields


def _existing(kind: str) -> Callable[[Mapping[str, Any], Fields], Any]:
    """Whether a packet has an extension header or an option; of a routing header, its type."""

    def found(what: Mapping[str, Any], fields: Fields) -> Any:
        name = headers.existing(kind, what)
        if name == "rt_type":
            return fields.get(name, 0 if fields.get("exthdr rt") else None)
        return bool(fields.get(name)) if name else UNKNOWN

    return found


def _chunk(what: Mapping[str, Any], fields: Fields) -> Any:
    if fields.get("proto") != "sctp" or "field" in what:
        return UNKNOWN if "field" in what else None
    return bool(fields.get(f"chunk {what.get('name')}", what.get("name") == "init" and not _chunk_of(fields)))


def _chunk_of(fields: Fields) -> str:
    """The chunk that a packet is asked to have; "" for none."""
    return next((name for name in headers.CHUNKS if fields.get(f"chunk {name}")), "")


def _numgen(what: Mapping[str, Any], _: Fields) -> Any:
    return what.get("offset", 0) if what.get("mod") == 1 else UNKNOWN


_VALUES: Final = {
    "meta": _meta,
    "payload": _payload,
    "ct": _conntrack,
    "fib": _fib,
    "tcp option": _option,
    "exthdr": _existing("exthdr"),
    "ip option": _existing("ip option"),
    "sctp chunk": _chunk,
    "numgen": _numgen,
}


# --- members ------------------------------------------------------------------------------------


def element(member: Any) -> Any:
    """An element of a set without its timeout, counter or comment."""
    kind, what = unpacked(member)
    return what["val"] if kind == "elem" and isinstance(what, Mapping) and "val" in what else member


def parts(left: Any) -> list[Any]:
    """The expressions of a concatenation; of another one, itself."""
    kind, what = unpacked(left)
    return list(what) if kind == "concat" else [left]


def contains(left: Any, found: Any, member: Any, fields: Fields) -> bool:
    """Whether ``found``, the value of ``left``, is ``member`` of a set, or in it."""
    member = element(member)
    kind, what = unpacked(member)
    if kind == "concat":
        inside = parts(left)
        values = found if isinstance(found, tuple) else (found,)
        return len(inside) == len(what) == len(values) and all(
            contains(one, value, part, fields) for one, value, part in zip(inside, values, what, strict=True)
        )
    name = field(left)
    if kind == "range":
        low, high, own = (names.number(one, name, fields.get("proto")) for one in (*what, found))
        return low is not None and high is not None and own is not None and low <= own <= high
    if kind == "prefix":
        return _in_prefix(found, what)
    if name == "flags":
        return names.flags(found) == names.flags(member)
    if isinstance(member, str) and member.endswith("*") and isinstance(found, str):
        return found == f"{member[:-2]}*" if member.endswith("\\*") else bool(found.startswith(member[:-1]))
    return _same(name, found, member, fields)


def _in_prefix(found: Any, prefix: Mapping[str, Any]) -> bool:
    return _in_network(str(found), str(prefix.get("addr")), str(prefix.get("len")))


@functools.lru_cache(65536)
def _in_network(address: str, network: str, length: str) -> bool:
    try:
        return ip_address(address) in ip_network(f"{network}/{length}", False)
    except ValueError:
        return False


def _same(name: str, found: Any, member: Any, fields: Fields) -> bool:
    """Whether two values are the same, of which one may be a number and the other its name."""
    if name == "path":
        return str(found) == str(int(member) if isinstance(member, bool) else member)
    if name == "family":
        return bool(names.FAMILIES.get(found, found) == names.FAMILIES.get(member, member))
    if str(found) == str(member):
        return True
    one, other = (names.number(value, name, fields.get("proto")) for value in (found, member))
    return one is not None and one == other


def choices(found: Any, members: Sequence[Any]) -> bool:
    """Whether one of the flags ``found`` (of a connection's state or status) is among ``members``."""
    wanted = set(map(str, _listed(members)))
    return bool(wanted & {str(one) for one in (found if isinstance(found, frozenset) else [found])})


def _listed(members: Sequence[Any]) -> Iterator[Any]:
    for one in members:
        yield from (one if isinstance(one, list) else [element(one)])
