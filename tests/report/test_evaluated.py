"""What counts as met."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harness.errors import Position
from harness.model.observation import Rule, Verdict
from harness.model.result import Result
from harness.report.evaluated import covered_rules

Make = Callable[..., Result]


HTTPS = "4500002800010000400600000a0002010a0002029c4001bb000000000000000050020000"
"""The headers of a packet to port 443."""


def test_a_rule_is_met_when_it_matched_and_evaluated_when_a_later_one_did(make_result: Make) -> None:
    found = {place.position.line: place.status for place in covered_rules([make_result()])}
    assert found == {3: "never decided", 4: "evaluated, never matched", 5: "decided", 6: "never evaluated"}


def test_a_policy_says_that_every_rule_was_evaluated(make_result: Make) -> None:
    found = {place.position.line: place.status for place in covered_rules([make_result(accepted=False)])}
    assert found == {3: "decided", **dict.fromkeys((4, 5, 6), "evaluated, never matched")}


def changed_between(make_result: Make, *added: Rule) -> Result:
    """A result of two packets: a step between them has ``added`` rules at the top, and one of them accepts."""
    result = make_result()
    assert result.ruleset is not None
    ruleset = msgspec.structs.replace(result.ruleset, rules=(*added, *result.ruleset.rules))
    (first,) = result.sent
    (packet,) = first.observation.packets
    decided = msgspec.structs.replace(first.decided[0], rule=added[0])
    packet = msgspec.structs.replace(packet, steps=(decided,))
    observation = msgspec.structs.replace(first.observation, packets=(packet,))
    second = msgspec.structs.replace(
        first, action=2, observation=observation, decided=(decided,), ruleset=ruleset, verdict=Verdict.ACCEPT
    )
    return msgspec.structs.replace(result, sent=(first, second))


def added_rule(result: Result, position: Position) -> Rule:
    assert result.ruleset is not None
    return msgspec.structs.replace(result.ruleset.rules[0], handle=99, text="tcp dport 99 accept", position=position)


def test_each_packet_is_counted_for_the_ruleset_that_it_met(make_result: Make) -> None:
    added = added_rule(make_result(), Position("scenarios/rulesets/next.nft", 7))
    found = {place.position[:2]: place.status for place in covered_rules([changed_between(make_result, added)])}
    assert found["scenarios/rulesets/next.nft", 7] == "decided"
    assert [place.status for place in covered_rules([make_result()])] == [
        status for (file, _), status in found.items() if file != "scenarios/rulesets/next.nft"
    ]


def test_rules_of_steps_are_not_part_of_coverage(make_result: Make) -> None:
    added = added_rule(make_result(), Position("scenarios/edge.yaml", 9))
    places = [place.position for place in covered_rules([changed_between(make_result, added)])]
    assert places == [place.position for place in covered_rules([make_result()])]


def test_results_add_up_over_scenarios_and_kernels(make_result: Make) -> None:
    results = [make_result("one", kernel="6.1"), make_result("one", kernel="7.2"), make_result("two", accepted=False)]
    found = {place.position.line: list(place.matched) for place in covered_rules(results)}
    assert found == {3: ["two"], 4: [], 5: ["one"], 6: []}


def in_block(result: Result, number: int) -> Result:
    """``result`` with its rules in a block in braces, which the kernel gave a number."""
    text = msgspec.json.encode(result).replace(b'"chain":"forward"', b'"chain":"__chain%d"' % number)
    return msgspec.json.decode(text, type=Result)


def test_a_rule_in_a_block_is_one_however_often_the_ruleset_was_loaded(make_result: Make) -> None:
    results = [in_block(make_result("one"), 3), in_block(make_result("two", accepted=False), 17)]
    assert results[0].ruleset is not None
    assert results[0].ruleset.rules[0].chain == "__chain3"
    plain = covered_rules([make_result("one"), make_result("two", accepted=False)])
    found = covered_rules(results)
    assert [(one.position, list(one.matched)) for one in found] == [(one.position, list(one.matched)) for one in plain]
    assert [one.clauses for one in found] == [one.clauses for one in plain]
