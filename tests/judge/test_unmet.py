"""What is said of a rule that a scenario names and no packet met."""

from __future__ import annotations

import socket
import struct

import msgspec
import pytest

from harness.errors import Position
from harness.judge.unmet import describe_unmet, evaluations_of, is_met, named
from harness.model.observation import ObservedPacket, Rule, Step, Verdict


def rule(line: int, text: str, *, written: str = "", comment: str = "", chain: str = "forward") -> Rule:
    place = Position("office.nft", line)
    names = {"family": "inet", "table": "t", "chain": chain}
    return Rule(**names, handle=line, text=text, written=written, comment=comment, position=place)


SSH = rule(4, "tcp dport 22 accept")
GO = rule(5, "ip daddr 10.0.0.9 goto other")
WEB = rule(
    6, 'iifname "eth0" tcp dport 443 accept comment "web"', written="iifname $WAN tcp dport 443 accept", comment="web"
)
LAN = rule(7, "ip saddr { 10.0.0.0/8, 192.168.0.0/16 } accept")
ODD = rule(8, "ct mark 7 accept")
OTHER = rule(9, "counter drop", chain="other")
NONE = "no rule of the loaded ruleset reads so"
RULES = (SSH, GO, WEB, LAN, ODD, OTHER)


def packet(*rules: Rule, kind: str = "policy", verdict: Verdict = Verdict.CONTINUE) -> ObservedPacket:
    """A packet to port 8443 that met ``rules`` and then the end of the chain."""
    headers = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0)
    headers += socket.inet_aton("203.0.113.5") + socket.inet_aton("10.0.0.2")
    headers += struct.pack(">HHIIHHHH", 40000, 8443, 0, 0, 0x5002, 0, 0, 0)
    names = {"host": "device", "hook": "forward", "family": "inet", "table": "t", "chain": "forward"}
    steps = [Step(time=0, **names, kind="rule", verdict=verdict, rule=one) for one in rules]
    steps.append(Step(time=0, **names, kind=kind, verdict=Verdict.DROP))
    first = Step(
        **{name: getattr(steps[0], name) for name in steps[0].__struct_fields__} | {"headers": headers, "iif": "eth0"}
    )
    return ObservedPacket(number=0, sender="client", frame=b"", steps=(first, *steps[1:]))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("web", f"office.nft:6 did not match: tcp dport 443, the packet has 8443 (it reads: {WEB.text})"),
        (SSH.text, "office.nft:4 did not match: tcp dport 22, the packet has 8443"),
        (LAN.text, "office.nft:7 did not match: ip saddr { 10.0.0.0/8, 192.168.0.0/16 }, the packet has 203.0.113.5"),
        (ODD.text, "office.nft:8 did not match"),
        ("counter drop", "office.nft:9 was not reached"),
        ("tcp dport 443", f"a part of office.nft:6: {WEB.text}; give the whole text, its comment or file:line"),
        ("tcp dport 23 accept", f"{NONE}; the nearest is office.nft:4: tcp dport 22 accept"),
        ("something else entirely", NONE),
        ("office.nft:77", "no rule of the loaded ruleset begins on that line"),
        (77, "no rule of the loaded ruleset has the handle 77"),
        ("inet t forward policy", ""),
    ],
)  # fmt: skip
def test_what_is_said(wanted: str | int, said: str) -> None:
    assert describe_unmet(wanted, RULES, packet(), "device") == said


def test_other_hosts_say_nothing_of_a_rule_of_the_device() -> None:
    seen = packet()
    elsewhere = msgspec.structs.replace(seen.steps[0], host="edge")
    assert "did not match" in describe_unmet(
        SSH.text, RULES, msgspec.structs.replace(seen, steps=(elsewhere, *seen.steps)), "device"
    )
    only = msgspec.structs.replace(seen, steps=(elsewhere,))
    assert describe_unmet(SSH.text, RULES, only, "device") == "office.nft:4 was not reached"


def test_a_packet_may_meet_another_chain_first() -> None:
    seen = packet()
    before = msgspec.structs.replace(seen.steps[0], chain="prerouting", headers=b"", iif="")
    assert (
        describe_unmet(SSH.text, RULES, msgspec.structs.replace(seen, steps=(before, *seen.steps)), "device")
        == "office.nft:4 did not match: tcp dport 22, the packet has 8443"
    )


def test_a_rule_without_text_means_none() -> None:
    assert describe_unmet("counter", RULES, packet(), "device") == ""


def test_what_stands_behind_a_goto_was_not_reached_although_the_policy_decided() -> None:
    assert describe_unmet("web", RULES, packet(GO, verdict=Verdict.GOTO), "device").startswith(
        "office.nft:6 was not reached"
    )
    assert describe_unmet(SSH.text, RULES, packet(GO, verdict=Verdict.GOTO), "device").startswith(
        "office.nft:4 did not match"
    )


def test_what_headers_were_is_not_told_where_a_rule_changes_them() -> None:
    changing = rule(3, "tcp dport set 80", chain="other")
    assert describe_unmet(SSH.text, (*RULES, changing), packet(), "device") == "office.nft:4 did not match"


def test_of_rules_that_read_alike_the_first_three() -> None:
    alike = [rule(line, "tcp dport 22 accept") for line in range(10, 14)]
    assert describe_unmet("tcp dport 22 accept", alike, packet(), "device") == "; ".join(
        f"office.nft:{line} did not match: tcp dport 22, the packet has 8443" for line in (10, 11, 12)
    )


def test_the_headers_are_those_with_which_the_packet_came_into_the_chain() -> None:
    seen = packet()
    later = msgspec.structs.replace(seen.steps[0], headers=b"", iif="", oif="eth1")
    others = {"iif": "eth0"}, {"iif": "eth0", "oif": ""}, {"headers": b"x", "oif": ""}
    for first in (later, *(msgspec.structs.replace(later, **one) for one in others)):
        both = msgspec.structs.replace(seen, steps=(seen.steps[0], first))
        assert list(evaluations_of(SSH, RULES, both, "device")) == [seen.steps[0], first]


def test_whether_a_rule_was_met_on_the_host() -> None:
    seen = packet(LAN)
    assert is_met(LAN.text, seen, "device")
    assert not is_met(LAN.text, seen, "edge")
    assert not is_met(SSH.text, seen, "device")


def test_a_rule_that_matched_is_not_among_those_that_did_not() -> None:
    assert list(evaluations_of(LAN, RULES, packet(LAN, kind="return"), "device"))[1:] == []
    matched = packet(LAN)
    assert list(evaluations_of(LAN, RULES, msgspec.structs.replace(matched, steps=matched.steps[:1]), "device")) == []


def test_a_policy_is_no_rule_whatever_a_comment_says() -> None:
    odd = rule(10, "tcp dport 22 accept", comment="inet t forward policy")
    assert named("inet t forward policy", (odd,)) == []
    assert named("tcp dport 22 accept", (odd,)) == [odd]
