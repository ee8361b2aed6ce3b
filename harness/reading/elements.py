"""Which elements of sets and maps packets met, as far as that can be proved.

The kernel reports that a rule matched, not by which element of its set. Two things narrow that down: a verdict
map gives the verdict of the element found, and the packet's headers, which nf_tables' trace shows
where a base chain begins, are in one element or another. What these leave open stays open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from harness.model.observation import Rule, Step, Value
from harness.packets import icmp
from harness.packets.headers import fields, framed
from harness.reading.rules import bare

MOST = 100
"""The most elements of a set; those of larger sets are not distinguished."""

_PORTS = r"(?:tcp|udp|sctp|dccp|udplite|th) (?:[sd]port)"
_KEY = rf"(?:ip6? [sd]addr|{_PORTS}|meta l4proto|ip protocol|icmp type|icmpv6 type|[io]if(?:name)?)"
OTHERS = (
    r"(?P<others>ct (?:original|reply) |ipsec (?:in|out) (?:spnum \d+ )?|fib (?:\S+ \. )*\S+ "
    r"|(?<!if )(?<!ifname )(?<!!= )(?:vxlan|geneve|gre|gretap) )?"
)
"""What stands before a field that is not the packet's own: of a connection, of IPsec's or a tunnel's packet, of a
route."""
_LOOKUP = re.compile(
    rf"{OTHERS}(?P<key>{_KEY}(?: \. {_KEY})*|ct state|[^\s{{}}:]+(?: [^\s{{}}:]+)?)(?P<not> !=)?(?P<map> v?map)? "
    r"(?:\{ (?P<elements>[^{}]*) \}|@(?P<name>[A-Za-z][\w./-]*))"
)
_MATCH = re.compile(
    rf"(?<![^\s])(?<! \. ){OTHERS}(?P<key>{_KEY})(?! (?:set|\.|v?map|/|&|\|))(?P<not> !=)? "
    r"(?:\{ (?P<elements>[^{}]*) \}|(?P<value>[\w:.][^\s{}@]*))(?= |$)"
)
_PROTOCOLS = ("meta l4proto", "ip protocol")
_NUMBERS = {"icmp type": icmp.TYPES, "icmpv6 type": icmp.TYPES_V6}
_CHANGES_HEADERS = re.compile(r"(?:\b(?:[sd]addr|[sd]port|protocol|nexthdr|type)|@\w+,\d+,\d+) set\b")
_AFTERWARDS = re.compile(r"\s+(?:timeout|expires|counter|comment|limit)\s.*")


class Lookup(Value, frozen=True, kw_only=True):
    """A set or map that a rule looks into."""

    key: str
    """What is looked up, e.g. ``ip saddr . tcp dport``."""
    is_verdict_map: bool
    elements: tuple[tuple[str, str], ...]
    """Key and value of each; a set's have no value."""
    is_named: bool
    """Whether it could be changed while the scenario ran."""


def lookups(rule: Rule, sets: Mapping[str, Sequence[str]]) -> Iterator[Lookup]:
    """Yield those sets and maps that ``rule`` looks into and whose elements can be distinguished.

    ``sets`` holds what named ones hold, by family, table and name.
    """
    for found in _LOOKUP.finditer(plain(rule.text)):
        if found["not"]:
            continue
        if found["name"]:
            held: Sequence[str] = sets.get(f"{rule.family} {rule.table} {found['name']}", ())
        else:
            held = found["elements"].split(", ")
        elements = tuple(_element(one) for one in held)
        if 1 < len(elements) <= MOST:
            yield Lookup(
                key=f"{found['others'] or ''}{found['key']}",
                is_verdict_map=found["map"] == " vmap",
                elements=elements,
                is_named=bool(found["name"]),
            )


def header_match(text: str) -> tuple[str, bool, list[str]] | None:
    """A match on a header or interface as its key, whether it is negated, and the values; None for another one."""
    found = _MATCH.fullmatch(text)
    if found is None or found["others"]:
        return None
    values = [_element(one)[0] for one in (found["elements"] or found["value"]).split(", ")]
    return found["key"], bool(found["not"]), values


def matches_elements(key: str, value: str | int, elements: Sequence[str]) -> list[bool | None]:
    """Whether each of ``elements`` has the packet's ``value`` for ``key``; None where that is not known."""
    if key in _PROTOCOLS and str(value).isdecimal():
        return [None] * len(elements)
    return [_holds(one, [value], [_NUMBERS.get(key, {})]) for one in elements]


def plain(text: str) -> str:
    """A rule without comment and log prefix, and its other strings, names of interfaces, without quotes."""
    return re.sub(r'\b(?:comment|prefix) "[^"]*"', "", text).replace('"', "")


def _element(text: str) -> tuple[str, str]:
    key, _, value = text.replace('"', "").partition(" : ")
    # nft calls the protocol by the name that it has in /etc/protocols.
    return _AFTERWARDS.sub("", key).strip().replace("ipv6-icmp", "icmpv6"), value.strip()


def difference(rule: Rule, first: Step) -> str:
    """Return the field in which the packet differs from what ``rule`` matches; "" where that is not certain.

    ``first`` is the step that has the packet's headers, as the rule saw them.
    """
    for found, value, answers in _matches(plain(rule.text), first):
        if found["key"] in _PROTOCOLS and str(value).isdecimal():
            continue
        if True in answers if found["not"] else all(answer is False for answer in answers):
            return f"{found[0]}, the packet has {value}"
    return ""


