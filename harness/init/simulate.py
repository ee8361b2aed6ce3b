"""What a ruleset would do with a packet, as far as can be told without a kernel.

This is a guess, made to choose packets: which rules they meet the kernel tells afterwards. An
expression that is not understood is *unknown*; it holds where that leads to the rule looked for.
See libnftables-json(5) for the form of rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from harness import netfilter
from harness.init.facts import Facts
from harness.packets import icmp

Key = tuple[str, str, str, int]
"""A rule: family, table, chain, handle; with handle 0, the policy of the chain."""

Fields = dict[str, Any]
"""A packet as expressions see it: ``iif oif family proto saddr daddr sport dport flags type code
ether_saddr ether_daddr ether_type vlan ttl length dscp state status mark local mss``."""

UNKNOWN = object()

PROTOCOLS = {**{name: number for number, name in netfilter.PROTOCOLS.items()}, "ipv6-icmp": 58}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
ETHER_TYPES = {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "vlan": 0x8100, "8021q": 0x8100}
SERVICES_OF_IP = {"ip": 4, "ip6": 6}
MANY = 1000
"""Packets, where it takes more than anybody would write down."""
FINAL = ("accept", "drop", "reject", "queue")
NAT = ("dnat", "snat", "masquerade", "redirect")


class SimulatedRule(NamedTuple):
    """A rule as nft shows it."""

    key: Key
    statements: Sequence[Mapping[str, Any]]


class SimulatedChain(NamedTuple):
    """A chain; only a base chain has a hook."""

    family: str
    table: str
    name: str
    hook: str
    kind: str
    priority: int
    policy: str
    devices: tuple[str, ...]
    rules: tuple[SimulatedRule, ...]

    @property
    def key(self) -> Key:
        """Of its policy."""
        return self.family, self.table, self.name, 0


class VerdictReached(Exception):
    """A verdict that ends a chain and those that called it."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class Traversal(msgspec.Struct):
    """What became of a packet."""

    met: list[Key]
    """Rules that matched and policies that decided, in order."""
    verdict: str
    fields: Fields
    """The packet at the end, after NAT."""


