"""Strategies of hypothesis: rulesets that nft takes, and packets that come to what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import count
from typing import Any

from hypothesis import strategies as st

from tests.truth.flow import ADDRESSES, LABS, MACS, NEIGHBOURS, Flow
from tests.truth.language import (
    FIELDS,
    Assign,
    Bits,
    Chain,
    Change,
    Compare,
    End,
    Every,
    Field,
    In,
    Interval,
    Limit,
    Map,
    Match,
    NamedSet,
    Nat,
    NoTrack,
    Quota,
    Range,
    Reject,
    Rule,
    Ruleset,
    State,
    Statement,
    Table,
    Verdict,
)
from tests.truth.packets import (
    ACK,
    BROADCAST,
    ETHERTYPES,
    ICMP,
    ICMPV6,
    REPLY,
    REQUEST,
    RST,
    SYN,
    TCP,
    UDP,
    Packet,
)

OUTSIDE = {
    4: ("203.0.113.5", "198.51.100.9", "192.0.2.33"),
    6: ("2001:db8:113::5", "2001:db8:9::9", "2001:db8:33::33"),
}
"""The client's address, and others for which it is the gateway: all have a neighbour that is known."""
INSIDE = {4: ("10.0.2.2",), 6: ("2001:db8:2::2",)}
OWN = {4: ("203.0.113.1", "10.0.2.1"), 6: ("2001:db8:113::1", "2001:db8:2::1")}
PORTS = (22, 53, 80, 443, 8080)
SOURCES = (1024, 20000, 40000)
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
FOREIGN = (0x02_00_00_00_00_77, 0x02_00_00_00_00_99)
"""Ethernet addresses of nobody: in a bridge the first sends as well, now here, now there."""
ARP = -1
"""In the place of an IP version."""
FIN = 0x01
ALONE = ("", "tcp_flag", "nf_proto", "dscp", "pkt_type")
"""Types of fields that are in no set, map or concatenation. nft 1.0.6 lists ``ip dscp`` of a concatenation as
``ip dscp >> 2``, and does not read that again (docs/known-issues.md)."""
FLAGS = (SYN, ACK, SYN | ACK, FIN | ACK, RST)


def values(one: Field) -> list[Any]:
    """Values of a field that packets have, and some beside them."""
    name = one.name
    if one.type == "ether_addr":
        return [*NEIGHBOURS.values(), *MACS.values(), *FOREIGN, *((0, BROADCAST) if name == "arp daddr ether" else ())]
    if name.endswith("addr"):
        version = 6 if name.startswith("ip6") else 4
        ends = (*OUTSIDE[version], *INSIDE[version], *OWN[version])
        return [int(ip_address(address)) for address in ends]
    if name in ("arp saddr ip", "arp daddr ip"):
        return [int(ip_address(address)) for address in (*OUTSIDE[4], *INSIDE[4], *OWN[4])]
    if name in ("iifname", "oifname"):
        return ["wan0", "lan0", "wan0", "lan0", "br0"]
    if name.endswith("port"):
        return list(PORTS) if name.endswith("dport") else [*SOURCES, 1030, 20003, 40005]
    return {
        "meta l4proto": [TCP, UDP, ICMP, ICMPV6],
        "ip protocol": [TCP, UDP, ICMP],
        "ip ttl": [63, 64, 9, 10],
        "ip6 hoplimit": [63, 64, 9, 10],
        "meta mark": [0, 1, 2, 7],
        "ct mark": [0, 1, 2, 7],
        "ip dscp": [0, 10, 46],
        "tcp flags": list(FLAGS),
        "icmp type": [8, 0],
        "icmpv6 type": [128, 129],
        "icmp id": [0, 3, 7],
        "meta nfproto": [2, 10],
        "meta length": [40, 60, 68, 88],
        "ip length": [40, 48, 68],
        "udp length": [8, 28, 48],
        "ether type": list(ETHERTYPES.values()),
        "meta ibrname": ["br0", "br0", "br1"],
        "meta obrname": ["br0", "br0", "br1"],
        "meta pkttype": [0, 3],
        "arp operation": [REQUEST, REPLY],
        "arp htype": [1, 6],
        "arp ptype": [0x0800, 0x86DD],
    }[name]