def _matches(text: str, first: Step) -> Iterator[tuple[re.Match[str], str | int, list[bool | None]]]:
    """Each match on a header whose value is known: the packet's value, and whether each of the elements has it."""
    for found in _MATCH.finditer(text):
        if not found["others"] and (value := packet_value(found["key"], first)) is not None:
            held = [_element(one)[0] for one in (found["elements"] or found["value"]).split(", ")]
            yield found, value, [_holds(one, [value], [_NUMBERS.get(found["key"], {})]) for one in held]


_ASIDE = re.compile(
    r"(?<!\S)(?:counter(?: name \S+)?(?: packets \d+ bytes \d+)?|log(?: (?:prefix|level|flags|group|snaplen) \S+)*"
    r"|(?:meta|ct) mark set \S+|accept|drop|continue|return|reject(?: with [\w -]+)?|(?:jump|goto) \S+|notrack"
    r"|masquerade|(?:dnat|snat)(?: ip6?)? to \S+|redirect(?: to \S+)?)(?!\S)"
)
"""Statements that a packet passes whatever it is."""


def without_what_holds(rule: Rule, first: Step) -> str | None:
    """Return the text of ``rule`` without the matches on headers that hold for the packet, and without statements that
    always match; None when one certainly does not hold.

    ``first`` is the step that has the packet's headers, as the rule saw them.
    """
    if difference(rule, first):
        return None
    text = plain(rule.text)
    for found, _, answers in _matches(text, first):
        if all(answer is False for answer in answers) if found["not"] else True in answers:
            text = text.replace(found[0], "", 1)
    return " ".join(_ASIDE.sub("", text).split())


def key_of(key: str, first: Step) -> str:
    """Return what the packet has for ``key``, such as ``ip saddr . tcp dport``; "" when that is not known."""
    values = [packet_value(part, first) for part in key.split(" . ")]
    return "" if None in values else " . ".join(map(str, values))


def changes_headers(rules: Iterable[Rule]) -> bool:
    """Whether any rule writes into a header that is looked at here, so that it may be another than where the chain
    began."""
    return any(_CHANGES_HEADERS.search(bare(rule.text)) for rule in rules)


def candidates(lookup: Lookup, step: Step, first: Step | None) -> list[str]:
    """Return the keys of the elements by which the rule of ``step`` may have matched; one alone was it.

    ``first`` is the step that has the packet's headers; None when they are not to be believed.
    """
    keys = lookup.key.split(" . ")
    values = [packet_value(part, first) for part in keys]
    numbers = [_NUMBERS.get(part, {}) for part in keys]
    verdict = f"{step.verdict} {step.target}".strip()
    possible: list[str] = []
    certain: list[str] = []
    for key, value in lookup.elements:
        if lookup.is_verdict_map and value != verdict:
            continue
        held = _holds(key, values, numbers)
        if held is not False:
            possible.append(key)
        if held:
            certain.append(key)
    if "*" in possible and certain:
        possible.remove("*")  # it is for what no other element has
    if lookup.is_named and possible != certain:
        return [*possible, ""]  # or one that came while the scenario ran
    return possible


def packet_value(key: str, first: Step | None) -> str | int | None:
    """What the packet has for ``key``, such as ``tcp dport``; None when that is not known."""
    if first is None:
        return None
    kind, _, what = key.rpartition(" ")
    if what in ("iifname", "iif", "oifname", "oif"):
        return (first.iif if what.startswith("i") else first.oif) or None
    if not first.headers:
        return None
    version = first.headers[0] >> 4
    found = fields(framed(first.headers)) if version in (4, 6) else {}
    match what:
        case "saddr" | "daddr" if kind == {4: "ip", 6: "ip6"}.get(version):
            return found.get("src" if what == "saddr" else "dst")
        case "sport" | "dport" if kind in ("th", found.get("protocol")):
            return found.get(what)
        case "l4proto":
            return found.get("protocol")
        case "protocol" if kind == "ip" and version == 4:
            return found.get("protocol")
        case "type" if kind == found.get("protocol"):
            return found.get("type")
    return None


def _holds(element: str, values: Sequence[str | int | None], numbers: Sequence[Mapping[str, int]]) -> bool | None:
    """Whether ``element`` has all of ``values``; None when that is not known. ``numbers`` are those of names in it."""
    if element == "*":
        return None
    parts = element.split(" . ")
    if len(parts) != len(values):
        return None
    answers = [
        _has(str(names.get(part, part)), value) for part, value, names in zip(parts, values, numbers, strict=True)
    ]
    return False if False in answers else None if None in answers else True


def _has(part: str, value: str | int | None) -> bool | None:
    if value is None:
        return None
    if part == str(value):
        return True
    low, dash, high = part.partition("-")
    if isinstance(value, int):
        if dash and low.isdecimal() and high.isdecimal():
            return int(low) <= value <= int(high)
        return False if part.isdecimal() else None
    try:
        address = ip_address(value)
    except ValueError:
        if part.endswith("*"):
            return value.startswith(part[:-1])
        return False if re.fullmatch(r"[\w.-]+", part) and not part.isdecimal() else None
    try:
        if dash:
            first, last = ip_address(low), ip_address(high)
            return first.version == address.version and int(first) <= int(address) <= int(last)
        return address in ip_network(part)
    except ValueError:
        return None
