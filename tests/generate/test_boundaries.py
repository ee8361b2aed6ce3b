"""The values of rules at which a ruleset begins to decide otherwise."""

from __future__ import annotations

from typing import Any

from harness.generate.boundaries import Boundaries
from harness.generate.simulate import SimulatedRuleset
from tests.listings import match, table

ACCEPT: dict[str, Any] = {"accept": None}


def test_values_are_those_of_rules_and_their_neighbours() -> None:
    ruleset = table(
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
    ruleset = table(
        [{"match": {"op": "==", "left": left, "right": 5}}, ACCEPT],
        [match("udp", "length", 99), match("ether", "saddr", "02:00:00:00:00:07"), ACCEPT],
    )
    assert Boundaries(SimulatedRuleset(ruleset)).beyond == {"meta cgroup"}
