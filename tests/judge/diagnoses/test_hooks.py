"""A rule that the packet could not meet, because it did not pass the rule's hook."""

from __future__ import annotations

import pytest

from harness.judge.expectations import judge
from harness.model.observation import ObservedPacket, Rule, Step
from harness.model.result import Policy
from harness.scenario.models.expect import Expect
from tests.builders import advice, base, changed, dropped, hop, observation, place, rule, step

BAN = rule("ip saddr 203.0.113.5 drop", line=5, handle=5, chain="inet f input", comment="ban")
FORWARDED = step("accept", chain="inet f forward")
TAKEN = step("accept", chain="inet f input")
INPUT, FORWARD = base("inet f input"), base("inet f forward")
DNAT = step("accept", rule("tcp dport 8080 dnat to 10.0.2.2:80", line=3), chain="inet f pre", hook="prerouting")


def went(*steps: Step) -> ObservedPacket:
    """A packet that arrived, of which no function was traced."""
    return changed(steps=steps, hops=())


def said(packet: ObservedPacket, wanted: Rule = BAN, *more: Rule, bases: tuple[Policy, ...] = (INPUT, FORWARD)) -> str:
    expect = {"verdict": "drop", "rule": wanted.text}
    return "; ".join(advice(expect, packet, rules=(wanted, *more), policies=bases))


def test_a_ban_in_input_does_not_see_a_published_port() -> None:
    assert said(went(DNAT, FORWARDED)) == (
        "rulesets/edge.nft:5, the expected rule, is evaluated at hook input, and the packet was forwarded "
        "(rulesets/edge.nft:3 changed its destination): a rule for it belongs at hook forward"
    )


def test_without_nat_the_translation_is_left_out() -> None:
    assert said(went(FORWARDED)).endswith("and the packet was forwarded: a rule for it belongs at hook forward")


def test_a_rule_in_forward_does_not_see_what_is_for_the_device() -> None:
    assert said(dropped(TAKEN), rule("tcp dport 22 drop", line=6, handle=6, chain="inet f forward")) == (
        "rulesets/edge.nft:6, the expected rule, is evaluated at hook forward, and the packet was for device itself: "
        "a rule for it belongs at hook input"
    )


def test_output_sees_only_what_the_device_sends() -> None:
    wanted = rule("tcp dport 443 drop", line=7, handle=7, chain="inet f output")
    assert said(went(FORWARDED), wanted, bases=(base("inet f output"), FORWARD)) == (
        "rulesets/edge.nft:7, the expected rule, is evaluated at hook output, which only packets pass that device "
        "itself sends"
    )


def test_a_hook_behind_the_one_that_dropped() -> None:
    masquerade = rule("masquerade", line=8, handle=8, chain="inet f post")
    packet = dropped(step("drop", rule("tcp dport 443 drop", chain="inet f forward"), chain="inet f forward"))
    assert said(packet, masquerade, bases=(base("inet f post", "postrouting"), FORWARD)) == (
        "rulesets/edge.nft:8, the expected rule, is evaluated at hook postrouting, and the packet ended at hook "
        "forward before it"
    )


def test_postrouting_does_not_see_what_is_for_the_device() -> None:
    wanted = rule("tcp dport 24 drop", line=8, handle=8, chain="inet f post")
    assert said(dropped(TAKEN), wanted, bases=(base("inet f post", "postrouting"), INPUT)) == (
        "rulesets/edge.nft:8, the expected rule, is evaluated at hook postrouting, which what is for device itself "
        "does not pass: a rule for it belongs at hook input"
    )


def test_prerouting_does_not_see_what_the_device_sends() -> None:
    wanted = rule("tcp dport 80 dnat to 10.0.2.2", line=3, handle=3, chain="ip n pre")
    packet = changed(sender="device", steps=(step("accept", chain="inet f output", hook="output"),), hops=())
    bases = (base("ip n pre", "prerouting"), base("inet f output"))
    assert said(packet, wanted, bases=bases) == (
        "rulesets/edge.nft:3, the expected rule, is evaluated at hook prerouting, which what device itself sends to "
        "others does not pass: a rule for it belongs at hook output"
    )
    out = step("accept", chain="inet f output", hook="output")
    assert said(dropped(out, sender="device"), wanted, bases=bases) == ""  # it may have come back by lo


def test_a_packet_of_another_host_that_the_device_sends_was_forwarded() -> None:
    """Where not all functions were traced, and no chain stands at hook forward."""
    assert "and the packet was forwarded" in said(
        changed(steps=(DNAT,), hops=(hop("ip6_finish_output2"),)), bases=(INPUT,)
    )
    assert said(changed(steps=(DNAT,), hops=(hop("__dev_queue_xmit"),)), bases=(INPUT,)) == ""  # perhaps by a bridge
    elsewhere = hop("ip_output", host="edge")
    assert said(changed(steps=(DNAT,), hops=(elsewhere,)), bases=(INPUT,)) == ""
    own = changed(steps=(DNAT,), hops=(hop("ip_output"),), sender="device")
    assert said(own, bases=(INPUT,)) == ""


def test_a_called_chain_is_at_the_hooks_of_those_that_call_it() -> None:
    called = rule("ip saddr 203.0.113.5 drop", line=5, handle=5, chain="inet f bans")
    jump = rule("jump bans", line=4, handle=4, chain="inet f input")
    assert "is evaluated at hook input, and" in said(went(FORWARDED), called, jump)
    both = rule("jump bans", line=9, handle=9, chain="inet f forward")
    assert said(went(FORWARDED), called, jump, both) == ""


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (went(TAKEN, FORWARDED), BAN),  # it passed both
        (dropped(TAKEN), BAN),  # its hook was passed, the rule did not match
        (went(step("accept", chain="inet f pre", hook="prerouting")), BAN),  # not known
        (went(FORWARDED), rule("drop", line=5, handle=5, chain="bridge f input")),
    ],
)
def test_near_misses(packet: ObservedPacket, wanted: Rule) -> None:
    bases = (base(wanted.chain_path), FORWARD)
    assert "is evaluated at hook" not in said(packet, wanted, bases=bases)


def test_the_note_says_it_as_well() -> None:
    packet = went(FORWARDED)
    (found,) = judge(Expect(rule="ban"), observation(packet), packet, at=place, rules=(BAN,), policies=(INPUT, FORWARD))
    assert found.note.startswith("rulesets/edge.nft:5 was not reached: the packet did not pass hook input")
