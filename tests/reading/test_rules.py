"""Which rule a scenario means, and what a rule says of conntrack's state."""

from __future__ import annotations

import pytest

from harness.errors import Position
from harness.model.observation import Step, Verdict
from harness.reading.rules import conntrack_states, is_rule, is_rule_on, names, untracking
from tests.builders import at, changed, rule, step

POLICY = step("drop")
RULE = step("drop", rule("tcp dport 22 drop", line=18, handle=9, comment="no  ssh"))


@pytest.mark.parametrize(
    ("wanted", "one", "is_it"),
    [
        ("policy", POLICY, True),
        ("inet filter forward policy", POLICY, True),
        ("inet filter  forward policy", POLICY, True),
        ("inet filter input policy", POLICY, False),
        ("POLICY", POLICY, False),
        ("policy", RULE, False),
        (9, RULE, True),
        (8, RULE, False),
        (9, POLICY, False),
        ("edge.nft:18", RULE, True),
        ("edge.nft:19", RULE, False),
        ("no ssh", RULE, True),
        ("tcp dport 22 counter drop", RULE, True),
    ],
)
def test_a_rule_is_meant_by_handle_policy_place_comment_or_text(wanted: str | int, one: Step, is_it: bool) -> None:
    assert is_rule(wanted, one) is is_it


def test_a_file_whose_name_has_a_colon() -> None:
    one = at(RULE.rule, position=Position("rulesets/a:b.nft", 5))
    assert names("a:b.nft:5", one)
    assert not names("b.nft:5", one)


def test_a_rule_of_another_host() -> None:
    log = rule('log prefix "edge: " drop')
    there = at(step("drop", log), host="edge")
    assert is_rule_on(f"edge: {log.text}", there, "device")
    assert is_rule_on("edge: 9", there, "device")
    assert not is_rule_on(log.text, there, "device")
    assert not is_rule_on(f"edge: {log.text}", at(there, host="device"), "device")


@pytest.mark.parametrize(
    ("text", "verdict", "target", "states"),
    [
        ("ct state invalid drop", "drop", "", {"invalid"}),
        ("ct state invalid,untracked drop", "drop", "", {"invalid", "untracked"}),
        ("ct state { invalid, untracked } drop", "drop", "", {"invalid", "untracked"}),
        ("ct state != invalid drop", "drop", "", set()),
        ("ct state vmap { invalid : jump bad, new : jump fresh }", "jump", "bad", {"invalid"}),
        ("ct state vmap { invalid : drop, untracked : drop, new : accept }", "drop", "", {"invalid", "untracked"}),
        ("tcp dport 22 drop", "drop", "", set()),
    ],
)
def test_the_states_in_one_of_which_a_packet_is(text: str, verdict: str, target: str, states: set[str]) -> None:
    assert conntrack_states(step(verdict, rule(text), target=target)) == states


def test_a_policy_says_nothing_of_the_state() -> None:
    assert conntrack_states(POLICY) == set()


def test_the_rule_that_exempts_a_packet_on_this_host() -> None:
    exempts = at(step("continue", rule("udp dport 53 notrack")), verdict=Verdict.CONTINUE)
    quoted = step("accept", rule('log prefix "notrack" accept'))
    assert untracking(changed(steps=(POLICY, quoted, exempts)), "device") is exempts
    assert untracking(changed(steps=(at(exempts, host="edge"), quoted)), "device") is None