class SimulatedRuleset:
    """A ruleset that can be asked."""

    def __init__(self, facts: Facts) -> None:
        self.sets: dict[tuple[str, str, str], list[Any]] = {}
        devices = {(one.family, one.table, one.name): one.devices for one in facts.chains}
        rules: dict[tuple[str, str, str], list[SimulatedRule]] = {}
        for kind, value in (next(iter(one.items())) for one in facts.objects):
            if kind in ("set", "map"):
                self.sets[value["family"], value["table"], value["name"]] = value.get("elem", [])
            elif kind == "rule":
                place = value["family"], value["table"], value["chain"]
                rules.setdefault(place, []).append(SimulatedRule((*place, value["handle"]), value["expr"]))
        self.chains = {
            (value["family"], value["table"], value["name"]): SimulatedChain(
                family=value["family"],
                table=value["table"],
                name=value["name"],
                hook=value.get("hook", ""),
                kind=value.get("type", ""),
                priority=value.get("prio", 0),
                policy=value.get("policy", "accept"),
                devices=devices.get((value["family"], value["table"], value["name"]), ()),
                rules=tuple(rules.get((value["family"], value["table"], value["name"]), ())),
            )
            for value in (one["chain"] for one in facts.objects if "chain" in one)
        }

    def base(self, families: Sequence[str], hook: str) -> list[SimulatedChain]:
        """The base chains at a hook, in the order of their priorities."""
        found = [one for one in self.chains.values() if one.hook == hook and one.family in families]
        return sorted(found, key=lambda one: one.priority)

    def callers(self, chain: SimulatedChain) -> Iterator[SimulatedRule]:
        """The rules that lead into ``chain``."""
        for one in self.chains.values():
            if (one.family, one.table) == (chain.family, chain.table):
                for rule in one.rules:
                    if chain.name in self.targets(rule):
                        yield rule

    def targets(self, rule: SimulatedRule) -> Iterator[str]:
        """The chains that ``rule`` may jump to."""
        for statement in rule.statements:
            for verdict in (statement, *(value for _, value in self.elements(rule, statement.get("vmap", {})))):
                for word in ("jump", "goto"):
                    if isinstance(verdict, Mapping) and isinstance(verdict.get(word), Mapping):
                        yield verdict[word]["target"]

    def empty(self, rule: SimulatedRule) -> Iterator[str]:
        """The named sets that ``rule`` looks into and that have no element."""
        for statement in rule.statements:
            right = statement.get("match", {}).get("right")
            if isinstance(right, str) and right.startswith("@") and not self.members(rule, right):
                yield right[1:]

    def elements(self, rule: SimulatedRule, mapping: Mapping[str, Any]) -> list[Any]:
        """Pairs of key and value of a map."""
        return self.members(rule, mapping["data"]) if mapping else []

    def members(self, rule: SimulatedRule, right: Any) -> list[Any]:
        """Elements of a set or map, written in the rule or named."""
        if isinstance(right, str) and right.startswith("@"):
            return self.sets.get((*rule.key[:2], right[1:]), [])
        if isinstance(right, Mapping) and "set" in right:
            elements = right["set"]
            return elements if isinstance(elements, list) else [elements]
        return [right]

    # -- a packet ---------------------------------------------------------------------------------

    def evaluate(self, chain: SimulatedChain, fields: Fields, way: Traversal, wanted: frozenset[Key]) -> str:
        """The verdict of a base chain."""
        try:
            self._chain(chain, fields, way, wanted, 0)
        except VerdictReached as ended:
            return ended.verdict
        way.met.append(chain.key)
        return chain.policy

    def _chain(self, chain: SimulatedChain, fields: Fields, way: Traversal, wanted: frozenset[Key], depth: int) -> None:
        for rule in chain.rules if depth < 16 else ():
            before = len(way.met)
            way.met.append(rule.key)
            if self._rule(chain, rule, fields, way, wanted, depth) is None:
                del way.met[before]
            elif self._returned:
                return

    _returned = False

    def _rule(
        self,
        chain: SimulatedChain,
        rule: SimulatedRule,
        fields: Fields,
        way: Traversal,
        wanted: frozenset[Key],
        depth: int,
    ) -> bool | None:
        """None when ``rule`` does not match."""
        self._returned = False
        for statement in rule.statements:
            ((word, what),) = statement.items()
            if word == "match":
                holds = self.holds(rule, what, fields)
                if holds is False or (holds is None and rule.key not in wanted):
                    return None
            elif word == "vmap":
                found = self._look_up(rule, what, fields)
                if found is UNKNOWN and rule.key in wanted:
                    found = next((value for _, value in self.elements(rule, what)), None)
                if not isinstance(found, Mapping):
                    return None
                self._verdict(chain, found, fields, way, wanted, depth)
            elif rule.key not in wanted and excess(statement):
                return None
            elif word == "mangle":
                self._mangle(rule, what, fields)
            elif word == "reject" and any(fields.get(name) != value for name, value in answered(what).items()):
                return None
            elif word in NAT:
                if not self._translate(rule, word, what or {}, fields):
                    return None
                raise VerdictReached("accept")
            elif word in (*FINAL, "jump", "goto", "return", "continue"):
                self._verdict(chain, statement, fields, way, wanted, depth)
            elif word in ("fwd", "synproxy", "tproxy"):
                raise VerdictReached("stolen")
        return True

    def _verdict(
        self,
        chain: SimulatedChain,
        statement: Mapping[str, Any],
        fields: Fields,
        way: Traversal,
        wanted: frozenset[Key],
        depth: int,
    ) -> None:
        ((word, what),) = statement.items()
        if word in FINAL:
            raise VerdictReached(word)
        if word in ("jump", "goto"):
            if called := self.chains.get((chain.family, chain.table, what["target"])):
                self._chain(called, fields, way, wanted, depth + 1)
            self._returned = word == "goto"
        elif word == "return":
            self._returned = True

    # -- expressions ------------------------------------------------------------------------------

    def holds(self, rule: SimulatedRule, match: Mapping[str, Any], fields: Fields) -> bool | None:
        """Whether a match holds; None for unknown."""
        left = self.value(rule, match["left"], fields)
        if left is None:
            return False  # the packet has no such field, not even a different one
        if left is UNKNOWN:
            return None
        operator, right = match["op"], match["right"]
        members = self.members(rule, right)
        if operator in ("<", ">", "<=", ">="):
            try:
                a, b = int(left), int(members[0])
            except (TypeError, ValueError):
                return None
            return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[operator]
        found = any(_is(left, member) for one in members for member in _flatten(one))
        if isinstance(left, frozenset) or operator == "in":
            masks = {str(one) for member in members for one in (member if isinstance(member, list) else [member])}
            found = bool(masks & {str(one) for one in (left if isinstance(left, frozenset) else [left])})
        return not found if operator == "!=" else found

    def value(self, rule: SimulatedRule, expression: Any, fields: Fields) -> Any:
        """The value of an expression; None where the packet has none, UNKNOWN where it cannot be told."""
        if not isinstance(expression, Mapping):
            return _flags(expression) if isinstance(expression, list) else expression
        ((kind, what),) = expression.items()
        if kind == "meta":
            return self._meta(what["key"], fields)
        if kind == "payload":
            return _payload(what, fields)
        if kind == "ct":
            return self._conntrack(what, fields)
        if kind == "concat":
            return self._concatenated([self.value(rule, one, fields) for one in what])
        if kind in ("&", "|") and isinstance(what, list):
            return self._combined(kind, *(self.value(rule, one, fields) for one in what[:2]))
        if kind == "fib" and what["result"] == "type" and what["flags"] == ["daddr"]:
            return "local" if fields.get("local") else "unicast"
        if kind == "tcp option" and what.get("name") == "maxseg":
            return fields.get("mss")
        if kind == "numgen" and what.get("mod") == 1:
            return what.get("offset", 0)
        return UNKNOWN

    @staticmethod
    def _concatenated(values: Sequence[Any]) -> Any:
        if None in values:
            return None
        return UNKNOWN if UNKNOWN in values else tuple(values)

    @staticmethod
    def _combined(operator: str, a: Any, b: Any) -> Any:
        """The value of a bitwise ``&`` or ``|``."""
        if a is None:
            return None
        if isinstance(a, frozenset):
            a = _flags(list(a))
        if isinstance(a, int) and isinstance(b, int):
            return a & b if operator == "&" else a | b
        return UNKNOWN

    @staticmethod
    def _meta(key: str, fields: Fields) -> Any:
        if key in ("iifname", "iif", "oifname", "oif"):
            return fields.get(key.removesuffix("name"))
        if key == "l4proto":
            return fields.get("proto")
        if key == "nfproto":
            return {4: "ipv4", 6: "ipv6"}.get(fields.get("family", 0))
        if key == "protocol":
            return {0x0800: "ip", 0x86DD: "ip6", 0x0806: "arp"}.get(fields.get("ether_type", 0))
        if key == "pkttype":
            return "host"
        return fields.get(key, 0) if key in ("mark", "length", "priority") else UNKNOWN

    @staticmethod
    def _conntrack(what: Mapping[str, Any], fields: Fields) -> Any:
        key = what["key"]
        if key in ("state", "status"):
            return frozenset({fields.get("state", "new")}) if key == "state" else fields.get("status", frozenset())
        if key == "mark":
            return fields.get("ct_mark", 0)
        if key == "direction":
            return "reply" if fields.get("reply") else "original"
        return UNKNOWN

    def _look_up(self, rule: SimulatedRule, mapping: Mapping[str, Any], fields: Fields) -> Any:
        key = self.value(rule, mapping["key"], fields)
        if key is None or key is UNKNOWN:
            return key
        keys = tuple(key) if isinstance(key, frozenset) else (key,)
        for element, value in self.elements(rule, mapping):
            if any(_is(one, member) for one in keys for member in _flatten(element)):
                return value
        return None

    def _mangle(self, rule: SimulatedRule, what: Mapping[str, Any], fields: Fields) -> None:
        key, value = what["key"], self.value(rule, what["value"], fields)
        if key == {"meta": {"key": "mark"}} and isinstance(value, int):
            fields["mark"] = value
        elif key == {"ct": {"key": "mark"}} and isinstance(value, int):
            fields["ct_mark"] = value

    def _translate(self, rule: SimulatedRule, word: str, what: Mapping[str, Any], fields: Fields) -> bool:
        """Whether there is something to translate to: a map may have no element for the packet."""
        status = "dnat" if word in ("dnat", "redirect") else "snat"
        address, port = what.get("addr"), what.get("port")
        if isinstance(address, Mapping) and "map" in address:
            address = self._look_up(rule, address["map"], fields)
            if address is None:
                return False
        fields["status"] = fields.get("status", frozenset()) | {status}
        if isinstance(address, Mapping) and "concat" in address:
            address, port = address["concat"][:2]
        if isinstance(address, Mapping):
            address = next((one for one in _flatten(address) if isinstance(one, str)), None)
        if status == "dnat":
            if word == "redirect":
                fields["local"] = True
            elif isinstance(address, str):
                fields |= {"daddr": ip_address(address.partition("/")[0]), "local": False}
            if isinstance(port, int):
                fields["dport"] = port
        return True


