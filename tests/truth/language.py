"""Rulesets for generated truth: a tree, and its text as nft reads it. Nothing of ``harness`` is used here.

The evaluator (:mod:`tests.truth.reference`) reads the tree, the kernel gets the text. So what the text means is said
twice, here and by nft, and never by the code under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

Interval = tuple[int | str, int | str]
"""From, to, both included."""


@dataclass(frozen=True)
class Field:
    """What a match looks at: ``ip saddr``."""

    name: str
    type: str
    """Of a set that holds it."""
    before: str = ""
    """A match that must stand before it."""

    def text(self, value: int | str) -> str:
        """A value of it, as nft reads it."""
        if self.type in ("ipv4_addr", "ipv6_addr"):
            assert isinstance(value, int)
            return str(ip_address(value.to_bytes(4 if self.type == "ipv4_addr" else 16, "big")))
        if self.type == "ether_addr":
            assert isinstance(value, int)
            return value.to_bytes(6, "big").hex(":")
        return f'"{value}"' if self.type == "ifname" else str(value)

    def interval(self, one: Interval) -> str:
        low, high = one
        return self.text(low) if low == high else f"{self.text(low)}-{self.text(high)}"


FIELDS = {
    one.name: one
    for one in (
        Field("ip saddr", "ipv4_addr"),
        Field("ip daddr", "ipv4_addr"),
        Field("ip6 saddr", "ipv6_addr"),
        Field("ip6 daddr", "ipv6_addr"),
        Field("ip ttl", ""),
        Field("ip dscp", "dscp"),
        Field("ip protocol", "inet_proto"),
        Field("ip length", ""),
        Field("ip6 hoplimit", ""),
        Field("tcp dport", "inet_service"),
        Field("tcp sport", "inet_service"),
        Field("udp dport", "inet_service"),
        Field("udp sport", "inet_service"),
        Field("udp length", ""),
        Field("th dport", "inet_service", "meta l4proto { 6, 17 } "),
        Field("th sport", "inet_service", "meta l4proto { 6, 17 } "),
        Field("tcp flags", "tcp_flag"),
        Field("icmp type", "icmp_type"),
        Field("icmpv6 type", "icmpv6_type"),
        Field("icmp id", ""),
        Field("meta l4proto", "inet_proto"),
        Field("meta nfproto", "nf_proto"),
        Field("meta length", ""),
        Field("meta mark", "mark"),
        Field("iifname", "ifname"),
        Field("oifname", "ifname"),
        Field("ct mark", "mark"),
        Field("ether saddr", "ether_addr"),
        Field("ether daddr", "ether_addr"),
        Field("ether type", "ether_type"),
        Field("meta ibrname", "ifname"),
        Field("meta obrname", "ifname"),
        Field("meta pkttype", "pkt_type"),
        Field("arp operation", "arp_op"),
        Field("arp saddr ip", "ipv4_addr"),
        Field("arp daddr ip", "ipv4_addr"),
        Field("arp saddr ether", "ether_addr"),
        Field("arp daddr ether", "ether_addr"),
        Field("arp htype", ""),
        Field("arp ptype", ""),
    )
}


# --- matches ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compare:
    """``tcp dport != 22``, ``ip ttl > 10``; the operator is one of == != < > <= >=."""

    field: Field
    operator: str
    value: int | str

    def __str__(self) -> str:
        return f"{self.field.before}{self.field.name} {self.operator} {self.field.text(self.value)}"


@dataclass(frozen=True)
class Range:
    """``tcp dport 20-30``, maybe with ``!=``."""

    field: Field
    interval: Interval
    negated: bool = False

    def __str__(self) -> str:
        negation = "!= " * self.negated
        return f"{self.field.before}{self.field.name} {negation}{self.field.interval(self.interval)}"


@dataclass(frozen=True)
class Bits:
    """``tcp flags & 0x12 == 0x2``; the operator is == or !=."""

    field: Field
    mask: int
    operator: str
    value: int

    def __str__(self) -> str:
        return f"{self.field.before}{self.field.name} & {self.mask} {self.operator} {self.value}"


@dataclass(frozen=True)
class In:
    """Whether fields, one or a concatenation, are in a set: of the rule, or ``named``."""

    fields: tuple[Field, ...]
    elements: tuple[tuple[Interval, ...], ...]
    negated: bool = False
    named: str = ""

    def __str__(self) -> str:
        held = f"@{self.named}" if self.named else "{ " + ", ".join(texts(self.fields, self.elements)) + " }"
        return f"{before(self.fields)}{names(self.fields)} {'!= ' * self.negated}{held}"


@dataclass(frozen=True)
class State:
    """``ct state new,established``."""

    states: tuple[str, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"ct state {'!= ' * self.negated}{{ {', '.join(self.states)} }}"


Match = Compare | Range | Bits | In | State


def names(fields: tuple[Field, ...]) -> str:
    return " . ".join(one.name for one in fields)


def before(fields: tuple[Field, ...]) -> str:
    return "".join(dict.fromkeys(one.before for one in fields))


def texts(fields: tuple[Field, ...], elements: tuple[tuple[Interval, ...], ...]) -> list[str]:
    return [" . ".join(one.interval(part) for one, part in zip(fields, parts, strict=True)) for parts in elements]


# --- statements ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Map:
    """``tcp dport map { 22 : 1 }``, or with verdicts ``tcp dport vmap { 22 : drop }``; ``named`` if it is not in the
    rule."""

    fields: tuple[Field, ...]
    elements: tuple[tuple[tuple[Interval, ...], int | str], ...]
    named: str = ""

    def text(self, word: str) -> str:
        held = f"@{self.named}" if self.named else "{ " + ", ".join(self.pairs()) + " }"
        return f"{names(self.fields)} {word} {held}"

    def pairs(self) -> list[str]:
        keys = texts(self.fields, tuple(key for key, _ in self.elements))
        return [f"{key} : {value}" for key, (_, value) in zip(keys, self.elements, strict=True)]


@dataclass(frozen=True)
class Assign:
    """``meta mark set 3``, or by a map; of ``meta mark``, ``ct mark``, ``ip ttl``, ``ip dscp``, ``ip6 hoplimit``."""

    target: str
    value: int | str | Map

    def __str__(self) -> str:
        if isinstance(self.value, Map):
            return f"{before(self.value.fields)}{self.target} set {self.value.text('map')}"
        return f"{self.target} set {self.value}"


@dataclass(frozen=True)
class Limit:
    """``limit rate 1/day burst 3 packets``: a bucket of three tokens that, for a test, nothing fills again."""

    burst: int
    over: bool

    def __str__(self) -> str:
        return f"limit rate {'over ' * self.over}1/day burst {self.burst} packets"


@dataclass(frozen=True)
class Quota:
    """``quota until 101 bytes``."""

    bytes: int
    over: bool

    def __str__(self) -> str:
        return f"quota {'over' if self.over else 'until'} {self.bytes} bytes"


@dataclass(frozen=True)
class Every:
    """``numgen inc mod 3 1``: each third packet, the second of three."""

    modulus: int
    value: int

    def __str__(self) -> str:
        return f"numgen inc mod {self.modulus} {self.value}"


@dataclass(frozen=True)
class Change:
    """``add @seen { ip saddr }``, ``update``, ``delete``."""

    word: str
    named: str
    fields: tuple[Field, ...]

    def __str__(self) -> str:
        return f"{before(self.fields)}{self.word} @{self.named} {{ {names(self.fields)} }}"


@dataclass(frozen=True)
class NoTrack:
    def __str__(self) -> str:
        return "notrack"


Statement = Assign | Limit | Quota | Every | Change | NoTrack

# --- verdicts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """``accept``, ``drop``, ``return``, ``continue``, ``jump c``, ``goto c``."""

    word: str
    chain: str = ""

    def __str__(self) -> str:
        return f"{self.word} {self.chain}".strip()

    @classmethod
    def of(cls, text: str) -> Verdict:
        return cls(*text.split())


@dataclass(frozen=True)
class Reject:
    """``reject with …``: ``tcp reset``, ``icmp host-unreachable`` and so on; the rule matches such packets only."""

    how: str

    def __str__(self) -> str:
        return f"reject with {self.how}"


@dataclass(frozen=True)
class Nat:
    """``dnat to ADDRESS:PORT``, ``snat to ADDRESS``, ``masquerade``, ``redirect to :PORT``."""

    kind: str
    version: int
    address: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "masquerade":
            return "masquerade"
        if self.kind == "redirect":
            return f"redirect to :{self.port}"
        family = "ip6" if self.version == 6 else "ip"
        address = f"[{self.address}]" if self.version == 6 and self.port else self.address
        return f"{self.kind} {family} to {address}{f':{self.port}' * bool(self.port)}"


End = Verdict | Reject | Nat | Map

# --- the ruleset --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Matches, a counter, statements, and what ends it."""

    number: int
    matches: tuple[Match, ...] = ()
    statements: tuple[Statement, ...] = ()
    end: End | None = None

    @property
    def comment(self) -> str:
        return f"rule {self.number}"

    def __str__(self) -> str:
        end = (before(self.end.fields) + self.end.text("vmap")) if isinstance(self.end, Map) else str(self.end or "")
        # What a match before a statement needs stands before the counter, which counts what has matched.
        return " ".join([*map(str, self.matches), "counter", *map(str, self.statements), end]).strip() + (
            f' comment "{self.comment}"'
        )


