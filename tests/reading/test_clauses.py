"""The matches of a rule, and which of them packets have shown to hold and to fail."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import msgspec
import pytest

from harness.model.observation import Rule, Step, Verdict
from harness.reading.clauses import MatchesHeld, chain_rules, clauses, holds, passes


@pytest.fixture(autouse=True)
def _computed_anew() -> None:
    """What an earlier test computed would hide a change of what computes it, as mutmut makes them."""
    clauses.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accept", ()),
        ('iifname "wan0" ip saddr @bogons drop comment "a tcp dport 1"', ("iifname wan0", "ip saddr @bogons")),
        ("ip daddr 10.0.2.2 tcp dport { 80, 443 } accept", ("ip daddr 10.0.2.2", "tcp dport { 80, 443 }")),
        ("ct state established,related accept", ("ct state established,related",)),
        ("ct state vmap { new : jump a, invalid : drop }", ("ct state vmap { new : jump a, invalid : drop }",)),
        ("tcp dport 113 reject with tcp reset", ("tcp dport 113",)),
        ("meta mark & 0x2000 == 0x2000 masquerade", ("meta mark & 0x2000 == 0x2000",)),
        ("meta mark set meta mark | 0x2000", ()),
        ("ip saddr 10.0.0.1 ip dscp set ef tcp dport 1 accept", ("ip saddr 10.0.0.1", "tcp dport 1")),
        ("fib saddr . iif oif missing drop", ("fib saddr . iif oif missing",)),
        ("fib saddr . iif oif missing tcp dport 22 drop", ("fib saddr . iif oif missing", "tcp dport 22")),
        ("fib saddr . mark . iif oif missing drop", ("fib saddr . mark . iif oif missing",)),
        ("ip saddr . ip protocol . th dport @granted accept", ("ip saddr . ip protocol . th dport @granted",)),
        ("ip protocol != tcp udp dport 3 accept", ("ip protocol != tcp", "udp dport 3")),
        ("ether type ip tcp dport 22 accept", ("ether type ip", "tcp dport 22")),
        ("udp dport 53 @th,80,8 & 0x80 == 0x80 drop", ("udp dport 53", "@th,80,8 & 0x80 == 0x80")),
        ("tcp flags syn tcp option maxseg size 1-535 drop", ("tcp flags syn", "tcp option maxseg size 1-535")),
        ('log prefix "tcp dport 22" udp dport 5 accept', ("udp dport 5",)),
        ("icmp type echo-request limit rate 5/second accept", ("icmp type echo-request", "limit rate 5/second")),
        ("meta l4proto tcp add @seen { ip saddr ct count over 2 } accept", ("meta l4proto tcp",)),
        ('ip saddr 10.0.0.1 xt match "comment" xt target "MASQUERADE"', ("ip saddr 10.0.0.1", "xt match comment")),
        ("exthdr hbh exists drop", ("exthdr hbh exists",)),
        ("dnat ip to ip saddr map { 10.0.0.1 : 10.0.0.2 }", ()),
    ],
)
def test_the_matches_of_a_rule(text: str, expected: tuple[str, ...]) -> None:
    assert clauses(text) == expected


def headers(dport: int = 22, protocol: int = 6) -> bytes:
    ends = ip_address("203.0.113.5").packed + ip_address("10.0.2.2").packed
    network = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, protocol, 0) + ends
    return network + struct.pack("!HHIIBBHHH", 40000, dport, 0, 0, 0x50, 2, 0, 0, 0)


def rule(handle: int, text: str, chain: str = "forward") -> Rule:
    return Rule(family="inet", table="fw", chain=chain, handle=handle, text=text)


def step(one: Rule | None, verdict: Verdict, *, kind: str = "rule", chain: str = "forward", sent: bytes = b"") -> Step:
    return Step(
        time=0,
        host="device",
        hook="forward",
        family="inet",
        table="fw",
        chain=one.chain if one else chain,
        kind=kind if one is None else "rule",
        verdict=verdict,
        rule=one,
        headers=sent,
        iif="wan0",
        oif="lan0",
    )


FIRST = step(None, Verdict.CONTINUE, kind="return", sent=headers())


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("tcp dport 22", True),
        ("tcp dport 23", False),
        ("tcp dport != 23", True),
        ("tcp dport { 20-30 }", True),
        ("udp dport 22", False),
        ("ip6 saddr ::1", False),
        ("ip saddr 203.0.113.0/24", True),
        ("icmp type echo-request", False),
        ("iifname wan0", True),
        ("iifname != wan0", False),
        ("ct state new", None),
        ("tcp flags syn", None),
        ("ip saddr @bogons", None),
    ],
)
def test_a_match_holds_by_what_the_trace_shows_of_the_packet(match: str, expected: bool | None) -> None:
    assert holds(match, FIRST) is expected


SIX = struct.pack("!IHBB", 6 << 28, 20, 17, 64) + bytes(32) + struct.pack("!HHHH", 40000, 53, 8, 0)


@pytest.mark.parametrize(
    ("match", "sent", "expected"),
    [
        ("ip saddr 203.0.113.5", SIX, False),
        ("ip6 saddr ::", SIX, True),
        ("ip protocol udp", SIX, False),
        ("meta l4proto udp", SIX, True),
        ("tcp dport 53", SIX, False),
        ("udp dport 53", SIX, True),
        ("ip6 saddr ::", headers(), False),
        ("tcp dport 22", headers(protocol=132), False),
        ("sctp dport 22", headers(), False),
        ("dccp dport 22", headers(), False),
        ("udplite dport 22", headers(), False),
        ("icmpv6 type echo-request", headers(), False),
        ("tcp dport 22", headers(protocol=250), False),
        ("icmp type echo-reply", headers()[:20] + bytes(8), False),  # still TCP
        ("icmp type 156", headers(protocol=1), True),
        ("icmp type echo-request", headers(protocol=1), False),
        ("th dport 22", headers(protocol=1), None),
        ("meta l4proto tcp", headers(protocol=250), None),  # 250 may have that name in /etc/protocols
        ("ip protocol { tcp, udp }", headers(protocol=250), None),
        ("tcp dport { 22, 80 }", headers(), True),
        ("tcp dport { 80, 22 }", headers(), True),
        ("tcp dport { 80, 443 }", headers(), False),
        ("tcp dport { 80, http }", headers(), None),
        ("tcp dport 22", b"", None),
        ("ip saddr 203.0.113.5", b"", None),
        ("tcp dport 22", bytes(40), None),  # neither IPv4 nor IPv6
        ("tcp dport 22", b"\x45", None),  # cut off
        ("tcp dport 22", headers()[:6] + b"\x00\x10" + headers()[8:], None),  # not the first fragment
        ("udp dport 22", headers()[:6] + b"\x00\x10" + headers()[8:], False),
        ("ip saddr 203.0.113.5", bytes(40), None),
    ],
)
def test_a_match_fails_for_a_packet_without_such_a_header(match: str, sent: bytes, expected: bool | None) -> None:
    assert holds(match, step(None, Verdict.CONTINUE, kind="return", sent=sent)) is expected


def test_an_interface_that_the_packet_does_not_have_is_not_known() -> None:
    assert holds("oifname lan0", FIRST) is True
    assert holds("oifname lan0", msgspec.structs.replace(FIRST, oif="")) is None


SSH = rule(1, "iifname wan0 tcp dport 23 accept")
STATE = rule(2, "ct state established accept")
NEW = rule(3, "ct state new ct mark 1 tcp dport 22 accept")
JUMP = rule(4, "iifname wan0 jump more")
INNER = rule(5, "udp dport 22 accept", chain="more")
RULES = chain_rules([SSH, STATE, NEW, JUMP, INNER])


def seen(*steps: Step, believed: bool = True) -> dict[int, MatchesHeld]:
    first = steps[0]
    return {one.handle: found for one, found in passes([(s, first if believed else None) for s in steps], RULES)}


def test_of_a_rule_that_did_not_match_the_first_match_that_fails_is_known() -> None:
    found = seen(step(JUMP, Verdict.JUMP, sent=headers()), step(INNER, Verdict.ACCEPT))
    assert found[1] == MatchesHeld(("iifname wan0",), "tcp dport 23")
    assert found[2] == MatchesHeld((), "ct state established"), "it has no other"
    assert found[3] == MatchesHeld((), open=("ct state new", "ct mark 1", "tcp dport 22"))
    assert found[4] == MatchesHeld(("iifname wan0",))
    assert found[5] == MatchesHeld(("udp dport 22",))


def test_a_chain_that_ends_was_evaluated_once() -> None:
    ended = (
        step(JUMP, Verdict.JUMP, sent=headers()),
        step(None, Verdict.CONTINUE, kind="return", chain="more"),
        step(None, Verdict.CONTINUE, kind="return"),
        step(None, Verdict.DROP, kind="policy"),
    )
    found = [(one.handle, what) for one, what in passes([(s, ended[0]) for s in ended], RULES)]
    assert [handle for handle, _ in found] == [1, 2, 3, 4, 5]
    assert dict(found)[4] == MatchesHeld(("iifname wan0",)), "it matched"
    assert dict(found)[5] == MatchesHeld((), "udp dport 22")


def test_a_statement_that_may_end_a_rule_leaves_open_what_its_match_did() -> None:
    counted = rule(1, "ct state new add @seen { ip saddr ct count over 2 } drop")
    ended = step(None, Verdict.CONTINUE, kind="return", sent=headers())
    ((_, found),) = passes([(ended, ended)], chain_rules([counted]))
    assert found == MatchesHeld((), open=("ct state new",))


def test_a_statement_that_ends_a_rule_whose_matches_held() -> None:
    counted = rule(1, "tcp dport 22 add @seen { ip saddr ct count over 2 } drop")
    ended = step(None, Verdict.CONTINUE, kind="return", sent=headers())
    ((_, found),) = passes([(ended, ended)], chain_rules([counted]))
    assert found == MatchesHeld(("tcp dport 22",), stopped=True)


def handles(*steps: Step) -> list[int]:
    """The rules that a packet came to, each time."""
    return [one.handle for one, _ in passes([(s, FIRST) for s in steps], RULES)]


MORE_ENDED = step(None, Verdict.CONTINUE, kind="return", chain="more")
ENDED = step(None, Verdict.CONTINUE, kind="return")
POLICY = step(None, Verdict.ACCEPT, kind="policy")


def test_rules_between_two_that_matched_did_not() -> None:
    assert handles(step(SSH, Verdict.CONTINUE), step(NEW, Verdict.CONTINUE), step(JUMP, Verdict.ACCEPT)) == [1, 2, 3, 4]


@pytest.mark.parametrize("back", [MORE_ENDED, step(INNER, Verdict.RETURN)])
def test_a_chain_that_is_left_begins_anew_the_next_time(back: Step) -> None:
    jump = step(JUMP, Verdict.JUMP)
    assert handles(jump, back, ENDED, POLICY, jump, back) == [1, 2, 3, 4, 5] * 2
    assert handles(jump, back, back) == [1, 2, 3, 4, 5, 5]


def test_after_a_verdict_that_ends_an_evaluation_chains_begin_anew() -> None:
    accepted = step(SSH, Verdict.ACCEPT)
    assert handles(accepted, accepted) == [1, 1]


@pytest.mark.parametrize("verdict", [Verdict.CONTINUE, Verdict.RETURN, Verdict.ACCEPT])
def test_a_rule_that_was_added_meanwhile_is_none_of_those_loaded(verdict: Verdict) -> None:
    added = rule(99, "counter accept")
    assert handles(step(added, verdict)) == []
    assert handles(step(SSH, Verdict.CONTINUE), step(added, Verdict.CONTINUE), step(NEW, Verdict.ACCEPT)) == [1, 2, 3]
    assert handles(step(rule(98, "accept", chain="new"), verdict), step(SSH, Verdict.ACCEPT)) == [1]
    assert handles(step(None, Verdict.ACCEPT, kind="return", chain="new"), step(SSH, Verdict.ACCEPT)) == [1]


def test_without_headers_only_the_only_match_is_known_to_fail() -> None:
    found = seen(step(JUMP, Verdict.JUMP, sent=headers()), believed=False)
    assert found[1] == MatchesHeld((), open=("iifname wan0", "tcp dport 23"))
    assert found[2].failed == "ct state established"
