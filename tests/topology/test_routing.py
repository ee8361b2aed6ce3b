from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from harness.model.problem import Problem
from harness.topology.network import Network
from harness.topology.spec import LabSpec


def device(routes: list[Any], rules: list[Any] = [], nexthops: list[Any] = []) -> Network:  # noqa: B006 - only read
    return Network.of(
        msgspec.convert(
            {
                "hosts": {
                    "device": {
                        "interfaces": {"wan0": ["203.0.113.2/30", "2001:db8:1::2/64"], "wan1": ["198.51.100.2/30"]},
                        "routes": routes,
                        "rules": rules,
                        "nexthops": nexthops,
                    },
                    "isp1": {"interfaces": {"eth0": ["203.0.113.1/30", "2001:db8:1::1/64"]}},
                    "isp2": {"interfaces": {"eth0": ["198.51.100.1/30"]}},
                },
                "links": [["device:wan0", "isp1:eth0"], ["device:wan1", "isp2:eth0"]],
            },
            LabSpec,
        )
    )


def test_several_next_hops_of_each_ip_version() -> None:
    network = device([{"to": "default", "via": ["isp1", {"via": "isp2", "weight": 2}]}])
    assert list(map(str, network.hosts["device"].routes)) == [
        "0.0.0.0/0 by 203.0.113.1, 198.51.100.1 weight 2",
        "::/0 by 2001:db8:1::1",
    ]


def test_routes_without_a_next_hop() -> None:
    said = [{"to": "0.0.0.0/0", "type": "local", "table": 100}, {"to": "10.9.0.0/16", "dev": "wan1"}]
    assert list(map(str, device(said).hosts["device"].routes)) == [
        "0.0.0.0/0 local in table 100",
        "10.9.0.0/16 by wan1",
    ]


def test_rules_that_exclude_and_those_that_ignore_default_routes() -> None:
    said = [
        {"not": True, "mark": 51820, "table": 51820},
        {"table": "main", "suppress_prefixlength": 0},
        {"dsfield": 184, "type": "prohibit"},
    ]
    rules = device([{"to": "default", "via": "isp1", "table": 51820}], said).hosts["device"].rules
    assert [str(one) for one in rules if one.version == 4] == [
        "not mark 51820 table 51820",
        "all table 254 suppress_prefixlength 0",
        "dsfield 184 prohibit",
    ]


@pytest.mark.parametrize(
    ("routes", "rules", "sentence", "keys"),
    [
        ([{"to": "default", "via": ["isp1", "nobody"]}], [], "'nobody' is neither", ("via", 1)),
        ([{"to": "default", "via": "isp1", "dev": "wan0"}], [], "with dev: a next hop is one address", ("via",)),
        ([{"to": "default", "dev": "wan7"}], [], "'wan7' is not an interface of device", ("dev",)),
        ([{"to": "default", "dev": "wan0", "type": "local"}], [], "a route of type local has no next hop", ("dev",)),
        ([], [{"dsfield": 1, "table": "main"}], "1 has bits of ECN", ("dsfield",)),
        ([], [{"type": "prohibit", "suppress_prefixlength": 0}], "a rule of type prohibit has no suppress", ()),
    ],
)
def test_what_is_refused(routes: list[Any], rules: list[Any], sentence: str, keys: tuple[object, ...]) -> None:
    with pytest.raises(Problem) as problem:
        device(routes, rules)
    assert problem.value.sentence.startswith(sentence)
    assert problem.value.keys == ("hosts", "device", "routes" if routes else "rules", 0, *keys)


def test_a_next_hop_that_is_in_no_network_of_its_interface() -> None:
    spec: dict[str, Any] = {
        "hosts": {
            "device": {
                "interfaces": {"eth0": ["203.0.113.7/32", "2001:db8::7/64"]},
                "routes": [
                    {"to": "default", "via": "172.31.1.1", "dev": "eth0"},
                    {"to": "default", "via": "fe80::1", "dev": "eth0"},
                ],
            },
            "router": {"interfaces": {"eth0": ["172.31.1.1/32", "fe80::1/64"]}},
        },
        "links": [["device:eth0", "router:eth0"]],
    }
    hops = [hop for route in Network.of(msgspec.convert(spec, LabSpec)).hosts["device"].routes for hop in route.hops]
    assert [(str(hop.via), hop.interface, hop.on_link) for hop in hops] == [
        ("172.31.1.1", "eth0", True),
        ("fe80::1", "eth0", False),  # the kernel takes those without being told
    ]
    spec["hosts"]["device"]["routes"] = [{"to": "default", "via": "172.31.1.2", "dev": "eth0"}]
    with pytest.raises(Problem, match=r"no host on the link of device:eth0 has 172\.31\.1\.2"):
        Network.of(msgspec.convert(spec, LabSpec))
    spec["hosts"]["device"]["routes"] = [{"to": "default", "via": "router", "dev": "eth0"}]
    with pytest.raises(Problem, match="with dev: a next hop is one address"):
        Network.of(msgspec.convert(spec, LabSpec))


def test_a_host_of_a_route_to_itself_alone_is_no_broadcast_address() -> None:
    network = device([{"to": "198.51.100.1/32", "dev": "wan1"}])
    hop = network.route("device", ip_address("198.51.100.1"))
    assert hop.mac == network.hosts["isp2"].interfaces["eth0"].mac


def test_routes_have_the_next_hops_of_nexthop_objects() -> None:
    objects = [
        *({"id": 1, "via": "isp1"}, {"id": 2, "via": "isp2"}, {"id": 6, "via": "isp1", "family": "ip6"}),
        *({"id": 3, "dev": "wan1"}, {"id": 10, "group": [1, {"id": 2, "weight": 3}]}),
    ]
    said = [{"to": "default", "nexthop": 10}, {"to": "default", "nexthop": 6}, {"to": "10.0.0.0/8", "nexthop": 3}]
    routes = device(said, nexthops=objects).hosts["device"].routes
    assert [(str(one), one.nexthop) for one in routes] == [
        ("0.0.0.0/0 by 203.0.113.1, 198.51.100.1 weight 3", 10),
        ("::/0 by 2001:db8:1::1", 6),
        ("10.0.0.0/8 by wan1", 3),
    ]
