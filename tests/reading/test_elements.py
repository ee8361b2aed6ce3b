"""Which elements of sets and maps a packet met: only what is proved."""

from __future__ import annotations

import socket
import struct

import pytest

from harness.model.observation import Rule, Step, Verdict
from harness.reading.elements import (
    candidates,
    changes_headers,
    difference,
    header_match,
    key_of,
    lookups,
    without_what_holds,
)

SETS = {
    "inet t names": ("192.0.2.5 timeout 1m expires 3s", "192.0.2.9 counter packets 1 bytes 40"),
    "inet t blocked": ("10.0.0.0/8", "192.0.2.1-192.0.2.9"),
    "inet t ports": ("25 : drop", "80 : jump web"),
}


def rule(text: str) -> Rule:
    return Rule(family="inet", table="t", chain="c", handle=1, text=text)


def headers(source: str = "203.0.113.5", dport: int = 443, proto: int = 6) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("10.0.2.2")
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, proto, 0) + addresses
    return ip + struct.pack(">HHIIHHHH", 40000, dport, 0, 0, 0x5002, 0, 0, 0)


HEADERS_V6 = (
    struct.pack(">IHBB", 6 << 28, 8, 58, 64)
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "fe80::2")
    + bytes([128, 0])
    + bytes(6)
)


def step(
    verdict: Verdict = Verdict.ACCEPT, target: str = "", packet: bytes = b"", iif: str = "", oif: str = ""
) -> Step:
    names = {"host": "device", "hook": "forward", "family": "inet", "table": "t", "chain": "c"}
    return Step(time=0, **names, kind="rule", verdict=verdict, target=target, headers=packet, iif=iif, oif=oif)


def fit(text: str, seen: Step, *, first: bool = True) -> list[list[str]]:
    return [candidates(lookup, seen, seen if first else None) for lookup in lookups(rule(text), SETS)]


