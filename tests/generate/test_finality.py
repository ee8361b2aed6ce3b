"""Rules that decide about every packet that comes to them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.generate import lab
from harness.generate.finality import decides, passes
from harness.generate.simulate import SimulatedRule, SimulatedRuleset
from harness.ruleset.listing import Chain
from tests.listings import match, table

JUMP: dict[str, Any] = {"jump": {"target": "other"}}
ETH1 = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth1"}}


def ruleset(first: list[dict[str, Any]], *other: list[dict[str, Any]]) -> SimulatedRuleset:
    """A rule of a base chain, and the rules of a chain ``other`` that it may jump to."""
    found = table(first)
    names = {"family": "inet", "table": "t"}
    rules = [{"rule": {**names, "chain": "other", "handle": 10 + n, "expr": expr}} for n, expr in enumerate(other)]
    return SimulatedRuleset(
        msgspec.structs.replace(found, objects=[*found.objects, {"chain": {**names, "name": "other"}}, *rules])
    )


def first(found: SimulatedRuleset) -> SimulatedRule:
    return found.chains["inet", "t", "forward"].rules[0]


@pytest.mark.parametrize(
    ("rule", "other", "expected"),
    [
        ([{"drop": None}], [], True),
        ([{"counter": None}, {"log": {}}, {"reject": {"type": "icmpx", "expr": "port-unreachable"}}], [], True),
        ([{"reject": {"type": "tcp reset"}}], [], False),
        ([match("tcp", "dport", 22), {"drop": None}], [], False),
        ([JUMP], [[match("tcp", "dport", 22), {"accept": None}], [{"drop": None}]], True),
        ([JUMP], [[match("tcp", "dport", 22), {"accept": None}]], False),
        ([JUMP], [[match("tcp", "dport", 22), {"return": None}], [{"drop": None}]], False),
    ],
)
def test_a_rule_that_decides_about_all(
    rule: list[dict[str, Any]], other: list[list[dict[str, Any]]], expected: bool
) -> None:
    found = ruleset(rule, *other)
    assert decides(found, first(found)) is expected


def test_a_rule_that_asks_for_nothing_passes_all_on() -> None:
    found = ruleset([{"counter": None}, {"return": None}])
    assert passes(first(found), ("return",))
    assert not passes(first(found), ("goto",))
    assert not passes(first(ruleset([match("tcp", "dport", 1), {"return": None}])), ("return",))


@pytest.mark.parametrize(
    ("other", "interfaces"),
    [([{"drop": None}], {"eth1", "other0"}), ([match("tcp", "dport", 22), {"accept": None}], {"eth1"})],
)
def test_a_chain_that_decides_about_the_only_interface_of_a_host_gives_the_lab_another(
    other: list[dict[str, Any]], interfaces: set[str]
) -> None:
    """Else no packet would come to the rules behind it."""
    found = table([ETH1, JUMP], [match("tcp", "dport", 80), {"accept": None}])
    names = {"family": "inet", "table": "t"}
    chain = found.objects[0]["chain"] | {"hook": "input"}
    rule = {"rule": {**names, "chain": "other", "handle": 10, "expr": other}}
    objects = [{"chain": chain}, {"chain": {**names, "name": "other"}}, *found.objects[1:], rule]
    base = Chain(family="inet", table="t", name="forward", hook="input", policy="drop")
    chosen = lab.choose(msgspec.structs.replace(found, objects=objects, chains=(base,))).network
    assert {one for one in chosen.hosts["device"].interfaces if one != "lo"} == interfaces
