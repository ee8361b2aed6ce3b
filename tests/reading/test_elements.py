"""Which elements of sets and maps a packet met: only what is proved."""

from __future__ import annotations

import socket
import struct

import pytest

from harness.model.observation import Rule, Step, Verdict
from harness.reading.elements import candidates, changes_headers, lookups

SETS = {"inet t blocked": ("10.0.0.0/8", "192.0.2.1-192.0.2.9"), "inet t ports": ("25 : drop", "80 : jump web")}


def rule(text: str) -> Rule:
    return Rule(family="inet", table="t", chain="c", handle=1, text=text)


def headers(source: str = "203.0.113.5", dport: int = 443, proto: int = 6) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("10.0.2.2")
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, proto, 0) + addresses
    return ip + struct.pack(">HHIIHHHH", 40000, dport, 0, 0, 0x5002, 0, 0, 0)


def step(verdict: Verdict = Verdict.ACCEPT, target: str = "", packet: bytes = b"", iif: str = "") -> Step:
    names = {"host": "device", "hook": "forward", "family": "inet", "table": "t", "chain": "c"}
    return Step(time=0, **names, kind="rule", verdict=verdict, target=target, headers=packet, iif=iif)


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
        # nothing to tell, or not to be told
        ("tcp dport != { 22, 80 } accept", headers(), []),
        ("tcp dport 443 accept", headers(), []),
        ("ip saddr @elsewhere drop", headers(), []),
        ('log prefix "tcp dport { 22, 443 }" accept', headers(), []),
        ("ct state { established, related } accept", headers(), [["established", "related"]]),
        ("ip saddr @blocked drop", headers("198.51.100.1"), [[]]),
        ("tcp dport { 22, http } accept", headers(), [["http"]]),
        ("tcp dport { 22, http, https } accept", headers(), [["http", "https"]]),
    ],
)
def test_headers_tell_the_element(text: str, packet: bytes, met: list[list[str]]) -> None:
    assert fit(text, step(packet=packet, iif="lan1")) == met


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
