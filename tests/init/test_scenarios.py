"""Which measured packets become scenarios, and what these expect."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harness.generate.targets import Target
from harness.init.scenarios import MeasuredPackets, blocks, drafts
from harness.model.observation import Place
from harness.model.result import Result

Make = Callable[..., Result]
CHAIN = ("inet", "edge", "forward")
HTTPS, POLICY = (*CHAIN, 4), (*CHAIN, 0)


def measured(make_result: Make, *accepted: bool) -> MeasuredPackets:
    """One packet after the other, each accepted by the rule for HTTPS or dropped by the policy."""
    results = [make_result(accepted=one) for one in accepted]
    assert results[0].ruleset is not None
    sent = []
    for number, result in enumerate(results):
        (one,) = result.sent
        sent.append(msgspec.structs.replace(one, action=number))
    sends = tuple({"from": "client", "to": "server", "tcp": {"dport": 443 if one else 23}} for one in accepted)
    return MeasuredPackets(sends, tuple(sent), results[0].ruleset.rules, "6.12")


def target(key: Place, title: str) -> Target:
    return Target(key, title, title, "")


def test_a_packet_is_for_what_it_met(make_result: Make) -> None:
    one = measured(make_result, True)
    assert one.met == {HTTPS: 0}
    assert measured(make_result, False).met == {POLICY: 0}
    assert one.missed().endswith("met tcp dport 443 accept")


def test_each_target_gets_the_scenario_of_a_packet_that_met_it(make_result: Make) -> None:
    packets = [measured(make_result, True), measured(make_result, False)]
    targets = [target(HTTPS, "HTTPS"), target(POLICY, "the policy"), target((*CHAIN, 9), "nobody")]
    reasons: dict[Place, str] = {}
    found = drafts(targets, packets, {HTTPS: [0], POLICY: [0]}, reasons)
    assert {key: draft.name for key, draft in found.items()} == {HTTPS: "HTTPS", POLICY: "the policy"}
    assert found[HTTPS].expected[0]["rule"] == "tcp dport 443 accept"
    assert found[POLICY].expected[0]["verdict"] == "drop"
    assert reasons == {}


def test_a_packet_that_sets_the_stage_is_expected_to_come_through_and_no_more(make_result: Make) -> None:
    one = measured(make_result, True, False)
    assert [len(start.sends) for start in one.beginnings] == [1]
    found = drafts([target(POLICY, "the policy")], [one], {POLICY: [0]}, {})
    assert found[POLICY].expected[0] == {"verdict": "accept", "delivered": "server"}
    assert found[POLICY].expected[1]["verdict"] == "drop"


def test_the_beginning_of_several_packets_serves_what_it_meets(make_result: Make) -> None:
    found = drafts([target(HTTPS, "HTTPS")], [measured(make_result, True, False)], {}, {})
    assert len(found[HTTPS].sends) == 1


def test_a_rule_that_matches_by_chance_has_no_scenario_but_a_reason(make_result: Make) -> None:
    one = measured(make_result, True)
    drawn = [
        msgspec.structs.replace(rule, text="numgen random mod 2 0 accept") if rule.place == HTTPS else rule
        for rule in one.rules
    ]
    reasons: dict[Place, str] = {}
    assert drafts([target(HTTPS, "HTTPS")], [one._replace(rules=tuple(drawn))], {HTTPS: [0]}, reasons) == {}
    assert reasons == {HTTPS: "chance decides whether it matches"}


def test_chains_of_blocks_are_called_otherwise_each_time(make_result: Make) -> None:
    one = measured(make_result, True)
    rules = tuple(msgspec.structs.replace(rule, chain="__chain17") for rule in one.rules)
    (sent,) = one.sent
    (packet,) = sent.observation.packets
    steps = tuple(msgspec.structs.replace(step, chain="__chain17") for step in packet.steps)
    packet = msgspec.structs.replace(packet, steps=steps)
    observation = msgspec.structs.replace(sent.observation, packets=(packet,))
    sent = msgspec.structs.replace(sent, observation=observation)
    block = ("inet", "edge", "__chain9", 4)
    names = blocks([target(block, "HTTPS"), target(POLICY, "the policy")], rules)
    assert names == {"__chain17": "__chain9"}
    assert one._replace(sent=(sent,), rules=rules, blocks=names).met == {block: 0}
    assert blocks([target(POLICY, "the policy")], rules) == {}


def test_blocks_are_in_the_order_of_their_numbers(make_result: Make) -> None:
    rules = [
        msgspec.structs.replace(measured(make_result, True).rules[0], chain=f"__chain{one}") for one in (100, 99, 8)
    ]
    targets = [target((*CHAIN[:2], name, 4), name) for name in ("__chain1", "__chain20", "__chain3")]
    assert blocks(targets, rules) == {"__chain8": "__chain1", "__chain99": "__chain3", "__chain100": "__chain20"}
