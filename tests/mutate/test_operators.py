"""Mutants are made on nft's JSON: each with one change, and each known by what it changes."""

from __future__ import annotations

from typing import Any

import pytest

from harness.mutate.edits import Elements
from tests.mutate.builders import SSH, WHERE, match, of, payload, ruleset


def vmap(key: Any, data: Any) -> dict[str, Any]:
    return {"vmap": {"key": key, "data": data}}


def whats(operator: str, objects: list[dict[str, Any]], *interfaces: str) -> list[str]:
    return [one.what for one in of(operator, objects, *interfaces)]


@pytest.mark.parametrize(
    ("expression", "operator", "expected"),
    [
        (SSH, "rule deleted", ["deleted"]),
        (SSH, "match dropped", ["without tcp dport 22"]),
        (SSH, "match negated", ["tcp dport 22: == → !="]),
        (SSH, "port off by one", ["tcp dport 22 → 23"]),
        (SSH, "verdict turned", ["accept → drop"]),
        ([{"reject": {"type": "tcp reset"}}], "verdict turned", ["reject → drop", "reject → accept"]),
        ([match(payload("tcp", "dport"), 65535)], "port off by one", ["tcp dport 65535 → 65534"]),
        (
            [match(payload("udp", "dport"), {"range": [10, 20]})],
            "port off by one",
            ["udp dport 10-20 → 10-21", "udp dport 10-20 → 11-20"],
        ),
        ([match(payload("ip", "saddr"), "10.0.0.1")], "prefix off by one", ["ip saddr 10.0.0.1 → 10.0.0.0/31"]),
        (
            [match(payload("ip6", "saddr"), {"prefix": {"addr": "2001:db8::", "len": 32}})],
            "prefix off by one",
            ["ip6 saddr 2001:db8::/32 → 2001:db8::/31", "ip6 saddr 2001:db8::/32 → 2001:db8::/33"],
        ),
        (
            [match(payload("tcp", "dport"), {"set": [80, 443]})],
            "element removed",
            ["tcp dport without 80", "tcp dport without 443"],
        ),
        (
            [match({"ct": {"key": "state"}}, ["established", "related"], "in")],
            "ct state widened",
            ["ct state with new"],
        ),
        ([match({"ct": {"key": "state"}}, "new", "in")], "ct state widened", ["ct state with invalid"]),
        ([match({"meta": {"key": "iifname"}}, "wan0")], "interface changed", ["iifname wan0 → lan0"]),
        (
            [{"dnat": {"addr": "10.0.0.1", "port": 80}}],
            "NAT target changed",
            ["dnat to 10.0.0.1 → 10.0.0.2", "dnat to 80 → 81"],
        ),
        (
            [
                {
                    "vmap": {
                        "key": payload("tcp", "dport"),
                        "data": {"set": [[22, {"accept": None}], [25, {"drop": None}]]},
                    }
                }
            ],
            "verdict turned",
            ["tcp dport 22 : accept → drop", "tcp dport 25 : drop → accept"],
        ),
    ],
)
def test_one_change_of_a_rule(expression: list[Any], operator: str, expected: list[str]) -> None:
    assert whats(operator, ruleset(expression), "wan0", "lan0") == expected


def test_policies_neighbours_and_jumps() -> None:
    others = tuple({"chain": {**WHERE, "name": name}} for name in ("web", "mail"))
    objects = ruleset(SSH, [{"jump": {"target": "web"}}], more=others)
    assert whats("policy turned", objects) == ["policy drop → accept"]
    assert whats("rules swapped", objects) == ["swapped with the rule after it"]
    assert whats("jump to a neighbour", objects) == ["jump web → jump mail"]


def test_elements_of_a_named_set_touch_the_rules_that_look_into_it() -> None:
    held = {"set": {**WHERE, "name": "web", "type": "inet_service", "elem": [80, 81]}}
    unused = {"set": {**WHERE, "name": "nobody", "type": "inet_service", "elem": [1]}}
    objects = ruleset(SSH, [match(payload("tcp", "dport"), "@web"), {"accept": None}], more=(held, unused))
    removed = of("element removed", objects)
    assert [one.what for one in removed] == ["@web without 80", "@web without 81"]
    assert {one.touched for one in removed} == {(("inet", "fw", "input", 11),)}
    assert whats("element added", objects) == ["@web with 82"]  # 81 is there


def test_a_map_of_verdicts_gets_another_one() -> None:
    held = {
        "map": {**WHERE, "name": "who", "type": "ipv4_addr", "map": "verdict", "elem": [["10.0.0.1", {"drop": None}]]}
    }
    objects = ruleset([vmap(payload("ip", "saddr"), "@who")], more=(held,))
    (turned,) = of("verdict turned", objects)
    assert turned.edit == Elements(
        family="inet",
        table="fw",
        name="who",
        removed=[["10.0.0.1", {"drop": None}]],
        added=[["10.0.0.1", {"accept": None}]],
    )


def test_a_large_set_has_mutants_of_its_ends_only() -> None:
    objects = ruleset([match(payload("tcp", "dport"), {"set": list(range(1000, 1100))})])
    removed = whats("element removed", objects)
    assert len(removed) == 8
    assert removed[0] == "tcp dport without 1000"
    assert removed[-1] == "tcp dport without 1099"


def test_what_a_block_holds_is_left_alone() -> None:
    objects = ruleset(SSH, [match(payload("tcp", "dport"), 80), "jump {\n accept\n}"])
    assert whats("port off by one", objects) == ["tcp dport 22 → 23"]
    assert len(of("rule deleted", objects)) == 2
    assert not of("rules swapped", objects)
