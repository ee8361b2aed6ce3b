"""What a packet must be so that a match holds: values for its fields."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Final

from harness.generate import headers, names
from harness.generate.expressions import BITWISE, ORIGINAL, REQUESTS, contains, element, field, original, unpacked
from harness.generate.simulate import SimulatedRule, SimulatedRuleset
from harness.packets import icmp
from harness.topology.parts import EVERYBODY, LOOPBACK

Constraints = dict[str, Any]
"""Values that fields of a packet must have; see :data:`~harness.generate.expressions.Fields`.

Addresses may be networks."""

ADDRESSES: Final = ("saddr", "daddr")

MEMBERS_AT_MOST: Final = 6
OUTSIDERS: Final = {4: "198.51.100.77", 6: "2001:db8:77::77"}
"""Addresses of nobody in a lab."""
IMPOSSIBLE: Final[Constraints] = {"impossible": True}
_EXISTENCE: Final = ("exthdr ", "ip option ", "chunk ")
"""What fields begin with that a packet has or not; see :mod:`harness.generate.headers`."""
_BY_EXISTENCE: Final[Mapping[str, Constraints]] = {"tcp option maxseg": {"mss": 1460}}
"""The field that gives a packet what another field asks for."""
_NUMBERS: Final[Mapping[str, int]] = {
    "sport": 65535,
    "dport": 65535,
    "ttl": 255,
    "mss": 65535,
    "vlan": 4095,
    "code": 255,
    "frag": 0x3FFF,
    "dscp": 63,
    **headers.HIGHEST,
}
"""Fields that are numbers, and the highest of each."""


def merged(several: Iterable[Constraints]) -> Constraints | None:
    """All constraints at once; None where they contradict each other."""
    found: Constraints = {}
    for one in several:
        for name, value in one.items():
            known = found.setdefault(name, value)
            if known != value:
                if name not in ADDRESSES or (narrower := _narrower(str(known), str(value))) is None:
                    return None
                found[name] = narrower
    return None if "impossible" in found else found


def _narrower(one: str, other: str) -> str | None:
    """The one of two addresses or networks that lies in the other; None where neither does."""
    a, b = ip_network(one, strict=False), ip_network(other, strict=False)
    for inner, outer, text in ((a, b, one), (b, a, other)):
        if inner.version == outer.version and inner.subnet_of(outer):  # type: ignore[arg-type]  # of one version
            return text
    return None


def alternatives(
    ruleset: SimulatedRuleset, rule: SimulatedRule, match: Mapping[str, Any], at_most: int = MEMBERS_AT_MOST
) -> Iterator[Constraints]:
    """What would make a match hold: a few of its values, ``at_most`` so many elements of a set."""
    left, operator, right = match["left"], match["op"], match["right"]
    members = ruleset.members(rule, right)
    if operator == "!" and field(left) == "flags":
        yield from (implied(left) | {"flags": flags} for flags in _without(members))
        return
    if operator in ("!=", "!"):
        yield from _others(left, members)
        return
    if operator in ("<", ">", "<=", ">="):
        if (limit := names.number(right, field(left))) is not None:
            yield constraints(left, limit + {"<": -1, ">": 1}.get(operator, 0))
        return
    if not members:
        yield IMPOSSIBLE
    for member in itertools.chain(_requests(left, members), members[:at_most]):
        several = isinstance(member, list) and operator == "in"
        for one in member if several else [member]:
            yield constraints(left, one)


def _without(members: list[Any]) -> Iterator[tuple[str, ...]]:
    """Flags of a packet that has none of ``members``."""
    excluded = {str(one) for member in members for one in (member if isinstance(member, list) else [member])}
    yield from (flags for flags in ((), ("psh",), ("ack",), ("syn",), ("fin", "ack")) if not excluded & set(flags))


def _requests(left: Any, members: list[Any]) -> Iterator[str]:
    """The ICMP messages in ranges of ``members`` that begin a connection: most others are invalid without one."""
    protocol = implied(left).get("proto")
    for kind, what in map(unpacked, members) if field(left) == "type" else ():
        if kind == "range":
            low, high = (names.number(one, "type", protocol) for one in what)
            types = icmp.TYPES_V6 if protocol == "ipv6-icmp" else icmp.TYPES
            if low is not None and high is not None:
                yield from (one for one in REQUESTS if low <= types.get(one, -1) <= high)


def _fragments(left: Any) -> Iterator[Constraints]:
    """Fragments of which ``left``, that field or some bits of it, is not 0: a later one, and one with the highest bit
    that is looked at, which may be the flag of the first."""
    kind, what = unpacked(left)
    mask = what[1] if kind == "&" and isinstance(what, list) and isinstance(what[1], int) else 0x1FFF
    mask &= _NUMBERS["frag"]
    highest = 1 << mask.bit_length() >> 1
    for one in dict.fromkeys((100 if 100 & mask else mask & -mask, highest)):
        yield {"frag": one, "family": 4} if one else IMPOSSIBLE


def _others(left: Any, members: list[Any]) -> Iterator[Constraints]:
    """Anything else than ``members``; mostly any packet will do."""
    name = field(left)
    protocol = implied(left)
    if name == "frag" and members == [0]:
        yield from _fragments(left)
    elif name == "state":
        excluded = {str(one) for member in members for one in (member if isinstance(member, list) else [member])}
        yield from ({"state": one} for one in ("new", "established", "invalid") if one not in excluded)
    elif name == "flags":
        yield from (protocol | {"flags": flags} for flags in (("ack",), ("syn",), ("fin", "ack")))
    elif name in ("proto", *_NUMBERS) or _is_there_or_not(name):
        yield from _other_values(left, members)
    elif name in ("family", "mark", "type") or not name:
        yield protocol
    elif name == "saddr":
        members_family = 6 if any(":" in str(one) for one in members) else 4
        yield protocol
        yield {"saddr": OUTSIDERS[members_family], "family": members_family}
    elif name == "local":
        yield {"local": "local" not in [str(one) for one in members]}
    else:
        yield protocol


def _is_there_or_not(name: str) -> bool:
    """Whether a field is true or false."""
    return name in _BY_EXISTENCE or name.startswith(_EXISTENCE)


def _other_values(left: Any, members: list[Any]) -> Iterator[Constraints]:
    """Other protocols, or numbers, than ``members``; or that there is what is said to be missing."""
    name = field(left)
    if name == "proto":
        yield from ({"proto": one} for one in ("udp", "tcp", "icmp", "ipv6-icmp", "sctp", "gre"))
    elif name in _NUMBERS:
        yield implied(left)
        yield from _numbers(left, members)
    else:
        yield from (constraints(left, one) for one in (True, False) if one not in members)


def _numbers(left: Any, members: list[Any]) -> Iterator[Constraints]:
    """Values of a numeric field that are none of ``members``."""
    name = field(left)
    edges = [names.number(edge, name) for one in members for edge in _edges(unpacked(element(one))[1])]
    near = [edge + step for edge in edges if edge is not None for step in (-1, 1)]
    tried = (one for one in dict.fromkeys([*near, 1, 0, _NUMBERS[name]]) if 0 <= one <= _NUMBERS[name])
    others = (one for one in tried if not any(contains(left, one, member, {}) for member in members))
    yield from (constraints(left, one) for one in itertools.islice(others, 2))


def _edges(what: Any) -> list[Any]:
    return what if isinstance(what, list) else [what]


def constraints(left: Any, member: Any) -> Constraints:
    """What a packet must have so that the expression ``left`` is ``member``."""
    found = _constraints(left, member)
    if name := original(left):  # what is asked for besides is of the packet as it comes here
        return {f"{ORIGINAL}{name}" if key == name else key: value for key, value in found.items()}
    return found


def as_sent(asked: Constraints) -> Constraints:
    """``asked``, of a packet that a rule may translate on its way: of the fields that a connection remembers, those
    that it is sent with."""
    found = {key: value for key, value in asked.items() if not key.startswith(ORIGINAL)}
    return found | {key.removeprefix(ORIGINAL): value for key, value in asked.items() if key.startswith(ORIGINAL)}


def _constraints(left: Any, member: Any) -> Constraints:
    member = element(member)
    kind, what = unpacked(left)
    if kind == "concat":
        return _of_concat(what, member)
    found, name = implied(left), field(left)
    value: Any = _one_of(member)
    if value is None or isinstance(value, Mapping) or (isinstance(value, list) and name != "flags"):
        return found
    if _is_there_or_not(name):
        return found | {**_BY_EXISTENCE.get(name, {}), name: True} if value else found | {name: False}
    if kind in ("|", "^", "<<", ">>") and name != "flags":
        return found  # a packet whose field becomes that value is not looked for
    if kind == "payload" and (place := headers.CARRIED.get((what.get("protocol"), what.get("field")))):
        return found | headers.carried(place, names.number(names.IGMP.get(value, value)))
    if name in _ASKED:
        asked = _ASKED[name](name, value, found)
        return found if asked is None else IMPOSSIBLE if (both := merged([found, asked])) is None else both
    if kind == "payload" and "base" in what:
        return found | _raw(what, value)
    number = names.number(value, name, found.get("proto")) if name in _NUMBERS else None
    if number is None:
        return found
    return found | {name: number} if 0 <= number <= _NUMBERS[name] else IMPOSSIBLE


def _of_concat(parts: list[Any], member: Any) -> Constraints:
    """What a packet must have so that the concatenation of ``parts`` is ``member``."""
    values = member.get("concat", []) if isinstance(member, Mapping) else []
    both = merged(constraints(one, part) for one, part in zip(parts, values, strict=False))
    return IMPOSSIBLE if both is None else both


def _one_of(member: Any) -> Any:
    """One value of what may be a range or a network."""
    kind, what = unpacked(member)
    if kind == "range":
        return what[0]
    if kind == "prefix":
        try:
            network = ip_network(f"{what['addr']}/{what['len']}", strict=False)
        except ValueError:
            return None
        return str(network if network.num_addresses > 1 else network[0])
    return member


def implied(left: Any) -> Constraints:
    """The protocol that an expression asks for by itself."""
    kind, what = unpacked(element(left))
    if kind == "concat":
        return merged(map(implied, what)) or IMPOSSIBLE
    if kind in BITWISE and isinstance(what, list):
        return implied(what[0])
    if kind == "tcp option":
        return {"proto": "tcp"}
    if kind == "sctp chunk":
        return {"proto": "sctp"}
    if kind in ("exthdr", "ip option"):
        return {"family": 6 if kind == "exthdr" else 4}
    if kind != "payload" or not isinstance(what, Mapping):
        return {}
    protocol = str(what.get("protocol", ""))
    if protocol in names.WITH_PORTS:
        return {"proto": protocol}
    return dict(_OF_PROTOCOL.get(protocol, {}))


_OF_PROTOCOL: Final[Mapping[str, Constraints]] = {
    "ip": {"family": 4},
    "ip6": {"family": 6},
    "icmp": {"proto": "icmp", "family": 4},
    "icmpv6": {"proto": "ipv6-icmp", "family": 6},
    **{protocol: {"proto": protocol} for protocol, _ in headers.CARRIED},
    "arp": {"proto": "arp", "ether_type": names.ETHER_TYPES["arp"]},
}


# --- field by field: None where the value is of no use ------------------------------------------


def _address(name: str, value: Any, _: Constraints) -> Constraints | None:
    if not isinstance(value, str):
        return None
    try:
        version = ip_network(value, strict=False).version
    except ValueError:
        return None
    return {name: value, "family": version}


def _family(name: str, value: Any, _: Constraints) -> Constraints | None:
    number = names.FAMILIES.get(value, value)
    return {name: number} if number in (4, 6) else None


def _protocol(name: str, value: Any, _: Constraints) -> Constraints:
    protocol = names.protocol(value)
    family = {"icmp": 4, "ipv6-icmp": 6}.get(str(protocol))
    return {name: protocol} | ({"family": family} if family else {})


def _tcp_flags(name: str, value: Any, _: Constraints) -> Constraints | None:
    wanted = names.flags(value)
    if wanted is None:
        return None
    return {name: tuple(flag for flag, bit in names.FLAGS.items() if wanted & bit)}


def _icmp_type(name: str, value: Any, found: Constraints) -> Constraints | None:
    types = icmp.TYPES_V6 if found.get("proto") == "ipv6-icmp" else icmp.TYPES
    number = names.number(value, "type", found.get("proto"))
    if number is None or not 0 <= number <= 255:
        return None
    return {name: next((word for word, one in types.items() if one == number), number)}


def _ether_type(name: str, value: Any, _: Constraints) -> Constraints:
    number = names.ETHER_TYPES.get(value, value)
    by_number: Mapping[int, Constraints] = {
        0x0800: {"family": 4},
        0x86DD: {"family": 6},
        0x0806: {"proto": "arp", name: number},
    }
    return dict(by_number.get(number, {name: number}))


def _local(name: str, value: Any, found: Constraints) -> Constraints:
    """Of ``fib daddr type``."""
    if value == "broadcast":
        return {"daddr": str(EVERYBODY), "family": 4}
    if value == "multicast":
        return {"daddr": "ff02::1", "family": 6} if found.get("family") == 6 else {"group": True}
    return {name: value == "local"}


def _packet_type(_: str, value: Any, found: Constraints) -> Constraints | None:
    """Of ``meta pkttype``."""
    return _local("local", value, found) if value in ("broadcast", "multicast") else None


def _origin(_: str, value: Any, found: Constraints) -> Constraints | None:
    """Of ``fib saddr type``."""
    if value == "broadcast":
        return {"saddr": str(EVERYBODY), "family": 4}
    if value == "multicast":
        return {"saddr": "ff02::1", "family": 6} if found.get("family") == 6 else {"saddr": "224.0.0.1", "family": 4}
    return None


def _interface(name: str, value: Any, _: Constraints) -> Constraints | None:
    return {name: called(value)} if isinstance(value, str) else None


def _text(name: str, value: Any, _: Constraints) -> Constraints | None:
    return {name: value} if isinstance(value, str) else None


def _dscp(name: str, value: Any, _: Constraints) -> Constraints | None:
    number = names.number(value, "dscp")
    return {name: number} if number is not None and 0 <= number <= 63 else None


def _version(_: str, value: Any, found: Constraints) -> Constraints:
    """Of ``ip version``, the first field of the header."""
    return {} if value == found.get("family") else IMPOSSIBLE


def _interface_type(name: str, value: Any, _: Constraints) -> Constraints | None:
    """Of ``meta iiftype``: links of a lab are Ethernet."""
    return {name.removesuffix("type"): LOOPBACK} if value == "loopback" else None


def _interface_group(_: str, value: Any, __: Constraints) -> Constraints:
    """Of ``meta iifgroup``: interfaces of a lab are in none but the default group."""
    return {} if value in (0, "default") else IMPOSSIBLE


def _header_length(_: str, value: Any, __: Constraints) -> Constraints:
    """Of ``ip hdrlength``: options make the header longer."""
    asked = headers.options_of(value) if isinstance(value, int) else None
    return IMPOSSIBLE if asked is None else asked


def _data_offset(_: str, value: Any, __: Constraints) -> Constraints:
    """Of ``tcp doff``: with the option for the maximum segment size it is 6."""
    return {5: {}, 6: {"mss": 1460}}.get(value, IMPOSSIBLE)


def _status(_: str, value: Any, __: Constraints) -> Constraints | None:
    """Of ``ct status``: what is seen of an answer, or of the end of a TCP handshake."""
    if value == "assured":
        return {"state": "established", "assured": True, "proto": "tcp"}
    return {"state": "established"} if value in ("confirmed", "seen-reply") else None


_ASKED: Final[Mapping[str, Callable[[str, Any, Constraints], Constraints | None]]] = {
    **dict.fromkeys(("saddr", "daddr"), _address),
    **dict.fromkeys(("iif", "oif"), _interface),
    **dict.fromkeys(("state", "ether_saddr", "ether_daddr"), _text),
    "family": _family,
    "proto": _protocol,
    "flags": _tcp_flags,
    "type": _icmp_type,
    "ether_type": _ether_type,
    "local": _local,
    "origin": _origin,
    "pkttype": _packet_type,
    "path": lambda name, value, _: {name: int(value)} if str(value) in ("0", "False", "1", "True") else None,
    "dscp": _dscp,
    "version": _version,
    "iiftype": _interface_type,
    "oiftype": _interface_type,
    "iifgroup": _interface_group,
    "oifgroup": _interface_group,
    "hdrlength": _header_length,
    "doff": _data_offset,
    "status": _status,
    "op": lambda name, value, _: {name: value} if value in names.ARP_OPERATIONS else None,
}


def called(pattern: str) -> str:
    """An interface's name that a pattern such as ``wlan*`` fits; itself where it is none."""
    if pattern.endswith("\\*"):
        return f"{pattern[:-2]}*"
    return f"{pattern[:-1]}0" if pattern.endswith("*") else pattern


def _raw(payload: Mapping[str, Any], value: Any) -> Constraints:
    """Bytes behind a UDP header; ``offset`` and ``len`` are in bits from its beginning."""
    begin, bits = payload.get("offset", 0) - 64, payload.get("len", 0)
    number = names.number(value)
    if payload.get("base") != "th" or begin < 0 or begin % 8 or bits % 8 or number is None or number >> bits:
        return {}
    return {"payload": bytes(begin // 8).hex() + number.to_bytes(bits // 8, "big").hex()}
