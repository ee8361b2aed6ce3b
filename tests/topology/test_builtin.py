"""The labs that come with the language, and new names for their interfaces."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from harness.scenario.load import load_lab
from harness.topology.builtin import LABS, rename
from harness.topology.network import Network
from harness.topology.parts import Macvlan, Vlan, Vxlan
from harness.topology.spec import LabSpec

TRUNK = load_lab(Path(__file__).parents[2] / "scenarios/labs/trunk.yaml")


@pytest.mark.parametrize("name", LABS)
def test_the_built_in_labs_fit_together(name: str) -> None:
    network = Network.of(LABS[name])
    interfaces = list(network.interfaces)
    assert len({one.mac for one in interfaces}) == len(interfaces)
    bridges = [bridge for host in network.hosts.values() for bridge in host.bridges]
    assert len(network.links) * 2 + len(bridges) == len(interfaces)
    assert not network.hosts[network.device].silent


def test_interfaces_are_called_as_the_ruleset_wants() -> None:
    network = Network.of(rename(LABS["bridge"], {"port0": "enp1s0", "br0": "lan"}))
    device = network.hosts["device"]
    assert list(device.interfaces) == ["enp1s0", "port1", "lan"]
    assert device.bridges["lan"].ports == ("enp1s0", "port1")
    assert [f"{one.end} {other.end}" for one, other in network.links] == [
        "client:eth0 device:enp1s0",
        "device:port1 server:eth0",
    ]


def test_two_interfaces_may_change_names() -> None:
    swapped = rename(LABS["router"], {"wan0": "lan0", "lan0": "wan0"})
    assert Network.of(swapped).hosts["device"].interfaces["wan0"].address(4) == ip_address("10.0.2.1")


def test_new_names_reach_all_that_is_made_of_an_interface() -> None:
    spec = msgspec.convert(
        {
            "hosts": {
                "client": {"interfaces": {"eth0": ["192.0.2.5/24"]}},
                "device": {
                    "interfaces": {"eth0": ["192.0.2.1/24"], "eth0.7": [], "red": []},
                    "vlans": {"eth0.7": {"link": "eth0", "id": 7}},
                    "vrfs": {"red": {"table": 7, "interfaces": ["eth0.7"]}},
                    "mtu": {"eth0": 1400},
                    "rules": [{"iif": "eth0", "table": "main"}],
                },
            },
            "links": [["client:eth0", "device:eth0"]],
        },
        LabSpec,
    )
    device = Network.of(rename(spec, {"eth0": "wan0", "eth0.7": "wan0.7"})).hosts["device"]
    assert device.made["wan0.7"] == Vlan("wan0", 7)
    assert str(device.made["red"]) == "VRF of wan0.7, table 7"
    assert [device.interfaces[name].mtu for name in ("wan0", "wan0.7")] == [1400, 1400]
    assert [rule.iif for rule in device.rules] == ["wan0", "wan0"]
    assert isinstance(TRUNK.hosts["gateway"].made["vx0"], Vxlan)


def test_new_names_reach_all_that_names_an_interface() -> None:
    device = {
        "interfaces": {"eth0": ["192.0.2.1/24"], "m0": ["198.51.100.1/24"], "t0": ["10.9.0.1/24"]},
        "macvlans": {"m0": {"link": "eth0"}},
        "tunnels": {"t0": {"kind": "gre", "local": "192.0.2.1", "remote": "192.0.2.2"}},
        "netem": {"m0": {"delay": 0.1}},
        "routes": [{"to": "10.10.0.0/16", "dev": "t0"}],
        "forwarding": True,
    }
    far = {"interfaces": {"eth0": ["192.0.2.2/24"]}}
    hosts = {"hosts": {"device": device, "far": far}, "links": [["device:eth0", "far:eth0"]]}
    names = {"eth0": "wan0", "m0": "vrrp0", "t0": "vpn0"}
    plan = Network.of(rename(msgspec.convert(hosts, LabSpec), names)).hosts["device"]
    assert list(plan.interfaces) == ["wan0", "vrrp0", "vpn0"]
    assert plan.made["vrrp0"] == Macvlan("wan0")
    assert list(plan.netem) == ["vrrp0"]
    assert [hop.interface for route in plan.routes for hop in route.hops] == ["vpn0"]