@pytest.mark.parametrize(
    ("text", "packet", "met"),
    [
        ("tcp dport { 22, 443 } accept", headers(), [["443"]]),
        ("tcp dport { 22, 400-500 } accept", headers(), [["400-500"]]),
        ("udp dport { 22, 443 } accept", headers(proto=17), [["443"]]),
        ("th dport { 22, 443 } accept", headers(proto=17), [["443"]]),
        ("ip saddr { 10.0.0.0/8, 203.0.113.0/24 } accept", headers(), [["203.0.113.0/24"]]),
        ("ip saddr . tcp dport { 203.0.113.5 . 22, 203.0.113.5 . 443 } accept", headers(), [["203.0.113.5 . 443"]]),
        ("meta l4proto { tcp, udp } th dport { 53, 443 } accept", headers(), [["tcp"], ["443"]]),
        ("meta l4proto { icmp, ipv6-icmp } accept", headers(proto=1), [["icmp"]]),
        ("icmp type { echo-request, 148 } accept", headers(proto=1), [[]]),
        ("icmp type { 156, echo-request } accept", headers(proto=1), [["156"]]),
        ('iifname { "wan0", "lan*" } accept', headers(), [["lan*"]]),
        ("ip saddr @blocked drop", headers("10.1.2.3"), [["10.0.0.0/8"]]),
        ("ip saddr @blocked drop", headers("192.0.2.5"), [["192.0.2.1-192.0.2.9"]]),
        ("tcp dport map { 443 : 10.0.0.1, 80 : 10.0.0.2 }", headers(), [["443"]]),
        ("tcp dport { 22, 443-500 } accept", headers(), [["443-500"]]),
        ("tcp dport { 22, 400-443 } accept", headers(), [["400-443"]]),
        ("ip daddr { 10.0.2.0/24, 10.0.3.0/24 } accept", headers(), [["10.0.2.0/24"]]),
        ("ip saddr { 203.0.113.5-203.0.113.9, 10.0.0.0/8 } accept", headers(), [["203.0.113.5-203.0.113.9"]]),
        ("ip saddr { 203.0.113.1-203.0.113.5, 10.0.0.0/8 } accept", headers(), [["203.0.113.1-203.0.113.5"]]),
        ("ip6 saddr { 2001:db8::/32, fe80::/10 } accept", HEADERS_V6, [["2001:db8::/32"]]),
        ("ip6 daddr { 2001:db8::/32, fe80::/10 } accept", HEADERS_V6, [["fe80::/10"]]),
        ("ip saddr { 10.0.0.0/8, 203.0.113.0/24 } accept", HEADERS_V6, [["10.0.0.0/8", "203.0.113.0/24"]]),
        ("meta l4proto { tcp, ipv6-icmp } accept", HEADERS_V6, [["icmpv6"]]),
        ('oifname { "wan0", "lan0" } accept', headers(), [["wan0"]]),
        ('iif { "wan0", "lan1" } accept', headers(), [["lan1"]]),
        ('oif { "wan0", "lan0" } accept', headers(), [["wan0"]]),
        ('iifname . tcp dport { "lan1" . 22, "lan1" . 443 } accept', headers(), [["lan1 . 443"]]),
        ("ip saddr @names drop", headers("192.0.2.5"), [["192.0.2.5"]]),
        # nothing to tell, or not to be reported
        ("tcp dport != { 22, 80 } accept", headers(), []),
        ("tcp dport 443 accept", headers(), []),
        ("ip saddr @elsewhere drop", headers(), []),
        ('log prefix "tcp dport { 22, 443 }" accept', headers(), []),
        ("ct state { established, related } accept", headers(), [["established", "related"]]),
        ("ip saddr @blocked drop", headers("198.51.100.1"), [[]]),
        ("tcp dport { 22, http } accept", headers(), [["http"]]),
        ("tcp dport { 22, http, https } accept", headers(), [["http", "https"]]),
        ("tcp dport { 22, http-alt } accept", headers(), [["http-alt"]]),
        ("tcp dport { 22, x11-1, 7-fold } accept", headers(), [["x11-1", "7-fold"]]),
        ('iifname { "wan0", "lax*" } accept', headers(), [[]]),
        ("meta l4proto { 6, udp } accept", headers(), [["6"]]),
        ("tcp dport { 22, 443 } accept", bytes(28), [["22", "443"]]),  # neither IPv4 nor IPv6
    ],
)
def test_headers_tell_the_element(text: str, packet: bytes, met: list[list[str]]) -> None:
    assert fit(text, step(packet=packet, iif="lan1", oif="wan0")) == met


def test_without_headers_nothing_is_told_but_by_the_verdict() -> None:
    assert fit("tcp dport { 22, 443 } accept", step(), first=False) == [["22", "443"]]
    by_state = "ct state vmap { established : accept, related : accept, invalid : drop }"
    assert fit(by_state, step(Verdict.DROP), first=False) == [["invalid"]]
    assert fit(by_state, step(Verdict.ACCEPT), first=False) == [["established", "related"]]
    assert fit("tcp dport vmap { 22 : jump a, 80 : jump b, * : drop }", step(Verdict.JUMP, "b"), first=False) == [
        ["80"]
    ]


def test_a_named_map_may_have_changed_meanwhile() -> None:
    assert fit("tcp dport vmap @ports", step(Verdict.DROP), first=False) == [["25", ""]]
    assert fit("tcp dport vmap @ports", step(Verdict.DROP, packet=headers(dport=25))) == [["25"]]


def test_the_catch_all_is_for_what_no_other_has() -> None:
    text = "tcp dport vmap { 443 : accept, * : accept }"
    assert fit(text, step(packet=headers())) == [["443"]]
    assert fit(text, step(packet=headers(dport=5))) == [["*"]]


def test_a_ruleset_that_writes_into_packets_is_known() -> None:
    assert changes_headers([rule("ip saddr set 10.0.0.1"), rule("accept")])
    assert changes_headers([rule("@th,0,16 set 22")])
    assert changes_headers([rule("tcp dport 80 tcp dport set 8080")])
    assert not changes_headers(
        [
            rule("meta mark set 1"),
            rule("ip dscp set cs1"),
            rule("tcp option maxseg size set 1360"),
            rule("ct mark set meta mark"),
            rule('comment "ip ttl set 1"'),
        ]
    )


