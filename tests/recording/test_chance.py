"""What the next run may see otherwise is not recorded."""

from __future__ import annotations

import pytest

from harness.model.observation import Loss, Observation, ObservedPacket, Rule, Step, Verdict
from harness.model.result import PacketResult
from harness.recording import chance
from harness.recording.sample import NotRecordableError, Sample

TCP_80 = bytes.fromhex(
    "020000020001020000010001080045000028000100004006f97bcb007105cb0071019c400050000003e8000000005002faf000000000"
)
"""A frame from 203.0.113.5:40000 to 203.0.113.1:80."""


def sample(*texts: str, met: tuple[int, ...] = (), ended: bool = True) -> Sample:
    """A packet that met the rules ``met`` of a chain of ``texts``, and its policy if it ``ended`` there."""
    rules = tuple(
        Rule(family="ip", table="t", chain="c", handle=handle, text=text) for handle, text in enumerate(texts)
    )
    steps = [
        Step(
            time=0,
            host="device",
            hook="input",
            family="ip",
            table="t",
            chain="c",
            kind="rule" if rule else "policy",
            verdict=Verdict.ACCEPT,
            rule=rule,
        )
        for rule in [*(rules[handle] for handle in met), *([None] if ended else [])]
    ]
    packet = ObservedPacket(number=0, sender="client", frame=TCP_80, steps=tuple(steps))
    observation = Observation(packets=(packet,), loss=Loss(), kernel="6.12.1", engine="", device="device")
    sent = PacketResult(action=0, summary="", packet=0, observation=observation)
    return Sample(sent=sent, rules=rules, where="here")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("numgen random mod 2 0 accept", "chance decides"),
        ("tcp dport 80 numgen random mod 3 vmap { 0 : jump a, 1 : jump b }", "chance decides"),
        ("jhash ip saddr . tcp dport mod 2 vmap { 0 : accept, 1 : drop }", "chance decides"),
        ("symhash mod 2 0 accept", "chance decides"),
        ("dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }", "chance decides"),
        ("meta mark set jhash ip saddr mod 4", "chance decides"),
        ("snat to jhash ip saddr mod 3 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }", "chance decides"),
        ("numgen random mod 2 0 snat to jhash ip saddr mod 1 map { 0 : 10.0.0.1 }", "chance decides"),
        ("snat to jhash ip saddr mod 2 map @addresses", "chance decides"),
        ('meta hour "08:00"-"17:00" accept', "the time decides"),
        ('ip saddr 203.0.113.0/24 meta day "Monday" drop', "the time decides"),
    ],
)
def test_a_rule_that_draws_is_not_recorded(text: str, cause: str) -> None:
    for seen in (sample(text, met=(0,), ended=False), sample(text)):
        with pytest.raises(NotRecordableError, match=cause):
            chance.refuse(seen)


@pytest.mark.parametrize(
    "text",
    [
        "numgen inc mod 2 0 accept",
        "numgen random mod 1 vmap { 0 : goto a }",
        "jhash ip saddr mod 2 seed 0x1 vmap { 0 : accept, 1 : drop }",
        'accept comment "numgen random mod 2"',
        "tcp dport 443 numgen random mod 2 0 drop",
        "udp dport 80 numgen random mod 2 0 drop",
        "tcp dport { 22, 8000-9000 } numgen random mod 2 0 drop",
        'ip daddr 10.0.0.0/8 meta hour "08:00"-"17:00" accept',
        "meta l4proto { udp, icmp } numgen random mod 2 0 drop",
        "ip saddr 203.0.113.0/24 snat to jhash ip saddr . tcp sport mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
        "snat ip to symhash mod 5 map { 0-3 : 10.0.0.1, 4 : 10.0.0.2 }",
        "redirect to :numgen random mod 2 map { 0 : 80, 1 : 81 }",
    ],
)
def test_what_draws_nothing_for_the_packet_is_recorded(text: str) -> None:
    chance.refuse(sample(text))


def test_rules_behind_the_one_that_decided_do_not_matter() -> None:
    chance.refuse(sample("tcp dport 80 accept", "numgen random mod 2 0 drop", met=(0,), ended=False))
    with pytest.raises(NotRecordableError):
        chance.refuse(sample("tcp dport 80 counter", "numgen random mod 2 0 drop", met=(0,)))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("masquerade", set()),
        ("masquerade random", {"sport"}),
        ("snat to 192.0.2.1 fully-random", {"sport"}),
        ("ip protocol tcp masquerade to :20000-20100", {"sport"}),
        ("dnat to 10.0.0.1:80", set()),
        ("dnat to 10.0.0.1-10.0.0.9 random", {"dport"}),
        ("redirect to :1000-2000 random", {"dport"}),
        ("redirect to :numgen random mod 2 map { 0 : 80, 1 : 81 }", {"dport"}),
        ("snat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }", {"src", "sport"}),
        ("snat to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }", set()),
        ('masquerade comment "not random"', set()),
    ],
)
def test_ports_and_addresses_that_nat_draws(text: str, fields: set[str]) -> None:
    assert chance.random_fields(sample(text, met=(0,))) == fields
