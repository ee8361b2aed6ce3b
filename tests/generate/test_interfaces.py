"""Interfaces that a ruleset names, wherever it does."""

from __future__ import annotations

from typing import Any

import pytest

from harness.generate.facts import Facts
from harness.generate.interfaces import in_statements, named
from harness.ruleset.listing import Chain

IIF, OIF = {"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}


def match(left: Any, right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def facts(*rules: list[Any], family: str = "inet", objects: tuple[dict[str, Any], ...] = ()) -> Facts:
    listed = [{"rule": {"family": family, "table": "t", "chain": "c", "handle": 1, "expr": rule}} for rule in rules]
    return Facts(objects=[*objects, *listed], chains=(), rules=(), defines={"up": "uplink"})


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        (match(IIF, "wan0"), [("iif", "wan0")]),
        (match(OIF, {"set": ["lan0", "lan1"]}), [("oif", "lan0"), ("oif", "lan1")]),
        (match(IIF, "wlan*"), [("iif", "wlan0")]),
        (match({"concat": [IIF, PORT]}, {"set": [{"concat": ["lan0", 22]}]}), [("iif", "lan0")]),
        ({"vmap": {"key": IIF, "data": {"set": [["wan0", {"drop": None}]]}}}, [("iif", "wan0")]),
        ({"fwd": {"dev": "lan0"}}, [("to", "lan0")]),
        ({"dnat": {"addr": {"map": {"key": IIF, "data": {"set": [["wan0", "10.0.0.1"]]}}}}}, [("iif", "wan0")]),
        (match(IIF, "@wans"), []),
        (match(PORT, 22), []),
        ({"accept": None}, []),
    ],
)
def test_those_of_a_statement(statement: Any, names: list[tuple[str, str]]) -> None:
    assert list(in_statements([statement])) == names


def test_the_one_towards_the_internet_stands_first() -> None:
    found = named(facts([match(IIF, "lan0")], [match(IIF, "enp3s0")], [match(OIF, "ppp0")], [match(IIF, "lo")]))
    assert found.routed == ["ppp0", "enp3s0", "lan0"]
    assert not found.looks_inside
    assert named(facts([match(IIF, "lan0")])).looks_inside


def test_where_no_name_tells_it_is_the_one_behind_which_others_are_hidden() -> None:
    rules = [match(IIF, "eth0")], [match(OIF, "eth1"), {"masquerade": None}]
    assert named(facts(*rules)).routed == ["eth1", "eth0"]


def test_ports_of_a_bridge_are_no_routed_interfaces() -> None:
    found = named(facts([match(IIF, "swp1")], [match({"meta": {"key": "ibrname"}}, "br0")], family="bridge"))
    assert (found.routed, found.ports, found.bridges) == ([], ["swp1"], ["br0"])


def test_those_of_chains_sets_and_maps() -> None:
    held = (
        {"set": {"family": "inet", "name": "s", "type": "ifname", "elem": ["wan0", {"elem": {"val": "wan1"}}]}},
        {"map": {"family": "inet", "name": "m", "type": ["ifname", "mark"], "elem": [[{"concat": ["lan0", 1]}, 2]]}},
        {"set": {"family": "inet", "name": "p", "type": "inet_service", "elem": [22]}},
        {"flowtable": {"family": "inet", "name": "f", "dev": ["lan1"]}},
    )
    chains = (Chain(family="netdev", table="t", name="c", hook="ingress", devices=("lan2",)),)
    found = named(Facts(objects=list(held), chains=chains, rules=(), defines={}))
    assert sorted(found.routed) == ["lan0", "lan1", "lan2", "wan0", "wan1"]


@pytest.mark.parametrize("name", ["", "a b", "$wan", "7", "x" * 16])
def test_what_no_interface_can_be_called_is_left_out(name: str) -> None:
    assert named(facts([match(IIF, name)])).routed == []