def width(one: Field) -> int:
    sizes = {"ipv4_addr": 32, "ipv6_addr": 128, "inet_service": 16, "mark": 32, "ether_addr": 48, "ether_type": 16}
    return sizes.get(one.type, 16 if one.name.endswith(("length", "id")) else 8)


@st.composite
def intervals(draw: Any, one: Field) -> Interval:
    value = draw(st.sampled_from(values(one)))
    if isinstance(value, str) or one.type in ("inet_proto", "arp_op", *ALONE):
        return value, value
    low, high = (draw(st.sampled_from((0, 0, 1, 5, 300))) for _ in range(2))
    return max(0, value - low), min((1 << width(one)) - 1, value + high)


@st.composite
def keys(draw: Any, fields: tuple[Field, ...], *, ranges: bool) -> tuple[tuple[Interval, ...], ...]:
    """Keys of a set of these fields, of which no two overlap."""
    found: list[tuple[Interval, ...]] = []
    for _ in range(draw(st.integers(1, 4))):
        parts = []
        for one in fields:
            value = draw(st.sampled_from(values(one)))
            part = draw(intervals(one)) if ranges else (value, value)
            parts.append(part)
        if all(any(_apart(a, b) for a, b in zip(key, parts, strict=True)) for key in found):
            found.append(tuple(parts))
    return tuple(found)


def _apart(a: Interval, b: Interval) -> bool:
    if isinstance(a[0], str):
        return a != b
    return a[1] < b[0] or b[1] < a[0]  # type: ignore[operator]


@dataclass(frozen=True)
class Place:
    """Where a rule stands, which says what it may hold."""

    family: str
    hooks: frozenset[str]
    kind: str
    with_nat: bool
    chains: tuple[str, ...]
    """Those it may jump to."""
    sets: tuple[NamedSet, ...]
    modules: bool
    """Whether the kernel has nft_meta_bridge and nft_reject_bridge."""

    @property
    def is_link(self) -> bool:
        return self.family in ("netdev", "bridge", "arp")


@dataclass(frozen=True)
class Kind:
    """What packets a rule is about: nft refuses fields of two protocols in one rule."""

    version: int
    """0 for any."""
    proto: int

    def has(self, one: Field, place: Place) -> bool:
        name = one.name
        kind = name.split()[0]
        if kind in ("ip", "ip6"):
            version = 6 if kind == "ip6" else 4
            if self.version != version or (place.family, version) in (("ip", 6), ("ip6", 4)):
                return False
            return name != "ip protocol" or not self.proto
        if kind == "arp":
            return self.version == ARP
        if kind == "ether":
            return place.family in ("netdev", "bridge") and (name != "ether type" or not (self.version or self.proto))
        if name in ("meta ibrname", "meta obrname", "meta pkttype"):
            return place.family == "bridge" and (place.modules or name == "meta pkttype")
        if kind in ("tcp", "udp"):
            return self.proto == (TCP if kind == "tcp" else UDP)
        if kind == "th":
            return self.proto == -1
        if kind == "icmp":
            return self.proto == ICMP and self.version == 4
        if kind == "icmpv6":
            return self.proto == ICMPV6 and self.version == 6
        if name == "meta l4proto":
            return not self.proto and self.version != ARP
        if name == "meta nfproto":
            return not self.version and place.family == "inet"
        if name == "ct mark":
            return _may_track(place)
        return name != "oifname" or place.hooks != {"ingress"}


def _may_track(place: Place) -> bool:
    return not place.is_link and not place.hooks & {"output", "postrouting"}


@st.composite
def kinds(draw: Any, family: str) -> Kind:
    versions = (0, 4, 6, ARP) if family in ("netdev", "bridge") else (0, 4, 6)
    version = {"ip": 4, "ip6": 6, "arp": ARP}.get(family) or draw(st.sampled_from(versions))
    if version == ARP:
        return Kind(ARP, 0)
    protos = [0, TCP, UDP, -1] + [ICMP] * (version == 4) + [ICMPV6] * (version == 6)
    return Kind(version, draw(st.sampled_from(protos)))


