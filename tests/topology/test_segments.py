"""Who reaches whom without a router, and by which routes with one."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.model.problem import Problem
from harness.scenario.load import load_lab
from harness.topology.network import Network
from harness.topology.parts import Bridge, End, Macvlan, Station
from harness.topology.spec import LabSpec

LABS = Path(__file__).parents[2] / "scenarios/labs"
TRUNK = load_lab(LABS / "trunk.yaml")
PROVIDER = load_lab(LABS / "provider.yaml")


def planned(hosts: dict[str, Any], *links: tuple[str, str]) -> Network:
    return Network.of(msgspec.convert({"hosts": hosts, "links": [list(link) for link in links]}, LabSpec))


def reaches(network: Network, host: str, interface: str) -> list[str]:
    return [str(end) for end in network.hosts[host].interfaces[interface].reaches]


def test_a_vlan_reaches_its_own_through_a_switch() -> None:
    assert reaches(TRUNK, "gateway", "trunk0.10") == ["pc:eth0"]
    assert reaches(TRUNK, "gateway", "trunk0.20") == ["phone:eth0"]
    assert reaches(TRUNK, "pc", "eth0") == ["gateway:trunk0.10"]
    assert reaches(TRUNK, "gateway", "trunk0") == []


def test_a_tunnel_reaches_its_other_end() -> None:
    assert reaches(TRUNK, "gateway", "vx0") == ["branch:vx0"]
    assert reaches(TRUNK, "branch", "vx0") == ["gateway:vx0"]
    assert reaches(TRUNK, "gateway", "service0") == []


def test_a_vlan_has_the_ethernet_address_of_what_carries_it() -> None:
    interfaces = TRUNK.hosts["gateway"].interfaces
    assert interfaces["trunk0.10"].mac == interfaces["trunk0"].mac != interfaces["wan0"].mac
    assert interfaces["trunk0.10"].peer == End("gateway", "trunk0")


def test_a_switch_knows_who_is_behind_which_port_in_which_vlan() -> None:
    bridge = TRUNK.hosts["switch"].made["br0"]
    assert isinstance(bridge, Bridge)
    gateway, pc, phone = (
        TRUNK.hosts[name].interfaces[at].mac for name, at in (("gateway", "trunk0"), ("pc", "eth0"), ("phone", "eth0"))
    )
    assert set(bridge.stations) == {
        Station("up", gateway, 10),
        Station("up", gateway, 20),
        Station("port1", pc, 10),
        Station("port2", phone, 20),
    }


def test_a_bridge_that_knows_no_vlans_passes_all() -> None:
    network = planned(
        {
            "one": {
                "interfaces": {"eth0": ["192.0.2.1/24"], "v": ["10.0.0.1/24"]},
                "vlans": {"v": {"link": "eth0", "id": 7}},
            },
            "device": {"interfaces": {"a": [], "b": [], "br0": []}, "bridges": {"br0": ["a", "b"]}},
            "two": {
                "interfaces": {"eth0": ["192.0.2.2/24"], "v": ["10.0.0.2/24"]},
                "vlans": {"v": {"link": "eth0", "id": 7}},
            },
        },
        ("one:eth0", "device:a"),
        ("device:b", "two:eth0"),
    )
    assert reaches(network, "one", "eth0") == ["two:eth0"]
    assert reaches(network, "one", "v") == ["two:v"]
    assert network.hosts["device"].bridges["br0"].stations == (
        Station("a", "02:00:00:00:01:01"),
        Station("b", "02:00:00:00:03:01"),
    )


def test_a_vlan_in_a_vlan() -> None:
    host = {"vlans": {"v": {"link": "eth0", "id": 7}, "w": {"link": "v", "id": 8}}}
    network = planned(
        {
            "device": {"interfaces": {"eth0": [], "w": ["10.0.0.1/24"], "v": []}, **host},
            "two": {"interfaces": {"eth0": [], "v": [], "w": ["10.0.0.2/24"]}, **host},
        },
        ("device:eth0", "two:eth0"),
    )
    assert reaches(network, "device", "w") == ["two:w"]
    assert list(network.hosts["device"].made) == ["v", "w"]


def test_a_bridge_of_a_tunnel_and_a_wire() -> None:
    network = planned(
        {
            "device": {
                "interfaces": {"eth0": ["10.0.0.1/30"], "lan0": [], "vx0": [], "br0": ["192.0.2.1/24"]},
                "vxlans": {"vx0": {"id": 1, "local": "10.0.0.1", "remote": "10.0.0.2"}},
                "bridges": {"br0": ["lan0", "vx0"]},
            },
            "far": {
                "interfaces": {"eth0": ["10.0.0.2/30"], "vx0": ["192.0.2.2/24"]},
                "vxlans": {"vx0": {"id": 1, "local": "10.0.0.2", "remote": "10.0.0.1"}},
            },
            "near": {"interfaces": {"eth0": ["192.0.2.3/24"]}},
        },
        ("device:eth0", "far:eth0"),
        ("device:lan0", "near:eth0"),
    )
    assert reaches(network, "near", "eth0") == ["device:br0", "far:vx0"]
    assert [one.port for one in network.hosts["device"].bridges["br0"].stations] == ["lan0", "vx0"]
    assert network.hosts["far"].silent
    assert network.hosts["far"].speaking == {"eth0"}


def test_routes_and_rules() -> None:
    gateway, pe = TRUNK.hosts["gateway"], PROVIDER.hosts["pe"]
    assert list(map(str, gateway.routes)) == [
        "0.0.0.0/0 by 203.0.113.5",
        "10.0.0.0/8 unreachable",
        "192.168.43.0/24 by 10.0.0.2",
    ]
    assert gateway.routes[1].metric == 4000
    assert "0.0.0.0/0 by 10.0.1.2 in table 10" in map(str, pe.routes)
    assert [(str(rule), rule.version) for rule in pe.rules] == [
        ("from 10.255.0.0/24 to 198.51.100.0/24 table 100", 4),
        ("mark 1 blackhole", 4),
        ("mark 1 blackhole", 6),
    ]


def test_the_next_hop_of_a_sender() -> None:
    hop = TRUNK.route("branch", next(iter(TRUNK.hosts["pc"].interfaces["eth0"].addresses)).ip)
    assert (hop.interface.name, hop.mac) == ("vx0", TRUNK.hosts["gateway"].interfaces["vx0"].mac)
    with pytest.raises(Problem, match=r"gateway's route to 10.0.0.0/8 is of type unreachable"):
        TRUNK.route("gateway", next(iter(PROVIDER.hosts["admin"].interfaces["eth0"].addresses)).ip)


def _lab(hosts: dict[str, object], links: list[list[str]], **more: object) -> Network:
    return Network.of(msgspec.convert({"hosts": hosts, "links": links, **more}, LabSpec))


def test_a_tunnel_for_ip_reaches_its_other_end_without_ethernet() -> None:
    def end(own: str, other: str, inner: str) -> dict[str, object]:
        return {
            "interfaces": {"eth0": [f"{own}/24"], "tun0": [inner]},
            "tunnels": {"tun0": {"kind": "gre", "local": own, "remote": other, "key": 7}},
        }

    hosts = {
        "device": end("192.0.2.1", "192.0.2.2", "10.9.0.1/30"),
        "far": end("192.0.2.2", "192.0.2.1", "10.9.0.2/30"),
    }
    network = _lab(hosts, [["device:eth0", "far:eth0"]])
    assert list(map(str, network.hosts["device"].interfaces["tun0"].reaches)) == ["far:tun0"]
    assert [one.interface for one in network.hosts["device"].neighbours] == ["eth0"]
    assert not network.hosts["far"].silent
    assert network.route("device", ip_address("10.9.0.2")).mac == "00:00:00:00:00:00"
    assert str(network.hosts["device"].made["tun0"]) == "gre to 192.0.2.2"


def test_several_hosts_may_have_an_anycast_address_on_different_links() -> None:
    hosts = {
        "device": {"interfaces": {"a": ["10.1.0.1/24"], "b": ["10.2.0.1/24"]}},
        "one": {"interfaces": {"eth0": ["10.1.0.2/24", "10.0.0.53/32"]}},
        "two": {"interfaces": {"eth0": ["10.2.0.2/24", "10.0.0.53/32"]}},
    }
    links = [["device:a", "one:eth0"], ["device:b", "two:eth0"]]
    with pytest.raises(Problem, match=r"10\.0\.0\.53 is also the address of one:eth0"):
        _lab(hosts, links)
    network = _lab(hosts, links, anycast=["10.0.0.53"])
    shared = [one.interface for one in network.hosts["device"].neighbours if str(one.address) == "10.0.0.53"]
    assert shared == ["a", "b"]


def test_an_anycast_address_on_one_link_is_a_conflict() -> None:
    hosts = {
        "device": {"interfaces": {"eth0": ["10.1.0.1/24", "10.0.0.53/32"]}},
        "one": {"interfaces": {"eth0": ["10.1.0.2/24", "10.0.0.53/32"]}},
    }
    with pytest.raises(Problem, match=r"10\.0\.0\.53 is also the address of device:eth0"):
        _lab(hosts, [["device:eth0", "one:eth0"]], anycast=["10.0.0.53"])


@pytest.mark.parametrize(
    ("modes", "near"),
    [
        (("bridge", "bridge"), ["device:m1", "isp:eth0"]),
        (("bridge", "private"), ["isp:eth0"]),
        (("private", "private"), ["isp:eth0"]),
    ],
)
def test_a_macvlan_reaches_the_wire_and_not_what_carries_it(modes: tuple[str, str], near: list[str]) -> None:
    subnet = [f"192.0.2.{number}/24" for number in range(4)]
    device = {
        "interfaces": {"eth0": ["10.0.0.1/8"], "m0": [subnet[1]], "m1": ["198.51.100.1/24"]},
        "macvlans": {f"m{number}": {"link": "eth0", "mode": mode} for number, mode in enumerate(modes)},
        "mtu": {"eth0": 1400},
    }
    hosts = {"device": device, "isp": {"interfaces": {"eth0": [subnet[2]]}}}
    network = planned(hosts, ("device:eth0", "isp:eth0"))
    interfaces = network.hosts["device"].interfaces
    assert sorted(reaches(network, "device", "m0")) == near
    assert reaches(network, "device", "eth0") == ["isp:eth0"]
    assert sorted(reaches(network, "isp", "eth0")) == ["device:eth0", "device:m0", "device:m1"]
    assert len({one.mac for one in interfaces.values()}) == 3
    assert {one.mtu for one in interfaces.values()} == {1400}
    assert network.hosts["device"].made["m1"] == Macvlan("eth0", modes[1])


def test_a_macvlan_may_carry_a_vlan_and_be_carried_by_one() -> None:
    device = {
        "interfaces": {"eth0": [], "eth0.7": [], "m0": [], "m0.8": ["192.0.2.1/24"]},
        "vlans": {"m0.8": {"link": "m0", "id": 8}, "eth0.7": {"link": "eth0", "id": 7}},
        "macvlans": {"m0": {"link": "eth0.7"}},
    }
    far = {"interfaces": {"eth0": [], "a": [], "b": ["192.0.2.2/24"]}, "vlans": {"a": {"link": "eth0", "id": 7}}}
    far["vlans"]["b"] = {"link": "a", "id": 8}  # type: ignore[index] # a mapping, as above
    network = planned({"device": device, "far": far}, ("device:eth0", "far:eth0"))
    assert reaches(network, "device", "m0.8") == ["far:b"]
    assert list(network.hosts["device"].made) == ["eth0.7", "m0", "m0.8"]
