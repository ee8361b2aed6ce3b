"""Who sends a packet, and to whom."""

from __future__ import annotations

from typing import Any

import pytest

from harness.generate.device import SimulatedDevice
from harness.generate.ends import Ends
from harness.generate.simulate import SimulatedRuleset
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.listings import table


def found(lab: str = "router", family: int = 4, **asked: Any) -> list[tuple[str, str]]:
    ends = Ends(SimulatedDevice(SimulatedRuleset(table()), Network.of(LABS[lab])))
    return [(one["from"], one["to"]) for one in ends.of(asked, family)]


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ({}, ("client", "server")),
        ({"iif": "lan0"}, ("server", "client")),
        ({"iif": "wan0", "oif": "lan0"}, ("client", "server")),
        ({"local": True}, ("client", "device")),
        ({"daddr": "10.0.2.2"}, ("client", "server")),
        ({"daddr": "198.51.100.9"}, ("client", "198.51.100.9")),
        ({"group": True}, ("client", "224.0.0.1")),
        ({"group": True, "family": 6}, ("client", "ff02::1")),
        ({"iif": "wan0", "oif": "wan0"}, ("client", "203.0.113.5")),
    ],
)
def test_the_first_ends_that_are_tried(asked: dict[str, Any], first: tuple[str, str]) -> None:
    assert found(**asked)[0] == first


def test_an_address_of_the_other_version_has_no_ends() -> None:
    assert found(daddr="2001:db8:2::2") == []
    assert found(daddr="2001:db8:2::2", family=6)


def test_a_packet_that_turns_round_comes_from_an_address_that_nobody_has() -> None:
    network = Network.of(LABS["router"])
    turned = next(Ends(SimulatedDevice(SimulatedRuleset(table()), network)).of({"iif": "wan0", "oif": "wan0"}, 4))
    assert turned["ether_daddr"] == network.hosts["device"].interfaces["wan0"].mac
    assert turned["saddr"] not in ("203.0.113.5", "203.0.113.1")


def test_only_the_device_sends_to_its_own_loopback() -> None:
    assert set(found(iif="lo", oif="lo")) == {("device", "device"), ("device", "127.0.0.1")}


def test_behind_a_bridge_are_the_hosts_at_its_ports() -> None:
    assert found("bridge", iif="br0")[0] == ("client", "server")
