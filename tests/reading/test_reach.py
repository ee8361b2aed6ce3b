"""Rules that no packet can come to."""

from __future__ import annotations

import pytest

from harness.model.observation import Rule
from harness.model.result import Policy, RulesetPlan
from harness.reading.reach import unreachable


def plan(*rules: str, **sets: tuple[str, ...]) -> RulesetPlan:
    """``forward`` is the base chain; a rule is written ``chain: text``."""
    listed = (rule.split(": ", 1) for rule in rules)
    return RulesetPlan(
        file="a.nft",
        rules=tuple(
            Rule(family="inet", table="t", chain=chain, handle=number, text=text)
            for number, (chain, text) in enumerate(listed, 1)
        ),
        policies=(Policy(family="inet", table="t", chain="forward", hook="forward", verdict="drop"),),
        sets={f"inet t {name}": elements for name, elements in sets.items()},
    )


@pytest.mark.parametrize(
    "last", ["drop", "counter drop", 'log prefix "x" level warn reject with tcp reset', "goto web"]
)
def test_behind_a_rule_that_takes_all_nothing_comes(last: str) -> None:
    assert unreachable(plan(f"forward: {last}", "forward: accept", "web: accept")) >= {("inet t forward", 2)}


@pytest.mark.parametrize("rule", ["tcp dport 22 drop", "jump web", "counter", "limit rate 1/second accept", "log"])
def test_behind_any_other_rule_something_may_come(rule: str) -> None:
    assert unreachable(plan(f"forward: {rule}", "forward: accept")) == set()


def test_a_chain_that_nothing_leads_to_is_not_reached() -> None:
    found = unreachable(
        plan("forward: tcp dport 22 jump a", "a: goto b", "b: accept", "c: accept", "c: jump d", "d: drop")
    )
    assert {chain for chain, _ in found} == {"inet t c", "inet t d"}


def test_maps_lead_to_chains() -> None:
    inside = plan("forward: tcp dport vmap { 22 : jump a, 80 : goto b }", "a: accept", "b: accept")
    assert unreachable(inside) == set()
    named = plan("forward: tcp dport vmap @ports", "a: accept", "b: accept", ports=("22 : jump a",))
    assert {chain for chain, _ in unreachable(named)} == {"inet t b"}
    assert unreachable(plan("forward: tcp dport vmap @unknown", "a: accept")) == set()
