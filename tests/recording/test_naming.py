"""The name of a rule that outlives most edits of the ruleset and means that rule alone."""

from __future__ import annotations

import msgspec

from harness.model.observation import Rule
from harness.recording.naming import name_of, name_of_rule
from tests.builders import rule, step

PLAIN = rule("tcp dport 22 accept", handle=4, line=7)


def named(one: Rule, *others: Rule) -> str | int:
    return name_of_rule(one, (one, *others))


def test_a_comment_goes_before_the_text() -> None:
    assert named(PLAIN) == "tcp dport 22 accept"
    assert named(rule("tcp dport 22 accept", comment="ssh")) == "ssh"


def test_what_two_rules_have_names_neither() -> None:
    twin = rule("tcp dport 22 accept", handle=5, line=9)
    assert named(PLAIN, twin) == "edge.nft:7"
    again = msgspec.structs.replace(twin, position=PLAIN.position)
    assert named(PLAIN, again) == 4
    commented = rule("drop", comment="ssh")
    assert named(commented, rule("accept", comment="ssh", handle=5)) == "drop"


def test_the_text_as_it_is_written_goes_before_the_text_as_it_is_listed() -> None:
    assert named(msgspec.structs.replace(PLAIN, written="tcp dport ssh accept")) == "tcp dport ssh accept"


def test_words_with_a_meaning_of_their_own_name_no_rule() -> None:
    for word in ("policy", "none", "two\nlines"):
        assert named(rule("drop", comment=word)) == "drop"


def test_a_rule_without_any_words_is_known_by_its_handle() -> None:
    assert named(Rule(family="ip", table="t", chain="c", handle=9, text="")) == 9


def test_a_policy_is_named_by_its_chain() -> None:
    assert name_of(step("drop"), ()) == "inet filter forward policy"
    assert name_of(step("accept", PLAIN), (PLAIN,)) == "tcp dport 22 accept"
