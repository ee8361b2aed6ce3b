"""WireGuard interfaces as planned; what contradicts itself is in tests/scenario/broken."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from harness.topology.builtin import rename
from harness.topology.network import Network
from harness.topology.parts import End, Wireguard
from harness.topology.spec import LabSpec


def planned(hub: dict[str, Any], names: dict[str, str]) -> Network:
    """A hub with the peers laptop and branch, of which the laptop calls."""
    peers = {"laptop": {"allowed": ["10.8.0.2/32"]}, "branch": {"allowed": ["default"], "endpoint": "192.0.2.3"}}
    ends = {"peers": {"device": {"allowed": ["10.8.0.0/24"], "endpoint": "192.0.2.1"}}, "port": 443}
    hosts = {
        "device": {
            "interfaces": {"eth0": ["192.0.2.1/24"], "eth1": ["198.51.100.1/24"], "wg0": ["10.8.0.1/24"]},
            "wireguards": {"wg0": {"peers": peers} | hub},
        },
        "laptop": {
            "interfaces": {"eth0": ["198.51.100.2/24"], "vpn": ["10.8.0.2/24"]},
            "wireguards": {"vpn": ends},
            "routes": [{"to": "10.9.0.0/16", "dev": "vpn"}],
        },
        "branch": {"interfaces": {"eth0": ["192.0.2.3/24"], "wg0": ["10.8.0.3/24"]}, "wireguards": {"wg0": ends}},
    }
    links = [["device:eth0", "branch:eth0"], ["device:eth1", "laptop:eth0"]]
    return Network.of(rename(msgspec.convert({"hosts": hosts, "links": links}, LabSpec), names))


@pytest.mark.parametrize("name", ["wg0", "vpn9"])
def test_a_hub_has_a_peer_that_calls_and_one_that_is_called_at_its_port(name: str) -> None:
    made = planned({"mark": 7, "port": 5000}, {"wg0": name}).hosts["device"].made[name]
    assert isinstance(made, Wireguard)
    laptop, branch = made.peers
    assert (made.port, made.mark) == (5000, 7)
    assert (laptop.end, laptop.endpoint) == (End("laptop", "vpn"), None)
    assert (branch.end, branch.endpoint) == (End("branch", "wg0"), (ip_address("192.0.2.3"), 443))
    assert branch.allowed == (ip_network("0.0.0.0/0"), ip_network("::/0"))


def test_peers_reach_the_hub_and_not_each_other_and_need_no_neighbours() -> None:
    network = planned({}, {})
    reached = {
        host: [str(end) for one in network.hosts[host].interfaces.values() if one.name != "eth0" for end in one.reaches]
        for host in ("laptop", "branch")
    }
    assert reached == {"laptop": ["device:wg0"], "branch": ["device:wg0"]}
    assert {one.interface for host in network.hosts.values() for one in host.neighbours} == {"eth0", "eth1"}
    assert not network.hosts["laptop"].silent


def test_what_a_host_sends_into_a_tunnel_passes_its_kernel() -> None:
    network = planned({}, {})
    assert network.enters_tunnel("laptop", ip_address("10.9.1.1"))
    assert not network.enters_tunnel("laptop", ip_address("198.51.100.1"))
    assert not network.enters_tunnel("laptop", ip_address("203.0.113.1"))  # it has no route there
