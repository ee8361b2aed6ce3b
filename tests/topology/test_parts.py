"""Parts of a plan, in words, and which of its routes a host's kernel has."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from harness.topology.parts import (
    Bridge,
    Dummy,
    End,
    HostPlan,
    Interface,
    Macvlan,
    Route,
    RouteHop,
    RoutingRule,
    Tunnel,
    Vlan,
    Vrf,
    Vxlan,
    Wireguard,
    WireguardPeer,
)

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
NETWORK = ip_network("10.9.0.0/16")
ALL = RoutingRule(4, None, None, None, None, "", "", "unicast", 254, None)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (End("client", "eth0"), "client:eth0"),
        (Route(NETWORK, (RouteHop(ONE, "eth0"),)), "10.9.0.0/16 by 192.0.2.1"),
        (Route(NETWORK, (RouteHop(None, "eth0"),), table=7), "10.9.0.0/16 by eth0 in table 7"),
        (
            Route(NETWORK, (RouteHop(ONE, "a", weight=2), RouteHop(TWO, "b"))),
            "10.9.0.0/16 by 192.0.2.1 weight 2, 192.0.2.2",
        ),
        (Route(NETWORK, (), "blackhole"), "10.9.0.0/16 blackhole"),
        (ALL, "all table 254"),
        (ALL._replace(source=NETWORK, mark=7, inverted=True), "not from 10.9.0.0/16 mark 7 table 254"),
        (ALL._replace(type="prohibit", iif="eth0"), "iif eth0 prohibit"),
        (ALL._replace(suppress_prefixlength=0), "all table 254 suppress_prefixlength 0"),
        (Bridge(("a", "b"), ()), "bridge of a, b"),
        (Vlan("eth0", 7), "VLAN 7 of eth0"),
        (Vlan("eth0", 7, "802.1ad"), "VLAN 7 of eth0 (802.1ad)"),
        (Macvlan("eth0"), "macvlan on eth0"),
        (Vxlan(42, ONE, TWO, 4789), "VXLAN 42 to 192.0.2.2"),
        (Tunnel("gre", ONE, TWO), "gre to 192.0.2.2"),
        (Wireguard(51820, (WireguardPeer(End("laptop", "wg0"), (NETWORK,), None),)), "WireGuard with laptop"),
        (Vrf(7, ("a", "b")), "VRF of a, b, table 7"),
        (Dummy(), "leads nowhere"),
    ],
)
def test_in_words(part: object, words: str) -> None:
    assert str(part) == words


def test_the_first_address_of_an_ip_version() -> None:
    several = tuple(map(ip_interface, ("192.0.2.1/24", "2001:db8::1/64", "192.0.2.2/24")))
    end = End("client", "eth0")
    interface = Interface(host="client", name="eth0", mac="", addresses=several, peer=end, reaches=())
    assert (interface.address(4), interface.address(6)) == (ONE, ip_address("2001:db8::1"))
    assert Interface(host="", name="", mac="", addresses=several[:1], peer=end, reaches=()).address(6) is None


@pytest.mark.parametrize(("silent", "has"), [(False, [True, True]), (True, [False, True])])
def test_a_silent_host_has_the_routes_of_its_tunnels_alone(silent: bool, has: list[bool]) -> None:
    plan = HostPlan(
        name="client",
        interfaces={},
        made={"br0": Bridge(("a",), ()), "vlan7": Vlan("a", 7)},
        routes=(Route(NETWORK, (RouteHop(ONE, "eth0"),)), Route(NETWORK, (RouteHop(None, "wg0"),))),
        rules=(),
        neighbours=(),
        forwarding=False,
        sysctls={},
        silent=silent,
        speaking=frozenset({"wg0"}),
    )
    assert [plan.routes_in_kernel(one) for one in plan.routes] == has
    assert list(plan.bridges) == ["br0"]
