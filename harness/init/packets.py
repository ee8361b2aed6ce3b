"""Packets for rules: what a rule and those that lead to it ask for, tried on the simulated ruleset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from harness.init.simulate import (
    ETHER_TYPES,
    PROTOCOLS,
    Fields,
    Key,
    SimulatedChain,
    SimulatedRule,
    SimulatedRuleset,
    Traversal,
    answered,
    excess,
)
from harness.model.problem import Problem
from harness.packets import icmp
from harness.topology.network import Network
from harness.topology.parts import LOOPBACK

Wish = dict[str, Any]
"""Values that fields of a packet must have."""

WISHES_AT_MOST = 96
CALLERS_AT_MOST = 6
REPEATED_AT_MOST = 12
FREE_PORTS = (4711, 9999, 40404)
REPLY_PORT = 40000
STRANGERS = {4: "198.51.100.77", 6: "2001:db8:77::77"}
"""Addresses of nobody in a lab."""
_MESSAGES = {
    "icmp": ("echo-request", "timestamp-request", "destination-unreachable"),
    "ipv6-icmp": ("echo-request", "echo-reply", "mld-listener-done"),
}
"""ICMP messages for a rule that asks for none by name."""
_KINDS = dict.fromkeys(("sport", "dport", "ttl", "dscp", "mss", "vlan", "code", "frag"), int) | dict.fromkeys(
    ("state", "op", "ether_saddr", "ether_daddr"), str
)
"""Fields that take a value as it is, if it is of this kind."""
_LETTERS = {"fin": "F", "syn": "S", "rst": "R", "psh": "P", "ack": "A", "urg": "U", "ecn": "E", "cwr": "C"}


class Candidate(NamedTuple):
    """Packets that should lead to a rule: the last one meets it."""

    sends: tuple[dict[str, Any], ...]
    """As ``send`` in a scenario."""


class SimulatedDevice:
    """A simulated ruleset in a planned lab."""

    def __init__(self, ruleset: SimulatedRuleset, network: Network) -> None:
        self.ruleset = ruleset
        self.network = network
        self.device = network.hosts[network.device]
        own = [address.ip for one in self.device.interfaces.values() for address in one.addresses]
        self._own = frozenset(own)
        self._bridge = next(iter(self.device.bridges), "")
        used = {
            port for wish in self.every_wish() for key in ("dport", "sport") if isinstance(port := wish.get(key), int)
        }
        self.free_port = next(port for port in FREE_PORTS if port not in used)
        self._ports = sorted({wish["dport"] for wish in self.every_wish() if isinstance(wish.get("dport"), int)})

    def every_wish(self) -> Iterator[Wish]:
        """What any rule asks for."""
        for chain in self.ruleset.chains.values():
            for rule in chain.rules:
                yield from itertools.islice(self._wishes_of(rule, None), 8)

    # -- what is asked for ------------------------------------------------------------------------

    def candidates(self, key: Key) -> Iterator[Candidate]:
        """Packets that should meet the rule or policy ``key``, those that say least first."""
        chain = self.ruleset.chains[key[:3]]
        target = next((rule for rule in chain.rules if rule.key == key), None)
        told: set[str] = set()
        for donor in (None, *self._donors(key)):
            for way, wish in self._wishes(chain, target, ()):
                if target and {"dnat", "redirect"} & {next(iter(one)) for one in target.statements}:
                    wish = {"local": True} | wish  # a forwarded port is one of the device's own
                if chain.family == "arp":
                    wish = wish | {"ether_type": ETHER_TYPES["arp"]}
                merged = _merged([wish, donor]) if donor else wish
                if merged is None:
                    continue
                for candidate in self._packets(key, merged, frozenset(rule.key for rule in way)):
                    if (text := repr(candidate)) not in told:
                        told.add(text)
                        yield candidate

    def _donors(self, key: Key) -> Iterator[Wish]:
        """What other rules ask for: a packet may need a mark, or an address translated, before it gets to ``key``."""
        for chain in self.ruleset.chains.values():
            for rule in chain.rules:
                if rule.key != key and {"mangle", "dnat", "redirect"} & {next(iter(one)) for one in rule.statements}:
                    for way, wish in itertools.islice(self._wishes(chain, rule, ()), 4):
                        del way
                        yield wish

    def _wishes(
        self, chain: SimulatedChain, target: SimulatedRule | None, below: tuple[SimulatedRule, ...]
    ) -> Iterator[tuple[tuple[SimulatedRule, ...], Wish]]:
        """Ways from a base chain to ``target``, or to the end of ``chain``, each with all that its rules ask for."""
        way = (target, *below) if target else below
        if chain.hook:
            into = [*(rule.key[2] for rule in way[1:]), None]
            choices = [
                list(itertools.islice(self._wishes_of(rule, to), 24)) for rule, to in zip(way, into, strict=False)
            ]
            for parts in itertools.islice(itertools.product(*choices), WISHES_AT_MOST):
                if (wish := _merged(parts)) is not None:
                    yield way, wish
            return
        for caller in itertools.islice(self.ruleset.callers(chain), CALLERS_AT_MOST):
            if caller not in way:
                yield from self._wishes(self.ruleset.chains[caller.key[:3]], caller, way)

    def _wishes_of(self, rule: SimulatedRule, into: str | None) -> Iterator[Wish]:
        """What ``rule`` asks for; where it is a map, the elements that lead ``into`` a chain."""
        choices: list[list[Wish]] = []
        for statement in rule.statements:
            ((word, what),) = statement.items()
            if word == "match":
                choices.append(list(_alternatives(self.ruleset, rule, what)))
            elif word == "reject":
                choices.append([answered(what)])
            elif word == "vmap":
                pairs = self.ruleset.elements(rule, what)
                keys = [one for one, verdict in pairs if into is None or into in _targets(verdict)]
                # An answer shows more of a stateful ruleset than what is invalid, which nft lists first.
                keys.sort(key=lambda one: one != "established")
                choices.append([_wish(what["key"], one) for one in keys] or [{}])
            elif word in ("dnat", "snat") and isinstance(what, Mapping) and isinstance(what.get("addr"), Mapping):
                mapping = what["addr"].get("map")
                if mapping:
                    keys = [one for one, _ in self.ruleset.elements(rule, mapping)]
                    choices.append([_wish(mapping["key"], one) for one in keys[:4]] or [{}])
        for parts in itertools.product(*choices):
            if (wish := _merged(parts)) is not None:
                yield wish

    # -- packets ----------------------------------------------------------------------------------

    def _packets(self, key: Key, wish: Wish, way: frozenset[Key]) -> Iterator[Candidate]:
        for fields in itertools.islice(self._filled(wish), 160):
            if fields.get("state") in ("established", "related"):
                yield from self._replies(key, fields, way)
                continue
            met = self.travel(dict(fields), way | {key})
            if met and key in met.met:
                yield from self._repeated(fields, self._times(way | {key}))

    def _times(self, keys: frozenset[Key]) -> int:
        """How many packets it takes to exceed the limits that rules ask for."""
        rules = (rule for chain in self.ruleset.chains.values() for rule in chain.rules if rule.key in keys)
        return max((excess(statement) for rule in rules for statement in rule.statements), default=1) or 1

    def _repeated(self, fields: Fields, times: int) -> Iterator[Candidate]:
        """The packet, or as many of it as it takes, each beginning a connection of its own."""
        if times == 1:
            yield Candidate((self._send(fields),))
        elif times <= REPEATED_AT_MOST:
            ports = (fields.get("sport", REPLY_PORT) + number for number in range(times))
            yield Candidate(
                tuple(self._send(fields | ({"sport": port} if "sport" in fields else {})) for port in ports)
            )

    def _filled(self, wish: Wish) -> Iterator[Fields]:
        """``wish`` with all that a packet needs besides."""
        families = [wish["family"]] if "family" in wish else [4, 6]
        own = {name: value for name, value in wish.items() if name not in ("iif", "oif", "local")}
        for family, protocol in itertools.product(families, _protocols(wish)):
            if family == _OTHER_FAMILY.get(protocol):
                continue
            for sender, receiver in self._ends(wish, family):
                fields = {"from": sender, "to": receiver, "family": family, "proto": protocol}
                fields |= self._defaults(protocol, family, invalid=wish.get("state") == "invalid")
                for message in _MESSAGES.get(protocol, ()):
                    yield fields | {"type": message, "code": 0} | own
                if protocol not in _MESSAGES:
                    yield fields | own

    def _defaults(self, protocol: str, family: int, *, invalid: bool) -> Fields:
        """The fields that a packet of ``protocol`` has besides its ends, where no rule asks for others."""
        fields: Fields = {"ether_type": {"arp": 0x0806}.get(protocol, 0x0800 if family == 4 else 0x86DD)}
        if protocol in ("tcp", "udp", "sctp", "dccp", "udplite"):
            fields |= {"sport": REPLY_PORT, "dport": self.free_port}
        if protocol == "tcp":
            fields["flags"] = ("rst",) if invalid else ("syn",)
        if protocol == "arp":
            fields["op"] = "request"
        return fields

    def _ends(self, wish: Wish, family: int) -> Iterator[tuple[str, str]]:
        device, hosts = self.network.device, list(self.network.hosts)
        others = [name for name in hosts if name != device]
        receivers = [device] * bool(wish.get("local")) + [*others[1:], others[0], device]
        if "daddr" in wish:
            owner = self.network.owner(ip_address(str(wish["daddr"])))
            receivers = [owner] if owner in others else [str(wish["daddr"])]
        for sender, receiver in itertools.product([*others, device], receivers):
            if sender != receiver or (sender == device and wish.get("oif") in (None, LOOPBACK)):
                yield sender, receiver

    def _replies(self, key: Key, fields: Fields, way: frozenset[Key]) -> Iterator[Candidate]:
        """A packet that is let in, and the answer to it that meets ``key``."""
        device = self.network.device
        if fields["state"] == "related" or fields["to"] not in self.network.hosts:
            return
        answer = fields | {"reply": True}
        first: Fields = {name: fields[name] for name in ("family", "proto", "ether_type")}
        first |= {"from": fields["to"], "to": fields["from"]}
        ports: Iterable[int | None] = [None]
        if "dport" in fields:
            ports = [fields["sport"]] if fields["sport"] != REPLY_PORT else [53, 443, self.free_port, *self._ports]
        if fields["proto"] in _MESSAGES:
            # Our own kernel answers a ping: the second one belongs to what the first began.
            first |= {"from": fields["from"], "to": fields["to"], "type": "echo-request", "code": 0}
            if fields["type"] != "echo-request" or (fields["to"] != device):
                return
        for port in ports:
            if port is not None:
                first |= {"sport": fields["dport"], "dport": port}
                answer = answer | {"sport": port}
            if first["proto"] == "tcp":
                first["flags"], answer["flags"] = ("syn",), ("syn", "ack")
            before = self.travel(dict(first), frozenset())
            if not before or before.verdict != "accept" or "dnat" in before.fields.get("status", ()):
                continue
            hidden = "snat" in before.fields.get("status", ())
            met = self.travel(dict(answer), way | {key})
            if met and key in met.met:
                yield Candidate((self._send(first), self._send(answer | ({"to": device} if hidden else {}))))
                return

    def travel(self, fields: Fields, wanted: frozenset[Key]) -> Traversal | None:
        """The way of a packet through the device; None for one that does not get there."""
        network, device = self.network, self.network.device
        family = fields["family"]
        try:
            destination = self._address(fields["to"], family, fields["from"])
            source = fields.get("saddr") or self._address(fields["from"], family, fields["to"])
        except (Problem, ValueError, KeyError):
            return None
        if destination is None or source is None or ip_address(str(source)).version != family:
            return None
        fields |= {"saddr": ip_address(str(source)), "daddr": ip_address(str(destination))}
        fields["local"] = fields["daddr"] in self._own
        way = Traversal(met=[], verdict="accept", fields=fields)
        try:
            if fields["from"] == device:
                return self._sent(fields, way, wanted)
            hop = network.route(fields["from"], fields["daddr"])
        except Problem:
            return None
        fields["iif"] = hop.interface.peer.interface
        fields.setdefault("ether_saddr", hop.interface.mac)
        fields.setdefault("ether_daddr", hop.mac)
        return self._received(fields, way, wanted)

    def _received(self, fields: Fields, way: Traversal, wanted: frozenset[Key]) -> Traversal:
        if self._hook(("netdev",), "ingress", fields, way, wanted, device=fields["iif"]):
            return way
        if self._bridge and fields["iif"] in self.device.bridges[self._bridge].ports:
            if self._hook(("bridge",), "prerouting", fields, way, wanted):
                return way
            if not fields["local"]:
                other = [port for port in self.device.bridges[self._bridge].ports if port != fields["iif"]]
                fields["oif"] = other[0] if other else ""
                if not self._hook(("bridge",), "forward", fields, way, wanted):
                    self._hook(("bridge",), "postrouting", fields, way, wanted)
                return way
            if self._hook(("bridge",), "input", fields, way, wanted):
                return way
            fields["iif"] = self._bridge
        if fields["proto"] == "arp":
            self._hook(("arp",), "input", fields, way, wanted)
            return way
        families = self._families(fields)
        if self._hook(families, "prerouting", fields, way, wanted):
            return way
        fields["local"] = fields["daddr"] in self._own
        if fields["local"]:
            self._hook(families, "input", fields, way, wanted)
            return way
        if not self.device.forwarding:
            return way
        fields["oif"] = self.network.route(self.network.device, fields["daddr"]).interface.name
        if not self._hook(families, "forward", fields, way, wanted):
            self._left(fields, way, wanted)
        return way

    def _sent(self, fields: Fields, way: Traversal, wanted: frozenset[Key]) -> Traversal:
        here = fields["daddr"] in self._own
        fields["oif"] = LOOPBACK if here else self.network.route(self.network.device, fields["daddr"]).interface.name
        families = ("arp",) if fields["proto"] == "arp" else self._families(fields)
        if self._hook(families, "output", fields, way, wanted):
            return way
        if not self._left(fields, way, wanted) and here:
            fields |= {"iif": fields.pop("oif"), "local": True}
            if not (
                self._hook(("netdev",), "ingress", fields, way, wanted, device=LOOPBACK)
                or self._hook(families, "prerouting", fields, way, wanted)
            ):
                self._hook(families, "input", fields, way, wanted)
        return way

    def _left(self, fields: Fields, way: Traversal, wanted: frozenset[Key]) -> bool:
        return self._hook(self._families(fields), "postrouting", fields, way, wanted) or self._hook(
            ("netdev",), "egress", fields, way, wanted, device=fields["oif"]
        )

    def _hook(
        self,
        families: Sequence[str],
        hook: str,
        fields: Fields,
        way: Traversal,
        wanted: frozenset[Key],
        *,
        device: str = "",
    ) -> bool:
        """Whether the packet ended at ``hook``."""
        for chain in self.ruleset.base(families, hook):
            if device and device not in chain.devices:
                continue
            if chain.kind == "nat" and (fields.get("state", "new") != "new" or fields.get("reply")):
                continue
            verdict = self.ruleset.evaluate(chain, fields, way, wanted)
            if verdict != "accept":
                way.verdict = verdict
                return True
        return False

    @staticmethod
    def _families(fields: Fields) -> tuple[str, str]:
        return ("inet", "ip" if fields["family"] == 4 else "ip6")

    def _address(self, end: str, family: int, towards: str) -> Any:
        if end in self.network.hosts:
            other = towards if towards in self.network.hosts else self.network.device
            return self.network.address(end, family, towards=other)
        return ip_address(end)

    # -- as it is written -------------------------------------------------------------------------

    def _send(self, fields: Fields) -> dict[str, Any]:
        """``send`` for a packet."""
        send: dict[str, Any] = {"from": fields["from"], "to": fields["to"]}
        ether = {"src": fields.get("ether_saddr"), "dst": fields.get("ether_daddr"), "vlan": fields.get("vlan")}
        if ether := {name: value for name, value in ether.items() if value is not None}:
            send["ether"] = ether
        protocol, family = fields["proto"], fields["family"]
        if protocol == "arp":
            return send | {"arp": {"op": fields["op"]} if fields["op"] != "request" else {}}
        header = _ip_header(fields)
        if "frag" in fields:
            return send | {"ip": header | {"frag": fields["frag"], "proto": 17}, "payload": "later"}
        if protocol not in (*_MESSAGES, "tcp", "udp"):
            header["proto" if family == 4 else "nh"] = PROTOCOLS.get(protocol, protocol)
        literal = ":" in fields["to"] or fields["to"][0].isdigit()
        if header or (family == 6 and protocol != "ipv6-icmp" and not literal):
            send["ip" if family == 4 else "ip6"] = header
        if protocol in _UPPER_HEADERS:
            key, upper_header = _UPPER_HEADERS[protocol]
            send[key] = upper_header(fields)
        if "payload" in fields:
            send["payload"] = {"hex": fields["payload"]}
        return send


def _ip_header(fields: Fields) -> dict[str, Any]:
    """What ``fields`` say of the header of IPv4 or IPv6."""
    header: dict[str, Any] = {}
    if "saddr" in fields and not fields.get("reply"):
        header["src"] = str(fields["saddr"])
    if "ttl" in fields:
        header["ttl" if fields["family"] == 4 else "hlim"] = fields["ttl"]
    if "dscp" in fields and isinstance(fields["dscp"], int):
        header["tos" if fields["family"] == 4 else "tc"] = fields["dscp"] << 2
    return header


def _udp_header(fields: Fields) -> dict[str, Any]:
    return ({"sport": fields["sport"]} if fields["sport"] != REPLY_PORT else {}) | {"dport": fields["dport"]}


def _tcp_header(fields: Fields) -> dict[str, Any]:
    header = _udp_header(fields)
    letters = "".join(_LETTERS[name] for name in _LETTERS if name in fields["flags"])
    if letters != "S":
        header["flags"] = letters
    if "mss" in fields:
        header["mss"] = fields["mss"]
    return header


def _icmp_header(fields: Fields) -> dict[str, Any]:
    header = {"type": fields["type"]} if fields["type"] != "echo-request" else {}
    return header | ({"code": fields["code"]} if fields["code"] else {})


_UPPER_HEADERS: Mapping[str, tuple[str, Callable[[Fields], dict[str, Any]]]] = {
    "tcp": ("tcp", _tcp_header),
    "udp": ("udp", _udp_header),
    "icmp": ("icmp", _icmp_header),
    "ipv6-icmp": ("icmpv6", _icmp_header),
}
"""The key of ``send`` for each protocol above IP, and what stands below it."""


# --- from expressions to wishes -----------------------------------------------------------------


_OTHER_FAMILY = {"icmp": 6, "arp": 6, "ipv6-icmp": 4}
"""The IP version that does not carry a protocol."""


def _protocols(wish: Wish) -> Sequence[str]:
    """The protocols that a packet for ``wish`` may have."""
    if "frag" in wish:
        return ("udp",)
    if wish.get("ether_type") == ETHER_TYPES["arp"] or "op" in wish:
        return ("arp",)
    if "proto" in wish:
        return (str(wish["proto"]),)
    if wish.get("state") == "invalid" or "flags" in wish or "mss" in wish:
        return ("tcp",)
    return ("tcp", "udp") if {"sport", "dport"} & wish.keys() else ("tcp", "udp", "icmp", "ipv6-icmp")


def _merged(wishes: Iterable[Wish]) -> Wish | None:
    """All of ``wishes`` at once; None where they contradict each other."""
    merged: Wish = {}
    for wish in wishes:
        for name, value in wish.items():
            if merged.setdefault(name, value) != value:
                return None
    return merged


def _targets(verdict: Any) -> Iterator[str]:
    if isinstance(verdict, Mapping):
        for word in ("jump", "goto"):
            if isinstance(verdict.get(word), Mapping):
                yield verdict[word]["target"]


def _alternatives(ruleset: SimulatedRuleset, rule: SimulatedRule, match: Mapping[str, Any]) -> Iterator[Wish]:
    """What would make a match hold: a few of its values."""
    operator, right = match["op"], match["right"]
    if operator == "!=":
        yield _other(match["left"], right)
        if _field(match["left"]) == "saddr":
            family = _wish(match["left"], "::" if _implied(match["left"]).get("family") == 6 else "0.0.0.0")["family"]
            yield {"saddr": STRANGERS[family], "family": family}
        return
    if operator in ("<", ">", "<=", ">=") and isinstance(right, int):
        yield _wish(match["left"], right + {"<": -1, ">": 1}.get(operator, 0))
        return
    members = ruleset.members(rule, right)
    for member in members[:6]:
        many = isinstance(member, list) and operator == "in"
        for one in member if many else [member]:
            yield _wish(match["left"], one)
    if not members:
        yield {"impossible": right}


def _other(left: Any, right: Any) -> Wish:
    """A wish for anything else than ``right``; mostly any packet will do."""
    if _field(left) == "frag" and right == 0:
        return {"frag": 100, "family": 4}
    if _field(left) == "iif" or not isinstance(left, Mapping):
        return {}
    return {name: value for name, value in _wish(left, right).items() if name in ("family", "proto")}


def _field(left: Any) -> str:
    if not isinstance(left, Mapping):
        return ""
    ((kind, what),) = left.items()
    if kind in ("&", "|") and isinstance(what, list):
        return _field(what[0])
    if kind == "meta":
        kinds = {"iifname": "iif", "oifname": "oif", "l4proto": "proto", "nfproto": "family"}
        return str(kinds.get(what["key"], what["key"]))
    if kind == "payload":
        names = {"frag-off": "frag", "protocol": "proto", "nexthdr": "proto", "hoplimit": "ttl", "operation": "op"}
        if what.get("protocol") == "ether":
            return f"ether_{what['field']}"
        if what.get("protocol") == "vlan":
            return "vlan" if what["field"] == "id" else ""
        return str(names.get(what.get("field", ""), what.get("field", "")))
    if kind == "ct":
        return str(what["key"])
    return {"tcp option": "mss", "fib": "local"}.get(kind, "")


def _wish(left: Any, member: Any) -> Wish:
    """What a packet must have so that ``left`` is ``member``."""
    if isinstance(member, Mapping) and "elem" in member:
        member = member["elem"]["val"]
    if isinstance(left, Mapping) and "concat" in left:
        parts = member.get("concat", []) if isinstance(member, Mapping) else []
        return _merged(_wish(one, part) for one, part in zip(left["concat"], parts, strict=False)) or {}
    wish = dict(_implied(left))
    name, value = _field(left), _value(member)
    if isinstance(value, Mapping) or (isinstance(value, list) and name != "flags"):
        return wish
    if name in _ASKED and (asked := _ASKED[name](name, value, wish)) is not None:
        return wish | asked
    if name in _KINDS and isinstance(value, _KINDS[name]):
        return wish | {name: value}
    if name not in _ASKED and isinstance(left, Mapping) and left.get("payload", {}).get("base") == "th":
        return wish | _raw(left["payload"], value)
    return wish


def _address(name: str, value: Any, _: Wish) -> Wish | None:
    return {name: value, "family": 6 if ":" in value else 4} if isinstance(value, str) else None


def _family(name: str, value: Any, _: Wish) -> Wish:
    return {name: {"ipv4": 4, "ipv6": 6}.get(value, value)}


def _protocol(name: str, value: Any, _: Wish) -> Wish:
    names = {number: word for word, number in PROTOCOLS.items() if word not in ("ipv6-icmp",)}
    protocol = {"icmpv6": "ipv6-icmp"}.get(str(names.get(value, value)), names.get(value, value))
    family = {"icmp": 4, "ipv6-icmp": 6}.get(protocol)
    return {name: protocol} | ({"family": family} if family else {})


def _tcp_flags(name: str, value: Any, _: Wish) -> Wish:
    chosen = value if isinstance(value, list) else [value]
    return {name: tuple(chosen)} if all(one in _LETTERS for one in chosen) else {}


def _icmp_type(name: str, value: Any, wish: Wish) -> Wish:
    types = icmp.TYPES if wish.get("proto") == "icmp" else icmp.TYPES_V6
    return {name: next((word for word, number in types.items() if number == value), value)}


def _ether_type(name: str, value: Any, _: Wish) -> Wish:
    return {name: ETHER_TYPES.get(value, value)} | (
        {"family": {"ip": 4, "ip6": 6}[value]} if value in ("ip", "ip6") else {}
    )


def _meta_protocol(_name: str, value: Any, _: Wish) -> Wish:
    return {"ip": {"family": 4}, "ip6": {"family": 6}, "arp": {"ether_type": 0x0806}}.get(str(value), {})


def _local(name: str, value: Any, _: Wish) -> Wish:
    return {name: value == "local"}


def _interface(name: str, value: Any, _: Wish) -> Wish | None:
    return {name: value.replace("*", "0")} if isinstance(value, str) else None


_ASKED: Mapping[str, Callable[[str, Any, Wish], Wish | None]] = {
    **dict.fromkeys(("saddr", "daddr"), _address),
    **dict.fromkeys(("iif", "oif"), _interface),
    "family": _family,
    "proto": _protocol,
    "flags": _tcp_flags,
    "type": _icmp_type,
    "ether_type": _ether_type,
    "protocol": _meta_protocol,
    "local": _local,
}
"""What a field that has a value asks for, by the field's name; None where the value is of no use."""