@st.composite
def matches(draw: Any, place: Place, kind: Kind) -> Match:
    if _may_track(place) and draw(st.integers(0, 9)) == 0:
        states = draw(
            st.lists(st.sampled_from(("new", "established", "untracked", "invalid")), min_size=1, unique=True)
        )
        return State(tuple(states), draw(st.booleans()))
    known = [one for one in FIELDS.values() if kind.has(one, place)]
    usable = [one for one in place.sets if not one.values and all(field in known for field in one.fields)]
    if usable and draw(st.integers(0, 2)) == 0:
        held = draw(st.sampled_from(usable))
        return In(held.fields, held.elements, draw(st.booleans()), held.name)
    one = draw(st.sampled_from(known))
    how = draw(st.sampled_from(("compare", "range", "in", "concatenation", "bits")))
    if how == "bits" and one.name in ("tcp flags", "meta mark", "ct mark"):
        mask = draw(st.sampled_from((SYN, SYN | ACK, ACK | RST, 3, 6)))
        return Bits(one, mask, draw(st.sampled_from(("==", "!="))), draw(st.sampled_from((SYN, ACK, 0, 2))) & mask)
    if how == "concatenation":
        typed = [field for field in known if field.type not in ALONE]
        fields = (
            tuple(draw(st.lists(st.sampled_from(typed), min_size=2, max_size=3, unique=True))) if len(typed) > 1 else ()
        )
        if len(fields) > 1:
            ranges = not any(field.type == "ifname" for field in fields) and draw(st.booleans())
            return In(fields, draw(keys(fields, ranges=ranges)), draw(st.booleans()))
    # nft takes a set of one value of flags for a test of these bits (docs/known-issues.md).
    if how == "in" and one.name != "tcp flags":
        return In((one,), draw(keys((one,), ranges=draw(st.booleans()))), draw(st.booleans()))
    if how == "range" and (found := draw(intervals(one)))[0] != found[1]:
        return Range(one, found, draw(st.booleans()))
    value = draw(st.sampled_from(values(one)))
    orders = (
        ("==", "!=")
        if isinstance(value, str) or one.type in ("tcp_flag", "dscp", "nf_proto")
        else ("==", "!=", "<", ">", "<=", ">=")
    )
    operator = draw(st.sampled_from(orders))
    if operator in ("<", ">=") and value == 0:
        operator = "=="  # nft refuses what is always or never so
    return Compare(one, operator, value)


@st.composite
def maps(draw: Any, place: Place, kind: Kind, outcomes: Sequence[Any], named: str) -> Map | None:
    """A map to some of ``outcomes``; for ``named``, ``mark`` or ``verdict``, maybe a set of the table."""
    own = [one for one in place.sets if one.values and isinstance(one.values[0], str) == (named == "verdict")]
    usable = [one for one in own if all(kind.has(field, place) for field in one.fields)]
    if usable and draw(st.booleans()):
        held = draw(st.sampled_from(usable))
        return Map(held.fields, tuple(zip(held.elements, held.values, strict=True)), held.name)
    typed = [one for one in FIELDS.values() if kind.has(one, place) and one.type not in (*ALONE, "ifname")]
    if not typed:
        return None
    fields = tuple(draw(st.lists(st.sampled_from(typed), min_size=1, max_size=2, unique=True)))
    found = draw(keys(fields, ranges=draw(st.booleans())))
    return Map(fields, tuple((key, draw(st.sampled_from(outcomes))) for key in found))


