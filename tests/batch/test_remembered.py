"""What a ruleset remembers of a packet, by its rules and the steps of the packet."""

from __future__ import annotations

import msgspec
import pytest

from harness.batch.remembered import Remembered
from harness.ruleset.load import Ruleset
from tests import builders

TEXTS = (
    "iifname lo accept",
    "icmp type echo-request limit rate 5/second accept",
    "tcp dport 22 add @seen { ip saddr } accept",
    'tcp dport 80 counter packets 0 bytes 0 accept comment "limit rate"',
    "tcp dport 443 accept",
)
RULES = [builders.rule(text, handle=handle) for handle, text in enumerate(TEXTS, 1)]


def is_changed(rules: list[int], at: int | None, *, headers: bytes | None = None) -> bool:
    """Whether a packet (by default of TCP, to port 443) that rule ``at`` or else the policy decided may have changed
    what the rules of these numbers remember."""
    chosen = [RULES[number] for number in rules]
    step = builders.step("accept", None if at is None else RULES[at])
    step = msgspec.structs.replace(step, headers=builders.frame()[14:] if headers is None else headers)
    return Remembered(Ruleset((), chosen)).is_changed([step])


@pytest.mark.parametrize(
    ("rules", "at", "changed"),
    [
        ([0, 4], 4, False),
        ([1, 4], 4, False),  # for certain no ICMP
        ([2, 4], 4, False),  # to another port
        ([3, 4], 4, False),  # the words are those of a comment
        ([2], None, False),
        ([4, 2], 4, False),  # the rule comes after the one that decided
    ],
)
def test_a_rule_that_cannot_be_about_a_packet_remembers_nothing_of_it(
    rules: list[int], at: int | None, changed: bool
) -> None:
    assert is_changed(rules, at) == changed


def test_what_is_not_certain_counts_as_changed() -> None:
    assert is_changed([1, 2, 4], 4, headers=b"")  # what packet it is was not reported
    limited = builders.rule("limit rate 5/second accept", handle=7)
    step = builders.step("drop")
    assert Remembered(Ruleset((), [limited])).is_changed([step])
    of_iptables = builders.rule('xt match "limit" accept', handle=8)
    written = msgspec.structs.replace(of_iptables, written="-A INPUT -m limit --limit 5/s -j ACCEPT")
    assert Remembered(Ruleset((), [written])).is_changed([step])
    assert not Remembered(Ruleset((), [of_iptables])).is_changed([step])


def test_the_sets_that_a_packet_changes_are_those_of_the_rules_it_met() -> None:
    remembered = Remembered(Ruleset((), RULES))
    assert list(remembered.sets([builders.step("accept", RULES[2])])) == ["inet filter seen"]
    assert not list(remembered.sets([builders.step("accept", RULES[4])]))


def test_a_flow_that_is_offloaded_is_shown_by_its_rule() -> None:
    offloads = builders.rule('ct state established flow add @quick comment "fast"', handle=7)
    remembered = Remembered(Ruleset((), [offloads]))
    policy = builders.step("accept")
    assert not remembered.is_changed([policy])
    assert remembered.is_changed([builders.step("continue", offloads), policy])
    # What comes behind it may not match after that.
    then = builders.rule("flow add @quick tcp dport 443 accept", handle=8)
    assert Remembered(Ruleset((), [then])).is_changed([policy])


def test_only_messages_that_name_a_chain_with_a_statement_may_be_about_a_packet_that_is_remembered() -> None:
    plain = builders.rule("tcp dport 80 accept", chain="inet filter forward")
    adds = builders.rule("add @seen { ip saddr }", chain="inet filter from_wan")
    remembered = Remembered(Ruleset((), [plain, adds]))
    assert remembered.may_concern([b"..filter\0forward\0..", b"..filter\0from_wan\0.."])
    assert not remembered.may_concern([b"..filter\0forward\0..", b"..filter\0from_wan2\0.."])
    assert not Remembered(Ruleset((), [plain])).may_concern([b"..filter\0forward\0.."])