@pytest.mark.parametrize(
    "others",
    [
        "ct original ip saddr",
        "ct reply ip daddr",
        "ipsec in ip saddr",
        "ipsec out spnum 1 ip daddr",
        "vxlan ip saddr",
        "geneve ip saddr",
        "gre ip daddr",
        "gretap ip daddr",
    ],
)
def test_headers_that_are_not_the_packets_own_are_not_known(others: str) -> None:
    seen = step(packet=headers(), iif="vxlan")
    assert difference(rule(f"{others} 192.0.2.1 drop"), seen) == ""
    assert difference(rule(f"{others} 192.0.2.1 tcp dport 22 drop"), seen) == "tcp dport 22, the packet has 443"
    assert header_match(f"{others} 192.0.2.1") is None
    assert without_what_holds(rule(f"{others} 203.0.113.5 drop"), seen) == f"{others} 203.0.113.5"
    both = ["203.0.113.5", "192.0.2.1"]
    assert fit(f"{others} {{ {', '.join(both)} }} tcp dport {{ 22, 443 }} drop", seen) == [both, ["443"]]


@pytest.mark.parametrize("match", ["fib saddr . iif oif missing", "fib daddr . mark . iif oifname eth5"])
def test_the_interface_of_a_route_is_not_the_packets(match: str) -> None:
    seen = step(packet=headers(), iif="wan0", oif="lan0")
    assert difference(rule(f"{match} drop"), seen) == ""
    assert difference(rule(f"{match} tcp dport 22 drop"), seen) == "tcp dport 22, the packet has 443"
    assert fit("fib daddr type { local, broadcast } drop", seen) == [["local", "broadcast"]]


def test_an_interface_may_be_called_as_a_tunnel() -> None:
    seen = step(packet=headers(), iif="vxlan", oif="gre")
    for match in ("iifname vxlan", "iif vxlan", "oifname gre", "iifname != geneve"):
        assert difference(rule(f"{match} tcp dport 22 drop"), seen) == "tcp dport 22, the packet has 443"
        assert fit(f"{match} tcp dport {{ 22, 443 }} drop", seen) == [["443"]]


def test_the_protocol_field_of_ipv4_is_not_that_of_other_packets() -> None:
    seen = step(packet=HEADERS_V6)
    assert key_of("ip protocol", seen) == ""
    assert key_of("meta l4proto", seen) == "icmpv6"
    assert fit("ip protocol { icmpv6, tcp } accept", seen) == [["icmpv6", "tcp"]]
    assert fit("meta protocol { ip, ip6 } accept", step(packet=headers())) == [["ip", "ip6"]]


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("tcp dport 443 accept", ""),
        ("tcp dport 22 accept", "tcp dport 22, the packet has 443"),
        ("tcp dport != 443 accept", "tcp dport != 443, the packet has 443"),
        ("tcp dport != { 22, 443 } accept", "tcp dport != { 22, 443 }, the packet has 443"),
        ("tcp dport != { 22, 80 } accept", ""),
        ("tcp dport { 22, 80 } accept", "tcp dport { 22, 80 }, the packet has 443"),
        ("tcp dport { 22, 400-500 } accept", ""),
        ("tcp dport 444-500 accept", "tcp dport 444-500, the packet has 443"),
        ("tcp dport ssh accept", ""),  # a name that may be any number
        ("ip6 saddr fe80::1 tcp dport 22 accept", "tcp dport 22, the packet has 443"),  # the first is not known of it
        ("ip saddr 10.0.0.0/8 tcp dport 443", "ip saddr 10.0.0.0/8, the packet has 203.0.113.5"),
        ('iifname "wan*" accept', "iifname wan*, the packet has lan1"),
        ('iifname "lan*" accept', ""),
        ('iifname "lan" accept', "iifname lan, the packet has lan1"),
    ],
)
def test_what_differs(text: str, reported: str) -> None:
    assert difference(rule(text), step(packet=headers(), iif="lan1")) == reported


