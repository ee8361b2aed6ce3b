"""The values at which a ruleset may begin to decide otherwise: those that its rules look at, and their neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from harness.generate import names
from harness.generate.constraints import constraints, implied
from harness.generate.expressions import element, field, parts, unpacked
from harness.generate.simulate import SimulatedRule, SimulatedRuleset
from harness.packets import icmp

MEMBERS_AT_MOST: Final = 256
"""Elements of one set; of larger ones the first and the last."""
HIGHEST: Final[Mapping[str, int]] = {
    "sport": 65535,
    "dport": 65535,
    "ttl": 255,
    "dscp": 63,
    "code": 255,
    "vlan": 4094,
    "mss": 65535,
}
"""Fields that are numbers, and the highest of each that a packet is made with."""
ADDRESSES: Final = ("saddr", "daddr")
TCP_FLAGS: Final = (("syn",), ("ack",), ("syn", "ack"), ("rst",), ("fin", "ack"), (), ("fin", "psh", "urg"))
PROTOCOLS: Final = ("tcp", "udp", "icmp", "ipv6-icmp", "sctp")
UNKNOWN_FIELDS: Final = frozenset(
    {"state", "mark", "status", "ct_mark", "iif", "oif", "local", "family", "length", "ibr", "obr", "ether_type"}
)
"""Fields that packets get by their ends, their headers or those before them."""


class Boundaries:
    """The values of one or more rulesets, by field."""

    def __init__(self, *rulesets: SimulatedRuleset) -> None:
        self.values: dict[str, list[Any]] = {}
        """For packets, by the names of :data:`~harness.generate.expressions.Fields`, each once."""
        self._known: dict[str, set[Any]] = {}
        self.beyond: set[str] = set()
        """Expressions that no packet is made for, as nft's JSON has them."""
        for ruleset in rulesets:
            for chain in ruleset.chains.values():
                for rule in chain.rules:
                    self._read(ruleset, rule)

    @classmethod
    def of_rule(cls, ruleset: SimulatedRuleset, rule: SimulatedRule) -> Boundaries:
        """Those of one rule."""
        found = cls()
        found._read(ruleset, rule)
        return found

    def _read(self, ruleset: SimulatedRuleset, rule: SimulatedRule) -> None:
        for left, member in _looked_at(ruleset, rule):
            self._add(left, element(member))

    def _add(self, left: Any, member: Any) -> None:
        kind, what = unpacked(member)
        inside = parts(left)
        if kind == "concat" or len(inside) > 1:
            for one, part in zip(inside, what if kind == "concat" else [], strict=False):
                self._add(one, element(part))
            return
        name = field(left)
        if not name or (name not in UNKNOWN_FIELDS and name not in _KNOWN):
            if constraints(left, member) == implied(left):
                self.beyond.add(_words(left))
            return
        known = self._known.setdefault(name, set())
        fresh = [one for one in dict.fromkeys(_around(name, member)) if one not in known]
        known.update(fresh)
        self.values.setdefault(name, []).extend(fresh)


def _looked_at(ruleset: SimulatedRuleset, rule: SimulatedRule) -> Iterator[tuple[Any, Any]]:
    """Pairs of an expression and a value that ``rule`` compares it with."""
    for word, what in rule.statements:
        if word == "match":
            for member in _some(ruleset.members(rule, what["right"])):
                for one in member if isinstance(member, list) else [member]:
                    yield what["left"], one
        elif word == "vmap":
            for key, _ in _some(ruleset.elements(rule, what)):
                yield what["key"], key
        elif isinstance(what, Mapping):
            for value in what.values():
                kind, mapping = unpacked(value)
                if kind == "map" and isinstance(mapping, Mapping):
                    for key, _ in _some(ruleset.elements(rule, mapping)):
                        yield mapping["key"], key


def _some(members: list[Any]) -> list[Any]:
    half = MEMBERS_AT_MOST // 2
    return members if len(members) <= MEMBERS_AT_MOST else [*members[:half], *members[-half:]]


def _around(name: str, member: Any) -> Iterator[Any]:
    """A value, its edges where it is a range or a network, and what lies beside."""
    kind, what = unpacked(member)
    if name in ADDRESSES:
        yield from _addresses(kind, what)
    elif name in HIGHEST:
        ends = what if kind == "range" else [member]
        numbers = [number for one in ends if (number := names.number(one, name)) is not None]
        for number in numbers:
            yield from (one for one in (number, number - 1, number + 1) if 0 <= one <= HIGHEST[name])
        if len(numbers) == 2 and numbers[1] - numbers[0] > 2:
            yield sum(numbers) // 2
    elif name == "proto" and isinstance(member, str | int):
        yield names.protocol(member)
    elif name == "flags":
        yield from TCP_FLAGS
        if (wanted := names.flags(member)) is not None:
            yield tuple(flag for flag, bit in names.FLAGS.items() if wanted & bit)
    elif name == "type" and isinstance(member, str | int):
        yield member
    elif name == "state":
        yield str(member)


def _addresses(kind: str, what: Any) -> Iterator[str]:
    try:
        if kind == "prefix":
            network = ip_network(f"{what['addr']}/{what['len']}", strict=False)
            ends = [network[0], network[-1]]
            inner = [network[1]] if network.num_addresses > 2 else []
        else:
            ends = [ip_address(str(one)) for one in (what if kind == "range" else [what])]
            inner = []
        yield from map(str, [*inner, *ends])
        low, high = ends[0], ends[-1]
        if int(low) > 0:
            yield str(low - 1)
        if int(high) < 2**high.max_prefixlen - 1:
            yield str(high + 1)
    except (ValueError, KeyError, TypeError):
        return


_KNOWN: Final = frozenset({*ADDRESSES, *HIGHEST, "proto", "flags", "type"})


def _words(left: Any) -> str:
    """An expression in a few words, as near to nft's as its JSON allows."""
    kind, what = unpacked(left)
    if kind in ("&", "|", "^", "<<", ">>") and isinstance(what, list):
        return _words(what[0])
    if isinstance(what, Mapping):
        return " ".join(
            str(one)
            for one in (kind if kind != "payload" else "", *what.values())
            if isinstance(one, str | int) and one != ""
        )
    return kind or str(left)


def types_of(protocol: str) -> Iterator[str]:
    """The ICMP types that a packet of ``protocol`` is made with."""
    yield from icmp.TYPES_V6 if protocol == "ipv6-icmp" else icmp.TYPES
