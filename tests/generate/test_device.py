"""The way of a packet through a planned device, without a kernel."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from harness.generate.device import SimulatedDevice, is_joined
from harness.generate.simulate import SimulatedRuleset
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.listings import match, table

FORWARD = table([match("tcp", "dport", 22), {"accept": None}])


def device(lab: str = "router") -> SimulatedDevice:
    return SimulatedDevice(SimulatedRuleset(FORWARD), Network.of(LABS[lab]))


def packet(**more: Any) -> dict[str, Any]:
    return {
        "from": "client",
        "to": "server",
        "family": 4,
        "proto": "tcp",
        "flags": {"syn"},
        "sport": 1,
        "dport": 22,
        **more,
    }


def travelled(**more: Any) -> tuple[str, int] | None:
    """The verdict of a packet, and how many rules and policies it met."""
    way = device().travel(packet(**more), frozenset())
    return (way.verdict, len(way.met)) if way else None


@pytest.mark.parametrize(
    ("more", "becomes"),
    [
        ({}, ("accept", 1)),
        ({"dport": 23}, ("drop", 1)),
        ({"family": 6}, ("accept", 1)),
        ({"to": "device"}, ("accept", 0)),  # it passes the hook input, where no chain is
        ({"from": "device"}, ("accept", 0)),
        ({"to": "203.0.113.77"}, None),  # nobody on its own link has that
        ({"saddr": "2001:db8::1"}, None),
        ({"saddr": "nonsense"}, None),
        ({"to": "nowhere"}, None),
    ],
)
def test_what_becomes_of_a_packet(more: dict[str, Any], becomes: tuple[str, int] | None) -> None:
    assert travelled(**more) == becomes


def test_the_interfaces_and_addresses_are_those_of_the_lab() -> None:
    way = device().travel(packet(), frozenset())
    assert way is not None
    assert (way.fields["iif"], way.fields["oif"]) == ("wan0", "lan0")
    assert (str(way.fields["saddr"]), str(way.fields["daddr"])) == ("203.0.113.5", "10.0.2.2")
    assert way.fields["local"] is False
    assert way.fields["path"] == 1


@pytest.mark.parametrize(
    ("address", "joined"),
    [("224.0.0.1", True), ("ff02::1", True), ("ff02::1:ff00:7", True), ("224.0.0.251", False), ("ff02::fb", False)],
)
def test_multicast_groups_that_the_kernel_joins_by_itself(address: str, joined: bool) -> None:
    assert is_joined(ip_address(address)) is joined
