"""What the simulation knows of limits, of conntrack and of the order of chains."""

from __future__ import annotations

import pytest

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.expressions import state
from harness.generate.simulate import MANY, SimulatedRuleset, burst, excess, filled
from tests.listings import match, table


@pytest.mark.parametrize(
    ("limit", "packets"),
    [
        ({"rate": 3, "burst": 5, "per": "minute", "inv": True}, 6),
        ({"rate": 10, "burst": 1, "per": "hour", "inv": True}, 2),
        # It refills while an emulated machine sends.
        ({"rate": 2, "burst": 5, "per": "second", "inv": True}, MANY),
        ({"rate": 60, "burst": 5, "per": "minute", "inv": True}, MANY),
        ({"rate": 10, "burst": 0, "per": "hour", "inv": True, "rate_unit": "kbytes"}, MANY),
        ({"rate": 2, "burst": 5, "per": "second"}, 0),
    ],
)
def test_packets_that_exceed_a_limit(limit: dict[str, object], packets: int) -> None:
    assert excess("limit", limit) == packets
    assert excess("set", {"op": "add", "stmt": [{"limit": limit}]}) == packets


def test_what_packets_add_to_a_set_is_known_as_long_as_that_is_asked_for() -> None:
    saddr = {"payload": {"protocol": "ip", "field": "saddr"}}
    adding = [match("tcp", "dport", 7), {"set": {"op": "add", "elem": saddr, "set": "@seen"}}, {"drop": None}]
    looking = [match("ip", "saddr", "@seen"), {"accept": None}]
    found = table(adding, looking, sets=({"name": "seen", "type": "ipv4_addr"},))
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    client, server = device.facing.values()
    ends = {"from": client, "to": server, "family": 4, "proto": "tcp", "flags": ("syn",), "sport": 1}
    verdicts = [one.verdict for one in device.journey([ends | {"dport": port} for port in (9, 7, 9)]) if one]
    assert verdicts == ["drop", "drop", "accept"]
    assert [one.verdict for one in device.journey([ends | {"dport": 9}]) if one] == ["drop"]


def test_the_packets_of_a_burst_are_over_a_limit_that_lets_fewer_by() -> None:
    limit = {"limit": {"rate": 4, "burst": 3, "per": "second"}}
    found = table([limit, {"accept": None}])
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    client, server = device.facing.values()
    ends = {"from": client, "to": server, "family": 4, "proto": "udp", "sport": 1, "dport": 9}
    (three,), (four,) = (device.journey([ends | {"count": count}]) for count in (3, 4))
    assert (three and three.verdict, four and four.verdict) == ("accept", "drop")
    assert (burst("limit", limit["limit"]), filled(("limit", limit["limit"]))) == (3, "")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("syn",), "new"),
        (("syn", "psh"), "new"),
        (("ack",), "new"),
        (("psh", "ack"), "new"),
        (("syn", "ack"), "invalid"),
        (("fin", "ack"), "invalid"),
        (("fin", "syn"), "invalid"),
        (("rst",), "invalid"),
        ((), "invalid"),
    ],
)
def test_the_state_of_the_first_packet_of_tcp_that_is_seen(flags: tuple[str, ...], expected: str) -> None:
    assert state({"proto": "tcp", "flags": flags}) == expected
    assert state({"proto": "tcp", "flags": flags, "state": "new"}) == expected
    assert state({"proto": "tcp", "flags": flags, "state": "established", "reply": True}) == "established"


def test_chains_of_type_nat_see_nothing_where_no_rule_needs_conntrack() -> None:
    found = table([{"accept": None}])
    assert not SimulatedRuleset(found).is_tracked("inet")
    state_new = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}
    for statement in (state_new, {"masquerade": None}, {"dnat": {"addr": "10.0.0.1"}}):
        assert SimulatedRuleset(table([statement])).is_tracked("inet")
        assert SimulatedRuleset(table([statement])).is_tracked("ip6")


def test_of_chains_with_the_same_priority_the_last_one_is_first() -> None:
    found = table([{"counter": None}])
    second = {**found.objects[0]["chain"], "name": "later"}
    found.objects.append({"chain": second})
    ruleset = SimulatedRuleset(found)
    device = SimulatedDevice(ruleset, lab.choose(found).network)
    packet = {"from": "client", "to": "server", "family": 4, "proto": "udp", "sport": 1, "dport": 2}
    way = device.travel(packet, frozenset())
    assert way is not None
    assert way.met == [("inet", "t", "later", 0)]