@st.composite
def statements(draw: Any, place: Place, kind: Kind) -> Statement | None:
    what = draw(st.sampled_from(("mark", "map", "limit", "quota", "every", "change", "notrack", "ct", "ttl", "dscp")))
    if what == "mark":
        return Assign("meta mark", draw(st.sampled_from((1, 2, 7))))
    if what == "map" and (found := draw(maps(place, kind, (1, 2, 7), "mark"))):
        return Assign("meta mark", found)
    if what == "limit":
        return Limit(draw(st.integers(1, 5)), draw(st.booleans()))
    if what == "quota":
        return Quota(draw(st.sampled_from((41, 101, 333, 1001))), draw(st.booleans()))
    if what == "every":
        modulus = draw(st.integers(2, 4))
        return Every(modulus, draw(st.integers(0, modulus - 1)))
    dynamic = [one for one in place.sets if one.dynamic and all(kind.has(field, place) for field in one.fields)]
    if what == "change" and dynamic:
        held = draw(st.sampled_from(dynamic))
        return Change(draw(st.sampled_from(("add", "update", "delete"))), held.name, held.fields)
    if what == "notrack" and place.hooks <= {"prerouting", "output"} and not place.with_nat and place.hooks:
        return NoTrack()
    if what == "ct" and _may_track(place):
        return Assign("ct mark", draw(st.sampled_from((1, 2, 7))))
    if what == "ttl" and kind.version in (4, 6) and not place.is_link:
        return Assign("ip ttl" if kind.version == 4 else "ip6 hoplimit", draw(st.sampled_from((9, 10, 33))))
    if what == "dscp" and kind.version == 4 and not place.is_link:
        return Assign("ip dscp", draw(st.sampled_from((0, 10, 46))))
    return None


REJECTS = {
    4: (
        "icmp port-unreachable",
        "icmp host-unreachable",
        "icmp net-unreachable",
        "icmp prot-unreachable",
        "icmp admin-prohibited",
    ),
    6: ("icmpv6 port-unreachable", "icmpv6 no-route", "icmpv6 admin-prohibited", "icmpv6 addr-unreachable"),
    0: ("icmpx port-unreachable", "icmpx no-route", "icmpx admin-prohibited", "icmpx host-unreachable"),
}


@st.composite
def ends(draw: Any, place: Place, kind: Kind) -> End | None:
    outcomes = ["accept", "drop", "return", "continue"]
    outcomes += [f"{word} {chain}" for chain in place.chains for word in ("jump", "goto")]
    what = draw(st.sampled_from(("none", "verdict", "verdict", "jump", "vmap", "reject")))
    if what == "jump" and place.chains:
        return Verdict(draw(st.sampled_from(("jump", "jump", "goto"))), draw(st.sampled_from(place.chains)))
    if what == "vmap" and (found := draw(maps(place, kind, outcomes, "verdict"))):
        return found
    if what == "reject" and _may_reject(place, kind):
        if kind.proto == TCP and draw(st.booleans()):
            return Reject("tcp reset")
        of_both = place.family in ("inet", "bridge")
        known = REJECTS[0] if of_both else ()
        if kind.version:
            known = (*known, *REJECTS[kind.version])
        return Reject(draw(st.sampled_from(known))) if known else None
    if what == "none":
        return None
    return Verdict(draw(st.sampled_from(("accept", "drop", "return", "continue"))))


def _may_reject(place: Place, kind: Kind) -> bool:
    """Whether the kernel takes it there (nft_reject_bridge_validate() in net/bridge/netfilter/nft_reject_bridge.c)."""
    if place.family == "bridge":
        hooks = {"prerouting", "input"} if place.modules and kind.version != ARP else set()
    else:
        hooks = set() if place.is_link else {"prerouting", "input", "forward"}
    return bool(place.hooks) and place.hooks <= hooks and not place.with_nat


@st.composite
def rules(draw: Any, place: Place, numbers: Any) -> Rule:
    kind = draw(kinds(place.family))
    if place.kind == "nat":
        return draw(nat_rules(place, kind, numbers))
    found = [draw(matches(place, kind)) for _ in range(draw(st.integers(0, 3)))]
    more = [draw(statements(place, kind)) for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 2))))]
    end = draw(ends(place, kind))
    if isinstance(end, Reject):
        found = [*_about(end, place), *found]
    return Rule(next(numbers), tuple(_clear(found)), tuple(one for one in more if one), end)


