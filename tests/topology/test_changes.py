from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from harness.model.problem import Problem
from harness.topology import changes
from harness.topology.builtin import LABS
from harness.topology.changes import ChangeSpec
from harness.topology.network import Network
from harness.topology.spec import LabSpec

DUAL = Network.of(
    msgspec.convert(
        {
            "hosts": {
                "device": {
                    "interfaces": {"wan0": ["203.0.113.2/30"], "wan1": ["198.51.100.2/30"], "wan0.7": ["10.7.0.1/24"]},
                    "vlans": {"wan0.7": {"link": "wan0", "id": 7}},
                    "routes": [{"to": "default", "via": "isp1", "metric": 10}, {"to": "10.0.0.0/8", "via": "isp2"}],
                    "rules": [{"mark": 1, "table": "main", "priority": 7}],
                    "forwarding": True,
                },
                "isp1": {"interfaces": {"eth0": ["203.0.113.1/30"]}},
                "isp2": {"interfaces": {"eth0": ["198.51.100.1/30"], "spare": []}},
                "third": {"interfaces": {"eth0": ["10.3.0.1/24"]}},
            },
            "links": [
                ["device:wan0", "isp1:eth0"],
                ["device:wan1", "isp2:eth0"],
                ["isp2:spare", "third:eth0"],
            ],
        },
        LabSpec,
    )
)


def changed(network: Network = DUAL, **change: Any) -> Network:
    return changes.plan(msgspec.convert(change, ChangeSpec), network).network


def routes(network: Network) -> list[str]:
    return list(map(str, network.hosts["device"].routes))


def test_an_interface_set_down_loses_its_routes_and_those_of_its_vlans() -> None:
    network = changed(links={"wan0": "down"})
    assert routes(network) == ["10.0.0.0/8 by 198.51.100.1"]
    assert network.hosts["device"].down == {"wan0", "wan0.7"}
    assert changed(network, links={"wan0": "up"}).hosts["device"].down == frozenset()


def test_a_flap_leaves_the_interface_up_without_its_routes() -> None:
    network = changed(links={"wan1": "flap"})
    assert routes(network) == ["0.0.0.0/0 by 203.0.113.1"]
    assert not network.hosts["device"].down


def test_a_route_of_several_next_hops_outlives_one_of_them() -> None:
    several = {"to": "192.0.2.0/24", "via": ["isp1", {"via": "isp2", "weight": 3}]}
    network = changed(add={"routes": [several]})
    assert routes(network)[-1] == "192.0.2.0/24 by 203.0.113.1, 198.51.100.1 weight 3"
    assert routes(changed(network, links={"wan0": "down"}))[-1] == routes(network)[-1]
    assert len(routes(changed(changed(network, links={"wan0": "down"}), links={"wan1": "down"}))) == 0


def test_a_route_to_be_deleted_may_be_named_by_its_prefix() -> None:
    assert routes(changed(delete={"routes": [{"to": "default"}]})) == ["10.0.0.0/8 by 198.51.100.1"]
    assert routes(changed(delete={"routes": [{"to": "10.0.0.0/8", "via": "isp2"}]})) == ["0.0.0.0/0 by 203.0.113.1"]


def test_a_route_takes_the_place_of_that_with_its_metric() -> None:
    network = changed(replace={"routes": [{"to": "default", "via": "isp2", "metric": 10}]})
    assert routes(network) == ["10.0.0.0/8 by 198.51.100.1", "0.0.0.0/0 by 198.51.100.1"]


def test_the_neighbours_know_of_an_address_that_moves_to_another_host() -> None:
    network = Network.of(LABS["bridge"])
    (before,) = (one.mac for one in network.hosts["client"].neighbours if str(one.address) == "192.0.2.6")
    network = changed(network, on="server", delete={"addresses": {"eth0": ["192.0.2.6/24"]}})
    assert "192.0.2.6" not in [str(one.address) for one in network.hosts["client"].neighbours]
    network = changed(network, add={"addresses": {"br0": ["192.0.2.6/24"]}})
    hop = network.route("client", ip_address("192.0.2.6"))
    assert hop.mac == network.hosts["device"].interfaces["br0"].mac != before
    assert network.owner(ip_address("192.0.2.6")) == "device"


def test_an_interface_without_addresses_is_reached_once_it_has_one() -> None:
    network = changed(on="isp2", add={"addresses": {"spare": ["10.3.0.2/24"]}})
    assert network.route("third", ip_address("10.3.0.2")).interface.name == "eth0"
    assert network.route("isp2", ip_address("10.3.0.1")).interface.name == "spare"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "changes nothing"),
        ({"on": "nobody", "links": {"eth0": "up"}}, "'nobody' is not a host of the lab"),
        ({"links": {"wan9": "up"}}, "'wan9' is not an interface of device"),
        ({"add": {"addresses": {"wan0": ["203.0.113.1/30"]}}}, "203.0.113.1 is an address of isp1"),
        ({"add": {"addresses": {"wan0": ["203.0.113.9"]}}}, "'203.0.113.9' has no prefix length"),
        ({"delete": {"addresses": {"wan0": ["203.0.113.9/30"]}}}, "device:wan0 does not have 203.0.113.9/30"),
        ({"delete": {"routes": [{"to": "10.9.0.0/16"}]}}, "device has no such route to 10.9.0.0/16"),
        ({"delete": {"routes": [{"to": "default", "metric": 7}]}}, "device has no such route to default"),
        ({"delete": {"rules": [{"mark": 2, "table": "main"}]}}, "device has no rule mark 2 table 254"),
        ({"add": {"routes": [{"to": "10.0.0.0/8", "via": "isp1"}]}}, "device has a route to 10.0.0.0/8"),
        ({"add": {"routes": [{"to": "10.9.0.0/16", "via": "third"}]}}, "third is not on a subnet of device"),
        ({"sysctls": {"kernel.hostname": "x"}}, "'kernel.hostname' is not a setting of a network namespace"),
    ],
)
def test_what_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem) as problem:
        changed(**change)
    assert problem.value.sentence.startswith(sentence)
