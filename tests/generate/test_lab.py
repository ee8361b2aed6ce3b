"""A lab for a ruleset, from the interfaces and addresses that it names."""

from __future__ import annotations

import pytest

from harness.generate import lab
from tests.listings import facts


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("edge", "client — wan0 device lan0 — server"),
        ("home", "client — enp1s0 device enp2s0 — pc, device enp3s0 — server"),
        ("docker", "client — eth0 device docker0 — server"),
        ("services", "client — wan0 device lan0 — server"),
        ("lan0", "client — wan0 device lan0 — server"),
        ("netavark", "client — wan0 device lan0 — server"),
        ("gateway", "client — pppoe-wan device br-lan — server, device other0 — pc"),
        (
            "zones",
            "client — wan0 device eth1.10 — server, device eth1.20 — pc, device wlan0 — third, device other0 — fourth",
        ),
        ("tunnel", "client — tun0 device other0 — server"),
        ("bridged", "client — uplink0 device swp1 — server, device swp3 — pc, device swp2 — third"),
    ],
)
def test_the_lab_has_the_interfaces_that_the_ruleset_names(name: str, described: str) -> None:
    assert lab.choose(facts(name)).described == described


def test_any_number_of_interfaces_gets_a_host_each() -> None:
    network = lab.choose(facts("vlans")).network
    assert {one.peer.host for one in network.hosts["device"].interfaces.values()} == {*network.hosts} - {"device"}
    assert [f"eth0.{n}" for n in range(101, 121)] == [one for one in network.hosts["device"].interfaces if "." in one]


@pytest.mark.parametrize(
    ("name", "host", "addresses"),
    [
        ("docker", "server", {"172.17.0.2/24"}),
        ("netavark", "server", {"10.88.0.7/24", "10.88.0.9/24"}),
        ("netavark", "device", {"203.0.113.1/24", "10.88.0.1/24"}),
        ("gateway", "server", {"192.168.7.20/24", "192.168.8.30/24"}),
        ("bridged", "pc", {"10.0.2.3/24", "2001:db8:2::3/64"}),
    ],
)
def test_a_host_has_the_addresses_that_rules_give_it(name: str, host: str, addresses: set[str]) -> None:
    interfaces = lab.choose(facts(name)).network.hosts[host].interfaces.values()
    assert addresses <= {str(address) for one in interfaces for address in one.addresses}


def test_hosts_at_a_bridge_share_its_networks() -> None:
    device = lab.choose(facts("bridged")).network.hosts["device"]
    assert device.bridges["br0"].ports == ("swp1", "swp3", "swp2")
    assert not any(device.interfaces[port].addresses for port in device.bridges["br0"].ports)