def _clear(found: list[Match]) -> list[Match]:
    """``found`` without what nft 1.0.6 makes something else of (docs/known-issues.md)."""
    kept: list[Match] = []
    for one in found:
        if kept and _orders(one) and _orders(kept[-1]):
            continue
        if _differs(one) and any(map(_differs, kept)):
            continue
        kept.append(one)
    return kept


def _differs(match: Match) -> bool:
    """Whether nft 1.0.6 may merge it with another into one comparison of both fields."""
    return isinstance(match, Compare) and match.operator == "!=" and match.field.name.split()[0] not in ("meta", "ct")


def _orders(match: Match) -> bool:
    """Whether nft 1.0.6 may list it and its neighbour as one range (docs/known-issues.md)."""
    return isinstance(match, Range) or (isinstance(match, Compare) and match.operator not in ("==", "!="))


def _about(end: Reject, place: Place) -> list[Match]:
    """Matches of what can be rejected so: nft adds them in front of the rule where they are not there."""
    if end.how == "tcp reset":
        return [Compare(FIELDS["meta l4proto"], "==", TCP)]
    if place.family == "bridge" and not end.how.startswith("icmpx"):
        return [Compare(FIELDS["ether type"], "==", ETHERTYPES[6 if end.how.startswith("icmpv6") else 4])]
    if place.family == "inet" and not end.how.startswith("icmpx"):
        return [Compare(FIELDS["meta nfproto"], "==", 10 if end.how.startswith("icmpv6") else 2)]
    return []


@st.composite
def nat_rules(draw: Any, place: Place, kind: Kind, numbers: Any) -> Rule:
    """A rule of a NAT chain, about TCP or UDP of one IP version."""
    version = kind.version or draw(st.sampled_from((4, 6)))
    proto = draw(st.sampled_from((TCP, UDP)))
    about = Kind(version, proto)
    found = [draw(matches(place, about)) for _ in range(draw(st.integers(0, 2)))]
    found = [Compare(FIELDS["tcp dport" if proto == TCP else "udp dport"], "!=", 1), *found]
    if place.family == "inet":
        found.insert(0, Compare(FIELDS["meta nfproto"], "==", 10 if version == 6 else 2))
    hook = next(iter(place.hooks))
    if draw(st.integers(0, 3)) == 0:
        end: End = Verdict("accept")
    elif hook == "postrouting":
        outside = ADDRESSES["wan0"][version == 6]
        end = draw(st.sampled_from((Nat("masquerade", version), Nat("snat", version, outside))))
    elif hook == "prerouting" and proto == TCP and draw(st.booleans()):
        end = Nat("redirect", version, port=draw(st.sampled_from(PORTS)))
    else:  # not back to where it came from: the router would tell the sender so (RFC 1812, 5.2.7.2)
        end = Nat("dnat", version, INSIDE[version][0], draw(st.sampled_from((0, *PORTS))))
        found.append(Compare(FIELDS["iifname"], "==", "wan0"))
    found = _clear(found)
    return Rule(next(numbers), tuple(found), (), end)


@st.composite
def sets(draw: Any, family: str, *, modules: bool) -> tuple[NamedSet, ...]:
    place = Place(family, frozenset(), "filter", False, (), (), modules)
    found = []
    for number in range(draw(st.integers(0, 3))):
        kind = draw(kinds(family))
        typed = [one for one in FIELDS.values() if kind.has(one, place) and one.type not in ALONE]
        typed = [one for one in typed if one.name not in ("ct mark", "oifname")]
        fields = tuple(draw(st.lists(st.sampled_from(typed), min_size=1, max_size=2, unique=True)))
        if draw(st.booleans()):
            found.append(NamedSet(f"s{number}", fields, dynamic=True))
            continue
        ranges = not any(field.type == "ifname" for field in fields) and draw(st.booleans())
        held = draw(keys(fields, ranges=ranges))
        outcomes = draw(st.sampled_from(((), (), (1, 2, 7), ("accept", "drop", "return", "continue"))))
        chosen = tuple(draw(st.sampled_from(outcomes)) for _ in held) if outcomes else ()
        found.append(NamedSet(f"s{number}", fields, held, chosen))
    return tuple(found)