def answered(reject: Any) -> dict[str, Any]:
    """What a packet must be for this kind of answer: nft asks for it by itself, and does not list that."""
    kind = reject.get("type", "") if isinstance(reject, Mapping) else ""
    kinds: dict[str, dict[str, Any]] = {"icmp": {"family": 4}, "icmpv6": {"family": 6}, "tcp reset": {"proto": "tcp"}}
    return kinds.get(kind, {})


def excess(statement: Mapping[str, Any]) -> int:
    """How many packets it takes to exceed the limit that a statement asks to be exceeded; 0 where it asks for none."""
    ((word, what),) = statement.items()
    if word == "set":
        return max((excess(one) for one in what.get("stmt", ()) if isinstance(one, Mapping)), default=0)
    if word in ("limit", "quota") and isinstance(what, Mapping) and what.get("inv"):
        return int(what.get("burst", 5)) + 1 if word == "limit" else MANY
    return 0


def _payload(what: Mapping[str, Any], fields: Fields) -> Any:
    protocol, field = what.get("protocol"), what.get("field", "")
    if protocol in ("ip", "ip6"):
        if fields.get("family") != SERVICES_OF_IP[protocol]:
            return None
        if field in ("protocol", "nexthdr"):
            return fields.get("proto")
        names = {"saddr": "saddr", "daddr": "daddr", "ttl": "ttl", "hoplimit": "ttl", "length": "length"}
        if field == "frag-off":
            return fields.get("frag", 0)
        return fields.get(names.get(field) or field, 64 if field in ("ttl", "hoplimit") else UNKNOWN)
    if protocol in ("tcp", "udp", "sctp", "dccp", "udplite", "th"):
        if protocol != "th" and fields.get("proto") != protocol:
            return None
        if field == "flags":
            return frozenset(fields.get("flags", ())) if protocol == "tcp" else None
        return fields.get(field, UNKNOWN if field not in ("sport", "dport") else None)
    if protocol in ("icmp", "icmpv6"):
        wanted = {"icmp": "icmp", "icmpv6": "ipv6-icmp"}[protocol]
        return fields.get(field, UNKNOWN) if fields.get("proto") == wanted else None
    if protocol == "ether":
        return fields.get("ether_" + field)
    if protocol == "vlan":
        return fields.get("vlan") if field == "id" else UNKNOWN
    if protocol == "arp":
        if fields.get("ether_type") != ETHER_TYPES["arp"]:
            return None
        return {"operation": fields.get("op"), "saddr ip": fields.get("saddr"), "daddr ip": fields.get("daddr")}.get(
            field, UNKNOWN
        )
    return UNKNOWN


