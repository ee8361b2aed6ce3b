"""Packets at the boundaries of what two rulesets look at."""

from __future__ import annotations

from typing import Any

import pytest

from harness.generate import pool
from harness.generate.boundaries import Boundaries
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.pool import Pool
from harness.generate.simulate import SimulatedRuleset
from harness.packets import line
from harness.ruleset.listing import Chain
from harness.topology.builtin import LABS
from harness.topology.network import Network

FORWARD = {"family": "inet", "table": "t", "name": "forward"}


def facts(*rules: list[dict[str, Any]], policy: str = "drop", sets: tuple[dict[str, Any], ...] = ()) -> Facts:
    """A table with one base chain of these rules, as nft's JSON has it."""
    chain = {**FORWARD, "hook": "forward", "type": "filter", "prio": 0, "policy": policy}
    objects: list[dict[str, Any]] = [{"chain": chain}, *({"set": {**FORWARD, **one}} for one in sets)]
    for handle, expr in enumerate(rules, 2):
        objects.append({"rule": {"family": "inet", "table": "t", "chain": "forward", "handle": handle, "expr": expr}})
    chains = (Chain(family="inet", table="t", name="forward", hook="forward", policy=policy),)
    return Facts(objects=objects, chains=chains, rules=(), defines={})


def match(protocol: str, field: str, right: Any) -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": right}}


ACCEPT: dict[str, Any] = {"accept": None}


def made(*sides: Facts, budget: int = 60, seed: int = 1) -> list[pool.PooledPacket]:
    network = Network.of(LABS["router"])
    return Pool([SimulatedDevice(SimulatedRuleset(one), network) for one in sides], seed).packets(budget)


def test_values_are_those_of_rules_and_their_neighbours() -> None:
    ruleset = facts(
        [match("tcp", "dport", {"range": [1000, 2000]}), ACCEPT],
        [match("ip", "saddr", {"prefix": {"addr": "198.51.100.0", "len": 24}}), ACCEPT],
        [match("ip", "daddr", "@good"), ACCEPT],
        [match("udp", "length", 7), ACCEPT],
        sets=({"name": "good", "elem": ["10.0.2.2", {"elem": {"val": "10.0.2.9", "timeout": 5}}]},),
    )
    found = Boundaries(SimulatedRuleset(ruleset))
    assert set(found.values["dport"]) == {999, 1000, 1001, 1999, 2000, 2001, 1500}
    ends = {"198.51.99.255", "198.51.100.0", "198.51.100.1", "198.51.100.255", "198.51.101.0"}
    assert set(found.values["saddr"]) == ends
    assert {"10.0.2.1", "10.0.2.2", "10.0.2.3", "10.0.2.8", "10.0.2.9", "10.0.2.10"} == set(found.values["daddr"])


def test_what_no_packet_is_made_for_is_named() -> None:
    left = {"meta": {"key": "cgroup"}}
    ruleset = facts([{"match": {"op": "==", "left": left, "right": 5}}, ACCEPT])
    assert Boundaries(SimulatedRuleset(ruleset)).beyond == {"meta cgroup"}


@pytest.mark.parametrize(
    ("old", "new", "sent"),
    [
        (match("tcp", "dport", 80), match("tcp", "dport", 81), {80, 81}),
        (match("tcp", "dport", {"range": [10, 20]}), match("tcp", "dport", {"range": [10, 21]}), {21}),
        (match("tcp", "dport", {"set": [1, 2, 3]}), match("tcp", "dport", {"set": [1, 3]}), {2}),
    ],
)
def test_packets_on_which_the_rulesets_differ_are_among_them(
    old: dict[str, Any], new: dict[str, Any], sent: set[int]
) -> None:
    packets = made(facts([old, ACCEPT]), facts([new, ACCEPT]))
    differing = {one.fields["dport"] for one in packets if len({verdict for _, verdict in one.way}) > 1}
    assert sent <= differing


def test_a_limit_gets_as_many_packets_as_are_over_it() -> None:
    limited = [match("tcp", "dport", 25), {"limit": {"rate": 1, "per": "second", "burst": 3}}, ACCEPT]
    assert 4 in {send.get("count") for one in made(facts(limited)) for send in one.sends}


def test_the_same_seed_gives_the_same_packets() -> None:
    side = facts([match("tcp", "dport", 80), ACCEPT])
    first, again, other = (made(side, seed=seed) for seed in (3, 3, 4))
    assert [one.sends for one in first] == [one.sends for one in again]
    assert [one.sends for one in first] != [one.sends for one in other]
    assert len(first) <= 60


def test_a_packet_is_told_on_one_line() -> None:
    send = {
        "from": "client",
        "to": "server",
        "ip": {"src": "198.51.100.7"},
        "tcp": {"dport": 22, "flags": "A"},
        "count": 2,
    }
    assert line.parse(pool.describe_send(send), "packet").value == send


def test_a_simpler_packet_says_one_thing_less() -> None:
    send = {"from": "client", "to": "server", "ip": {"src": "198.51.100.7"}, "tcp": {"sport": 1, "dport": 22}}
    assert list(pool.simpler(send)) == [
        {"from": "client", "to": "server", "tcp": {"sport": 1, "dport": 22}},
        {"from": "client", "to": "server", "ip": {"src": "198.51.100.7"}, "tcp": {"dport": 22}},
    ]