FAMILIES = {
    "router": ("ip", "ip6", "inet", "inet", "inet", "netdev", "netdev", "arp"),
    "bridge": ("bridge", "bridge", "bridge", "bridge", "inet", "netdev", "arp"),
}
FEWER_HOOKS = {"netdev": ("ingress", "egress"), "arp": ("input", "output")}
DEVICES = {"router": ("wan0", "wan0", "lan0"), "bridge": ("wan0", "lan0", "br0")}


@st.composite
def tables(
    draw: Any, number: int, numbers: Any, taken: set[tuple[str, int]], lab: str, *, with_nat: bool, modules: bool
) -> Table:
    family = draw(st.sampled_from(FAMILIES[lab]))
    if family in FEWER_HOOKS:
        hooks = draw(st.lists(st.sampled_from(FEWER_HOOKS[family]), min_size=1, unique=True))
        bases = [(hook, "filter") for hook in hooks]
    else:
        hooks = draw(st.lists(st.sampled_from(HOOKS), min_size=1, max_size=3, unique=True))
        bases = [(hook, "filter") for hook in hooks]
        if with_nat and family in ("ip", "inet", "ip6"):
            bases += [("prerouting", "nat"), ("postrouting", "nat")]
    held = draw(sets(family, modules=modules))
    jumped = tuple(f"c{place}" for place in range(draw(st.integers(0, 2))))
    filtering = frozenset(hook for hook, kind in bases if kind == "filter")
    chains: list[Chain] = []
    for place, (hook, kind) in enumerate(bases):
        at = Place(family, frozenset({hook}), kind, with_nat, jumped if kind == "filter" else (), held, modules)
        priority = {"prerouting": -100, "postrouting": 100}[hook] if kind == "nat" else draw(priorities(hook, taken))
        own = tuple(draw(st.lists(rules(at, numbers), min_size=1, max_size=4 if kind == "filter" else 2)))
        policy = draw(st.sampled_from(("accept", "accept", "drop"))) if kind == "filter" else "accept"
        device = draw(st.sampled_from(DEVICES[lab])) if family == "netdev" else ""
        chains.append(Chain(f"b{place}", own, hook, kind, priority, policy, device))
    for place, name in enumerate(jumped):
        at = Place(family, filtering, "filter", with_nat, jumped[place + 1 :], held, modules)
        chains.append(Chain(name, tuple(draw(st.lists(rules(at, numbers), min_size=1, max_size=3)))))
    return Table(family, f"t{number}", held, tuple(chains))


@st.composite
def priorities(draw: Any, hook: str, taken: set[tuple[str, int]]) -> int:
    """One that no other chain of the hook has: which of two comes first is not specified."""
    first = draw(st.sampled_from((-310, -150, -50, 1, 50, 150)))
    found = next(one for one in count(first) if (hook, one) not in taken)
    taken.add((hook, found))
    return found


@st.composite
def frames(draw: Any, number: int, before: Sequence[Packet], lab: str) -> Packet:
    """A packet or an ARP message from the client or the server, in its frame; or a packet of the device's own."""
    is_arp = draw(st.sampled_from((False,) * 6 + (True,)))
    one = draw(messages()) if is_arp else draw(packets(number, before))
    if not one.iif:
        return one
    far = {"wan0": "lan0", "lan0": "wan0"}[one.iif]
    smac = NEIGHBOURS[one.iif]
    if lab == "router":
        dmac = MACS[one.iif]
        if is_arp and one.arp == REQUEST:
            dmac = draw(st.sampled_from((dmac, BROADCAST)))
    else:
        smac = draw(st.sampled_from((smac, smac, smac, FOREIGN[0])))
        dmac = MACS["br0"] if one.dst in (*OWN[4], *OWN[6]) else NEIGHBOURS[far]
        dmac = draw(st.sampled_from((dmac,) * 6 + (NEIGHBOURS[far], *FOREIGN, NEIGHBOURS[one.iif])))
    return replace(one, smac=smac, dmac=dmac, target=dmac if one.arp == REPLY else 0)