def test_a_protocol_by_number_is_not_told() -> None:
    unknown = step(packet=headers(proto=254))
    assert difference(rule("meta l4proto tcp accept"), unknown) == ""
    assert difference(rule("meta l4proto udp accept"), step(packet=headers())) == "meta l4proto udp, the packet has tcp"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("tcp dport 443 accept", ""),
        ("tcp dport 22 accept", None),
        ("tcp dport { 22, 443 } ct state new accept", "ct state new"),
        ("tcp dport != 22 accept", ""),
        ("tcp dport != { 22, 80 } accept", ""),
        ("tcp dport != { 22, http } accept", "tcp dport != { 22, http }"),  # which may be 443
        ("ip6 saddr fe80::1 tcp dport 443 accept", "ip6 saddr fe80::1"),
        ("icmp type echo-request accept", "icmp type echo-request"),
        ("tcp dport 443 tcp dport 443 accept", ""),
        ("ip saddr 203.0.113.5 ct original ip saddr 203.0.113.5", "ct original ip saddr 203.0.113.5"),
        ('iifname "lan1" ip saddr 203.0.113.0/24 accept', ""),
    ],
)
def test_what_is_left_of_a_rule_without_what_holds(text: str, left: str | None) -> None:
    assert without_what_holds(rule(text), step(packet=headers(), iif="lan1")) == left


def test_the_key_of_a_packet() -> None:
    seen = step(packet=headers(), iif="lan1")
    assert key_of("ip saddr . tcp dport", seen) == "203.0.113.5 . 443"
    assert key_of("ip saddr . ct mark", seen) == ""


def test_a_protocol_that_may_be_another_number_hides_no_later_difference() -> None:
    unknown = step(packet=headers(proto=254))
    text = "meta l4proto tcp ip saddr 10.0.0.0/8 accept"
    assert difference(rule(text), unknown) == "ip saddr 10.0.0.0/8, the packet has 203.0.113.5"


def test_sets_of_which_no_element_is_to_be_found_out() -> None:
    many = ", ".join(map(str, range(1, 101)))
    assert fit("tcp dport { 443 } accept", step(packet=headers())) == []
    assert len(list(lookups(rule(f"tcp dport {{ {many} }} accept"), {}))) == 1
    assert list(lookups(rule(f"tcp dport {{ {many}, 101 }} accept"), {})) == []


def test_a_lookup_behind_one_that_is_negated() -> None:
    assert fit("tcp dport != { 22, 80 } ip saddr { 203.0.113.5, 10.0.0.1 }", step(packet=headers())) == [
        ["203.0.113.5"]
    ]


def test_names_in_quotes_and_the_catch_all_of_a_named_map() -> None:
    sets = {"inet t ways": ('"lan0" : accept', "* : accept")}
    (lookup,) = lookups(rule("iifname vmap @ways"), sets)
    assert candidates(lookup, step(iif="wan0", packet=headers()), step(iif="wan0", packet=headers())) == ["*", ""]
    assert candidates(lookup, step(iif="lan0", packet=headers()), step(iif="lan0", packet=headers())) == ["lan0"]


def test_keys_that_a_packet_has() -> None:
    seen = step(packet=headers())
    assert key_of("tcp sport . th dport", seen) == "40000 . 443"
    assert key_of("udp sport", seen) == ""
    assert key_of("ip protocol . meta l4proto", seen) == "tcp . tcp"
    assert key_of("meta l4proto", step(packet=bytes(28))) == "", "neither IPv4 nor IPv6"


def test_comments_and_prefixes_are_no_part_of_what_is_left() -> None:
    text = 'tcp dport 443 log prefix "tcp dport 22" ct state new comment "ip saddr 10.0.0.1" accept'
    assert without_what_holds(rule(text), step(packet=headers())) == "ct state new"


def test_types_of_icmp_by_name() -> None:
    assert difference(rule("icmpv6 type echo-request accept"), step(packet=HEADERS_V6)) == ""
    assert difference(rule("icmpv6 type { echo-reply, nd-router-advert } accept"), step(packet=HEADERS_V6)) == (
        "icmpv6 type { echo-reply, nd-router-advert }, the packet has 128"
    )
