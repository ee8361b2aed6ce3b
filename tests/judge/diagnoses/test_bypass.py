"""Packets that a flowtable forwarded past all chains."""

from __future__ import annotations

import pytest

from harness.judge.diagnoses import bypass
from harness.judge.expectations import judge
from harness.model import layers
from harness.model.observation import ObservedPacket
from harness.scenario.models.expect import Expect
from tests.builders import advice, at, changed, complaints, hop, observation, place, rule, step

OFFLOADED = changed(
    steps=(),
    hops=(hop("netif_receive_skb", "Device"), hop("nf_flow_offload_ip_hook"), hop("__dev_queue_xmit", device="lan0")),
)
RULE = rule("meta l4proto { tcp, udp } flow add @ft", line=4)
WANTED = {"verdict": "accept", "rule": "service"}
SAID = (
    "no chain behind ingress saw the packet: the flowtable ft forwarded it, because its flow had been offloaded by "
    "rulesets/edge.nft:4; what must see "
    "each packet of such a flow belongs at hook ingress, or before the flow is offloaded"
)


def test_the_flowtable_and_the_rule_are_named() -> None:
    assert advice(WANTED, OFFLOADED, rules=(RULE,)) == [SAID]


def test_several_that_may_have_offloaded_it() -> None:
    other = rule("tcp dport 443 flow add @fast", line=6, handle=6)
    (said,) = advice(WANTED, OFFLOADED, rules=(RULE, other))
    assert "a flowtable forwarded it" in said
    assert "by rulesets/edge.nft:4 or rulesets/edge.nft:6" in said


@pytest.mark.parametrize(
    "packet",
    [
        changed(OFFLOADED, hops=(*OFFLOADED.hops[:2], hop("ip_rcv"), OFFLOADED.hops[2])),  # it went on by itself
        changed(OFFLOADED, hops=OFFLOADED.hops[:2]),
        changed(OFFLOADED, hops=OFFLOADED.hops[::2]),  # no flowtable was asked
        changed(OFFLOADED, steps=(step("accept"),)),
    ],
)
def test_near_misses(packet: ObservedPacket) -> None:
    assert not [line for line in advice(WANTED, packet, rules=(RULE,)) if "flowtable" in line]


def test_what_no_chain_saw_can_be_expected() -> None:
    expect = Expect(verdict="undecided", delivered="server")
    assert judge(expect, observation(OFFLOADED), OFFLOADED, at=place) == ()
    assert complaints({"verdict": "undecided"}) == ["expect.verdict: undecided / accept"]
    assert complaints({"verdict": "accept"}, OFFLOADED) == [
        "expect.verdict: accept / undecided / no base chain of the ruleset saw it"
    ]


def test_what_other_hosts_and_chains_at_ingress_saw_does_not_matter() -> None:
    at_ingress = step("accept", chain="netdev i in", hook="ingress")
    elsewhere = at(step("accept"), host="server")
    assert advice(WANTED, changed(OFFLOADED, steps=(at_ingress, elsewhere)), rules=(RULE,)) == [SAID]


def test_three_rules_are_named_at_the_most_and_none_where_none_is_known() -> None:
    several = [rule(f"tcp dport {number} flow add @ft", line=number, handle=number) for number in range(1, 6)]
    (said,) = advice(WANTED, OFFLOADED, rules=tuple(several))
    assert "by rulesets/edge.nft:1 or rulesets/edge.nft:2 or rulesets/edge.nft:3; what" in said
    (said,) = advice(WANTED, OFFLOADED)
    assert "a flowtable forwarded it, because its flow had been offloaded; what" in said


def test_its_functions_are_traced_where_only_critical_ones_are() -> None:
    """By kprobes, as on Linux 6.1."""
    names = bypass._LOOKUPS | bypass._RECEIVED
    assert {name for name in names if layers.priority(name) != layers.CRITICAL} == set()
