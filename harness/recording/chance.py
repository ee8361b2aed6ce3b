"""What of a packet may be different in the next run: decided by random numbers, hashes with a random seed, the clock.

nf_tables draws random numbers for ``numgen random`` and ``meta random`` (net/netfilter/nft_numgen.c, nft_meta.c), and
a seed for ``jhash`` without one (nft_hash.c); that of ``symhash`` is the kernel's (net/core/flow_dissector.c). NAT
draws ports for ``random`` and ``fully-random``, and from a range for the source (nf_nat_core.c). A source that is
drawn, ``snat to jhash ip saddr mod 2 map { … }``, leaves open only which address a packet gets.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Final

from harness.model.observation import Rule, Step
from harness.packets.headers import fields
from harness.recording.sample import NotRecordableError, Sample

_STRING: Final = re.compile(r'"[^"]*"')
_DRAWN: Final = re.compile(
    r"\bnumgen random mod (?!1\b)\d+"
    r"|\bmeta random\b"
    r"|\bsymhash\b"
    r"|\bjhash\b(?:(?!\bmod\b).)*\bmod \d+(?! seed\b)"
    r"|\bmeta (?:time|hour|day|cpu)\b"
    r"|\bct (?:id|expiration)\b"
)
_CLOCK: Final = re.compile(r"meta (?:time|hour|day)|ct expiration")
_NAT: Final = re.compile(r"\b(?P<kind>masquerade|snat|dnat|redirect)\b(?P<rest>.*)")
_DRAWN_SOURCE: Final = re.compile(
    r"\b(?P<kind>snat|redirect|masquerade)\b(?: ip6?)?(?: addr \. port)? to :?(?P<drawn>.*\bmod (?P<mod>\d+).*)"
    r"\bmap \{(?P<elements>[^}]*)\}"
)
"""A translation that ends in the same place whichever element of its map is drawn."""
_ELEMENT: Final = re.compile(r"(?:^|, )\s*(?P<low>\d+)(?:-(?P<high>\d+))? : ")
_EFFECTS: Final = re.compile(
    r"\b(?:accept|drop|reject|queue|jump|goto|return|continue|v?map|limit|quota|ct count|meter|dnat|snat|masquerade)\b"
    r"|\b(?:redirect|tproxy|synproxy|notrack|dup|fwd|set|flow|add|update|delete|xt)\b|@"
)
"""Statements after which a packet, or what comes after it, is another; more words do no harm."""
_PORT_RANGE: Final = re.compile(r":\d+-\d+")
_PORTS: Final = re.compile(r"\b(?P<protocol>tcp|udp|sctp|dccp|udplite) (?P<field>[sd]port) (?P<value>\{[^}]*\}|\S+)")
_ADDRESS: Final = re.compile(r"\bip6? (?P<field>[sd])addr (?P<value>\{[^}]*\}|\S+)")
_ICMP: Final = re.compile(r"\b(?P<protocol>icmp|icmpv6) (?:type|code)\b")
_PROTOCOL: Final = re.compile(r"\b(?:meta l4proto|ip protocol|ip6 nexthdr) (?P<value>\{[^}]*\}|\S+)")


def decides(rules: Iterable[Rule]) -> bool:
    """Whether chance or the clock may decide by one of ``rules``, or draw a port."""
    return any(_DRAWN.search(text) or _NAT.search(text) for text in (_STRING.sub('""', rule.text) for rule in rules))


def may_refuse(rules: Iterable[Rule]) -> bool:
    """Whether :func:`refuse` may refuse what packets do there: chance or the clock may decide by one of ``rules``."""
    return any(_DRAWN.search(_STRING.sub('""', rule.text)) for rule in rules)


def matches_by(rule: Rule) -> str:
    """What decides whether ``rule`` matches, "chance" or "the time"; "" for neither."""
    text = _STRING.sub('""', rule.text)
    drawn = None if _source_is_drawn(text) else _DRAWN.search(text)
    return "" if drawn is None else "the time" if _CLOCK.match(drawn[0]) else "chance"


def refuse(seen: Sample) -> None:
    """Refuse to record what the next run may not see: raise :class:`NotRecordableError` if chance or time decides."""
    for rule in evaluated(_steps(seen), seen.rules):
        text = _STRING.sub('""', rule.text)
        if not _EFFECTS.search(text):
            continue  # it counts or logs
        if (drawn := _DRAWN.search(text)) and not (_source_is_drawn(text) or _excludes(text[: drawn.start()], seen)):
            cause = "the time" if _CLOCK.match(drawn[0]) else "chance"
            place = f" ({rule.position.file.rpartition('/')[2]}:{rule.position.line})" if rule.position else ""
            raise NotRecordableError(f"{cause} decides about the packet: {drawn[0].strip()} in {rule.text}{place}")


def random_fields(seen: Sample) -> frozenset[str]:
    """The ports and addresses that NAT has drawn for the packet: ``sport``, ``dport``, ``src``."""
    found = set()
    for step in _steps(seen):
        if step.rule and _source_is_drawn(_STRING.sub('""', step.rule.text)):
            found |= {"dport"} if "redirect" in step.rule.text else {"src", "sport"}
        nat = _NAT.search(_STRING.sub('""', step.rule.text)) if step.rule else None
        if nat is None:
            continue
        is_source = nat["kind"] in ("masquerade", "snat")
        if "random" in nat["rest"] or (is_source and _PORT_RANGE.search(nat["rest"])):
            found.add("sport" if is_source else "dport")
    return frozenset(found)


def _source_is_drawn(text: str) -> bool:
    """Whether all that chance decides in a rule is the source, or the device's own port, that a packet gets.

    Each number that may be drawn must have an element, since without one the rule does not match.
    """
    found = _DRAWN_SOURCE.search(text)
    if found is None or not _DRAWN.search(found["drawn"]) or _DRAWN.search(text[: found.start()]):
        return False
    keys: set[int] = set()
    for one in _ELEMENT.finditer(found["elements"]):
        keys.update(range(int(one["low"]), min(int(one["high"] or one["low"]), int(found["mod"])) + 1))
    return set(range(int(found["mod"]))) <= keys


def _steps(seen: Sample) -> Iterator[Step]:
    return (step for step in seen.sent.seen.steps if step.host == seen.sent.observation.device)


def evaluated(steps: Iterable[Step], rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules that a packet was compared with: of each chain in ``steps`` those up to the last that matched, or all.

    ``rules`` are in nft's order.
    """
    held: Mapping[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        held[rule.chain_path].append(rule)
    last: dict[str, int] = {}
    for step in steps:
        own = held[step.chain_path]
        handles = [rule.handle for rule in own]
        at = handles.index(step.rule.handle) if step.rule and step.rule.handle in handles else len(own) - 1
        last[step.chain_path] = max(last.get(step.chain_path, -1), at)
    for chain, at in last.items():
        yield from held[chain][: at + 1]


def _excludes(text: str, seen: Sample) -> bool:
    """Whether the matches in ``text`` are about other packets for certain; NAT leaves that open."""
    packet = fields(seen.sent.seen.frame) if seen.sent.seen.frame else {}
    if not packet or any(_NAT.search(step.rule.text) for step in _steps(seen) if step.rule):
        return False
    return excludes(text, packet)


def excludes(text: str, packet: Mapping[str, str | int]) -> bool:
    """Whether the matches in ``text`` are for certain not about a packet with the fields ``packet``, see
    :func:`harness.packets.headers.fields`."""
    for found in _PORTS.finditer(text):
        if packet.get("protocol") != found["protocol"] or _lacks(found["value"], packet.get(found["field"])):
            return True
    for found in _PROTOCOL.finditer(text):
        if _lacks(found["value"].replace("ipv6-icmp", "icmpv6"), packet.get("protocol")):
            return True
    for found in _ICMP.finditer(text):
        if packet.get("protocol") not in (found["protocol"], None):
            return True
    for found in _ADDRESS.finditer(text):
        if _is_elsewhere(found["value"], str(packet.get("src" if found["field"] == "s" else "dst", ""))):
            return True
    return False


def _lacks(value: str, own: str | int | None) -> bool:
    """Whether ``own`` is none of the numbers, ranges or names in ``value``, as nft lists them."""
    for one in value.strip("{ }").split(", "):
        low, _, high = one.partition("-")
        if low.isdecimal() and isinstance(own, int):
            if int(low) <= own <= int(high or low):
                return False
        elif not re.fullmatch(r"[a-z][a-z0-9]*", one) or one == own or isinstance(own, int):
            return False
    return True


def _is_elsewhere(value: str, own: str) -> bool:
    """Whether the address ``own`` is in none of the networks in ``value``."""
    try:
        address = ip_address(own)
        return not any(address in ip_network(one, strict=False) for one in value.strip("{ }").split(", "))
    except ValueError:
        return False
