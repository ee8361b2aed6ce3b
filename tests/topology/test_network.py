from __future__ import annotations

from ipaddress import ip_address

import pytest

from harness.model.problem import Problem
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.topology.parts import Neighbour, Station
from harness.topology.spec import HostSpec, LabSpec

ROUTER = Network.of(LABS["router"])


def test_only_hosts_that_answer_have_a_voice() -> None:
    assert [name for name, host in ROUTER.hosts.items() if host.silent] == ["client", "server"]


def test_every_address_of_a_link_is_a_permanent_neighbour() -> None:
    assert ROUTER.hosts["server"].neighbours == (
        Neighbour("eth0", ip_address("10.0.2.1"), "02:00:00:00:02:02"),
        Neighbour("eth0", ip_address("2001:db8:2::1"), "02:00:00:00:02:02"),
    )


@pytest.mark.parametrize(
    ("host", "address", "interface", "mac"),
    [
        ("client", "10.0.2.2", "eth0", "02:00:00:00:02:01"),
        ("client", "2001:db8:2::2", "eth0", "02:00:00:00:02:01"),
        ("client", "203.0.113.1", "eth0", "02:00:00:00:02:01"),
        ("client", "203.0.113.255", "eth0", "ff:ff:ff:ff:ff:ff"),
        ("client", "255.255.255.255", "eth0", "ff:ff:ff:ff:ff:ff"),
        ("client", "224.0.0.251", "eth0", "01:00:5e:00:00:fb"),
        ("client", "239.129.1.2", "eth0", "01:00:5e:01:01:02"),
        ("client", "ff02::1:2", "eth0", "33:33:00:01:00:02"),
        ("device", "10.0.2.2", "lan0", "02:00:00:00:03:01"),
        ("device", "198.51.100.1", "wan0", "02:00:00:00:01:01"),
        ("server", "198.51.100.1", "eth0", "02:00:00:00:02:02"),
    ],
)
def test_routes(host: str, address: str, interface: str, mac: str) -> None:
    hop = ROUTER.route(host, ip_address(address))
    assert (hop.interface.host, hop.interface.name, hop.mac) == (host, interface, mac)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("203.0.113.5", "203.0.113.5 is client's own address"),
        ("203.0.113.77", "no host on the link of client:eth0 has 203.0.113.77"),
    ],
)
def test_no_route(address: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        ROUTER.route("client", ip_address(address))


def test_the_device_is_called_by_the_address_that_faces_the_caller() -> None:
    assert str(ROUTER.address("device", 4, towards="client")) == "203.0.113.1"
    assert str(ROUTER.address("device", 4, towards="server")) == "10.0.2.1"
    assert str(ROUTER.address("device", 6, towards="server")) == "2001:db8:2::1"
    assert str(ROUTER.address("server", 4, towards="client")) == "10.0.2.2"


def test_the_longest_prefix_wins() -> None:
    network = Network.of(
        LabSpec(
            hosts={
                "device": HostSpec(interfaces={"a": ["10.0.0.1/8"], "b": ["192.0.2.1/24"]}, gateway="two"),
                "one": HostSpec(interfaces={"eth0": ["10.0.0.2/8"]}),
                "two": HostSpec(interfaces={"eth0": ["192.0.2.2/24"]}),
            },
            links=[["device:a", "one:eth0"], ["two:eth0", "device:b"]],
        )
    )
    assert network.route("device", ip_address("10.0.0.2")).interface.name == "a"
    assert network.route("device", ip_address("11.0.0.2")).interface.name == "b"
    with pytest.raises(Problem, match=r"one has no route to 11\.0\.0\.2; give one a gateway in the lab"):
        network.route("one", ip_address("11.0.0.2"))
    with pytest.raises(Problem, match="one has no IPv6 address"):
        network.route("one", ip_address("ff02::1"))


# --- bridges ------------------------------------------------------------------------------------

BRIDGE = Network.of(LABS["bridge"])


def test_a_bridge_makes_one_link_of_many() -> None:
    hop = BRIDGE.route("client", ip_address("192.0.2.6"))
    assert (hop.interface.name, hop.mac) == ("eth0", "02:00:00:00:03:01")
    own = BRIDGE.route("client", ip_address("192.0.2.10"))
    assert own.mac == BRIDGE.hosts["device"].interfaces["br0"].mac


def test_a_bridge_knows_who_is_behind_which_port() -> None:
    bridge = BRIDGE.hosts["device"].bridges["br0"]
    assert bridge.ports == ("port0", "port1")
    assert bridge.stations == (Station("port0", "02:00:00:00:01:01"), Station("port1", "02:00:00:00:03:01"))
    assert [str(one) for one in BRIDGE.hosts["device"].interfaces["br0"].reaches] == ["client:eth0", "server:eth0"]