@st.composite
def messages(draw: Any) -> Packet:
    """An ARP message from the client or the server."""
    iif = draw(st.sampled_from(("wan0", "wan0", "lan0")))
    src = draw(st.sampled_from(OUTSIDE[4])) if iif == "wan0" else INSIDE[4][0]
    dst = draw(st.sampled_from((*OWN[4], *OWN[4], *(INSIDE[4] if iif == "wan0" else OUTSIDE[4]))))
    return Packet(src, dst, 0, arp=draw(st.sampled_from((REQUEST, REQUEST, REPLY))), iif=iif)


@st.composite
def packets(draw: Any, number: int, before: Sequence[Packet]) -> Packet:
    """A packet from the client, the server or the router; or the answer of the server to one before."""
    asked = [one for one in before if one.proto == UDP and one.iif == "wan0" and one.dst in (*INSIDE[4], *INSIDE[6])]
    if asked and draw(st.integers(0, 4)) == 0:
        one = draw(st.sampled_from(asked))
        return replace(one, src=one.dst, dst=one.src, sport=one.dport, dport=one.sport, iif="lan0")
    version = draw(st.sampled_from((4, 4, 6)))
    iif = draw(st.sampled_from(("wan0", "wan0", "wan0", "lan0", "")))
    if iif == "wan0":
        src, dst = draw(st.sampled_from(OUTSIDE[version])), draw(st.sampled_from((*INSIDE[version], *OWN[version])))
    elif iif:
        src, dst = INSIDE[version][0], draw(st.sampled_from((*OUTSIDE[version], *OWN[version])))
    else:
        dst = draw(st.sampled_from((*OUTSIDE[version], *INSIDE[version])))
        src = ADDRESSES["lan0" if dst in INSIDE[version] else "wan0"][version == 6]
    proto = draw(st.sampled_from((TCP, TCP, UDP, ICMPV6 if version == 6 else ICMP)))
    common = {"payload": 2 * draw(st.integers(0, 20)), "ttl": draw(st.sampled_from((64, 64, 10, 255))), "iif": iif}
    common["dscp"] = draw(st.sampled_from((0, 0, 10, 46)))
    if proto in (TCP, UDP):
        sport = draw(st.sampled_from(SOURCES)) + number
        flags = draw(st.sampled_from((SYN, SYN, *FLAGS))) if proto == TCP else SYN
        return Packet(src, dst, proto, sport, draw(st.sampled_from(PORTS)), flags, **common)
    return Packet(src, dst, proto, type=128 if version == 6 else 8, id=number, **common)


LOADS = ("file", "commands", "steps", "listing", "json")


@st.composite
def flows(draw: Any, labs: Sequence[str] = LABS, *, modules: bool = True) -> Flow:
    """A ruleset and packets for it; without ``modules``, it does not need nft_meta_bridge and nft_reject_bridge."""
    lab = draw(st.sampled_from(labs))
    numbers = count(1)
    taken: set[tuple[str, int]] = set()
    with_nat = lab == "router" and draw(st.sampled_from((False, False, True)))
    found = [
        draw(tables(number, numbers, taken, lab, with_nat=with_nat and number == 0, modules=modules))
        for number in range(draw(st.integers(1, 3)))
    ]
    if with_nat:  # rejects of other tables would be of connections with NAT
        found = [_without_rejects(one) for one in found]
    sent: list[Packet] = []
    for number in range(draw(st.integers(8, 28))):
        sent.append(draw(frames(number, sent, lab)))
    # nft 1.0.6 reads no JSON of a chain for an interface, not even its own (docs/known-issues.md).
    ways = [one for one in LOADS if one != "json" or all(table.family != "netdev" for table in found)]
    return Flow(Ruleset(tuple(found)), tuple(sent), draw(st.sampled_from(ways)), lab)


def _without_rejects(table: Table) -> Table:
    def changed(rule: Rule) -> Rule:
        return replace(rule, end=Verdict("drop")) if isinstance(rule.end, Reject) else rule

    chains = tuple(replace(chain, rules=tuple(map(changed, chain.rules))) for chain in table.chains)
    return replace(table, chains=chains)