def _implied(left: Any) -> Wish:
    """The protocol that an expression asks for by itself."""
    if not isinstance(left, Mapping):
        return {}
    ((kind, what),) = left.items()
    if kind in ("&", "|") and isinstance(what, list):
        return _implied(what[0])
    if kind == "tcp option":
        return {"proto": "tcp"}
    if kind != "payload":
        return {}
    protocol = str(what.get("protocol", ""))
    if protocol in ("tcp", "udp", "sctp", "dccp"):
        return {"proto": protocol}
    wishes: dict[str, Wish] = {
        "ip": {"family": 4},
        "ip6": {"family": 6},
        "icmp": {"proto": "icmp", "family": 4},
        "icmpv6": {"proto": "ipv6-icmp", "family": 6},
        "arp": {"ether_type": ETHER_TYPES["arp"]},
    }
    return wishes.get(protocol, {})


def _value(member: Any) -> Any:
    """One value of what may be a range or a network."""
    if isinstance(member, Mapping) and "range" in member:
        return member["range"][0]
    if isinstance(member, Mapping) and "prefix" in member:
        network = ip_network(f"{member['prefix']['addr']}/{member['prefix']['len']}", strict=False)
        return str(network[min(7, network.num_addresses - 1)])
    return member


def _raw(payload: Mapping[str, Any], value: Any) -> Wish:
    """Bytes behind a UDP header; ``offset`` and ``len`` are in bits from its beginning."""
    begin, bits = payload.get("offset", 0) - 64, payload.get("len", 0)
    if begin < 0 or begin % 8 or bits % 8 or not isinstance(value, int):
        return {}
    return {"payload": bytes(begin // 8).hex() + value.to_bytes(bits // 8, "big").hex()}