def _flags(names: list[Any]) -> Any:
    """Flags of TCP as a number; other lists are alternatives."""
    return sum(FLAGS[name] for name in names) if all(name in FLAGS for name in names) else UNKNOWN


def _flatten(element: Any) -> Iterator[Any]:
    """An element without its timeout, counter or comment."""
    yield element["elem"]["val"] if isinstance(element, Mapping) and "elem" in element else element


def _is(value: Any, member: Any) -> bool:
    """Whether ``value`` is ``member`` of a set, or in it."""
    if isinstance(member, Mapping):
        for kind, contains in (("concat", _in_concatenation), ("range", _in_range), ("prefix", _in_prefix)):
            if kind in member:
                return contains(value, member[kind])
    if isinstance(member, list):
        return bool(value == _flags(member))
    if isinstance(member, str) and member.endswith("*") and isinstance(value, str):
        return value.startswith(member[:-1])
    return _is_named(value, member)


def _in_concatenation(value: Any, parts: Sequence[Any]) -> bool:
    return isinstance(value, tuple) and all(
        any(_is(one, inner) for inner in _flatten(part)) for one, part in zip(value, parts, strict=False)
    )


def _in_range(value: Any, ends: Sequence[Any]) -> bool:
    try:
        low, high, found = (_ordered(one) for one in (*ends, value))
        return bool(low <= found <= high)
    except TypeError:
        return False


def _in_prefix(value: Any, prefix: Mapping[str, Any]) -> bool:
    try:
        return ip_address(str(value)) in ip_network(f"{prefix['addr']}/{prefix['len']}", False)
    except ValueError:
        return False


def _is_named(value: Any, member: Any) -> bool:
    """Whether two values are the same, of which one may be a number and the other its name."""
    if isinstance(value, int) and isinstance(member, str):
        return value in (FLAGS.get(member), ETHER_TYPES.get(member), icmp.TYPES.get(member), icmp.TYPES_V6.get(member))
    if isinstance(value, str) and isinstance(member, int):
        return PROTOCOLS.get(value) == member or icmp.TYPES.get(value) == member
    if value == member:
        return True
    if isinstance(value, str) and isinstance(member, str):
        return PROTOCOLS.get(value, value) == PROTOCOLS.get(member, member)
    return str(value) == str(member)


def _ordered(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):
        return int(ip_address(str(value)))
