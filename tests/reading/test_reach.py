"""Rules that no packet can come to."""

from __future__ import annotations

import pytest

from harness.model.observation import Rule
from harness.model.result import Policy, RulesetPlan
from harness.reading.reach import entrances, unreachable


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


def test_a_chain_that_two_rules_lead_to() -> None:
    both = plan("forward: tcp dport 22 jump a", "forward: tcp dport 80 jump b", "a: jump b", "b: jump c", "c: drop")
    assert unreachable(both) == set()
    again = plan("forward: tcp dport 1 jump d", "forward: tcp dport 2 jump b", "forward: jump b", "b: drop", "d: drop")
    assert unreachable(again) == set()


def rules(*written: str) -> tuple[Rule, ...]:
    return plan(*written).rules


INPUT = Policy(family="inet", table="t", chain="input", hook="input", verdict="drop")
FORWARD = Policy(family="inet", table="t", chain="forward", hook="forward", verdict="drop")
OTHER = Policy(family="inet", table="u", chain="output", hook="output", verdict="drop")
ALL = (INPUT, FORWARD, OTHER)


def test_base_chains_from_which_a_chain_is_entered() -> None:
    calls = rules("input: jump a", "forward: goto b", "a: jump c", "b: jump c", "c: drop", "d: drop")
    assert entrances("inet t c", calls, ALL) == (INPUT, FORWARD)
    assert entrances("inet t a", calls, ALL) == (INPUT,)
    assert entrances("inet t forward", calls, ALL) == (FORWARD,)
    assert entrances("inet t d", calls, ALL) == ()


def test_where_the_caller_is_not_known_it_may_be_any_of_the_table() -> None:
    by_map = rules("input: tcp dport vmap @ports", "forward: accept", "a: drop")
    assert entrances("inet t a", by_map, ALL) == (INPUT,)
    block = rules("input: tcp dport 22 jump {", "__chain7: jump a", "a: drop")
    assert entrances("inet t a", block, ALL) == (INPUT, FORWARD)


def test_a_map_adds_to_what_the_rule_itself_leads_to() -> None:
    several = plan(
        "forward: tcp dport vmap @ports goto c",
        "a: accept",
        "b: accept",
        "c: accept",
        ports=("22 : jump a", "80 : goto b"),
    )
    assert unreachable(several) == set()
