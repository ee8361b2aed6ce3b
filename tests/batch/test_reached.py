"""Statements that packets came to, by steps made by hand."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harness.batch.reached import Statements
from harness.model.observation import Rule, Step
from tests import builders

TEXTS = ("tcp dport 80 counter name web accept", "counter name all", "udp dport 53 accept", "counter name late accept")
RULES = [builders.rule(text, handle=handle) for handle, text in enumerate(TEXTS, 1)]


def named(rule: Rule) -> Iterator[tuple[str, str]]:
    before, found, name = rule.text.partition("counter name ")
    if found:
        yield before, name.split()[0]


def step(at: int | None, *, headers: bool = True) -> Step:
    """A step of a TCP packet to port 443, or one whose headers are not reported."""
    one = builders.step("accept", None if at is None else RULES[at])
    return msgspec.structs.replace(one, headers=builders.frame()[14:] if headers else b"")


def reached(*steps: Step) -> list[str]:
    return list(Statements(RULES, named).reached(steps))


def test_rules_up_to_the_last_that_is_shown_without_those_about_other_packets() -> None:
    assert reached(step(1)) == ["all"]
    assert reached(step(0)) == []
    assert reached(step(1, headers=False)) == ["web", "all"]


def test_all_rules_of_a_chain_that_ended_with_its_policy() -> None:
    assert reached(step(None)) == ["all", "late"]


def test_each_once_for_a_passage_through_a_base_chain() -> None:
    assert reached(step(1), step(3, headers=False)) == ["all", "late"]
    assert reached(step(1), step(1)) == ["all", "all"]


def test_chains_without_such_a_statement() -> None:
    statements = Statements(RULES[2:3], named)
    assert not statements.chains
    assert not list(statements.reached([step(None)]))