@dataclass(frozen=True)
class NamedSet:
    """A set or, with ``values``, a map."""

    name: str
    fields: tuple[Field, ...]
    elements: tuple[tuple[Interval, ...], ...] = ()
    values: tuple[int | str, ...] = ()
    dynamic: bool = False

    def __str__(self) -> str:
        kinds = " . ".join(one.type for one in self.fields)
        kind = f"type {kinds}"
        pairs = texts(self.fields, self.elements)
        if self.values:
            kind += f" : {'verdict' if isinstance(self.values[0], str) else 'mark'}"
            pairs = [f"{key} : {value}" for key, value in zip(pairs, self.values, strict=True)]
        flags = "; size 1000; flags dynamic" if self.dynamic else "; flags interval" * self.has_intervals
        return f"{kind}{flags};{' elements = { ' + ', '.join(pairs) + ' };' if pairs else ''}"

    @property
    def has_intervals(self) -> bool:
        return any(low != high for key in self.elements for low, high in key)


@dataclass(frozen=True)
class Chain:
    """A chain; with a ``hook`` it is a base chain."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    kind: str = "filter"
    priority: int = 0
    policy: str = "accept"
    device: str = ""

    @property
    def head(self) -> str:
        if not self.hook:
            return ""
        device = f' device "{self.device}"' if self.device else ""
        return f"type {self.kind} hook {self.hook}{device} priority {self.priority}; policy {self.policy};"


@dataclass(frozen=True)
class Table:
    family: str
    name: str
    sets: tuple[NamedSet, ...] = ()
    chains: tuple[Chain, ...] = ()


@dataclass(frozen=True)
class Ruleset:
    tables: tuple[Table, ...] = field(default_factory=tuple)

    def rules(self) -> Iterator[tuple[Table, Chain, Rule]]:
        for table in self.tables:
            for chain in table.chains:
                for rule in chain.rules:
                    yield table, chain, rule

    @property
    def text(self) -> str:
        """As one file, in blocks."""
        lines = []
        for table in self.tables:
            lines.append(f"table {table.family} {table.name} {{")
            lines += [f"\tset {one.name} {{ {one} }}" for one in table.sets if not one.values]
            later = [f"\tmap {one.name} {{ {one} }}" for one in table.sets if one.values]
            for chain in reversed(table.chains):  # those jumped to first
                lines += [f"\tchain {chain.name} {{", *([f"\t\t{chain.head}"] if chain.head else [])]
                lines += [*(f"\t\t{rule}" for rule in chain.rules), "\t}"]
            lines += [*later, "}"]
        return "\n".join(lines) + "\n"

    @property
    def commands(self) -> list[str]:
        """As single commands, each of which could be one call of nft."""
        found = []
        for table in self.tables:
            at = f"{table.family} {table.name}"
            found.append(f"add table {at}")
            for chain in reversed(table.chains):
                found.append(f"add chain {at} {chain.name}" + (f" {{ {chain.head} }}" if chain.head else ""))
            for one in table.sets:
                found.append(f"add {'map' if one.values else 'set'} {at} {one.name} {{ {one} }}")
            for chain in reversed(table.chains):
                found += [f"add rule {at} {chain.name} {rule}" for rule in chain.rules]
        return found
