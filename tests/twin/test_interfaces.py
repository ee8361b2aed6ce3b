"""Interfaces of a machine as a lab has them."""

from __future__ import annotations

from harness.topology.parts import Bridge, Tunnel, Vlan
from tests.twin.builders import addresses, link, network, twin


def test_interfaces_are_what_they_are_for_a_packet() -> None:
    made = twin(
        links=[
            link("bond0", "bond"),
            link("port0", "veth", master="bond0") | {"linkinfo": {"info_kind": "veth", "info_slave_kind": "bond"}},
            link("bond0.7", "vlan", link="bond0", data={"protocol": "[33024]", "id": 7}),
            link("br0", "bridge", data={"vlan_filtering": 0}),
            link("port1", master="br0"),
            link(
                "gre1",
                "gre",
                data={"local": "203.0.113.2", "remote": "203.0.113.9", "ikey": "0.0.0.7", "okey": "0.0.0.7"},
            ),
            link("ppp0", "ppp", mtu=1492),
            link("old0", up=False),
            link("gre0", "gre", up=False),
        ],
        addresses=addresses(
            bond0=["203.0.113.2/24"], br0=["10.0.0.1/24"], gre1=["10.255.0.1/30"], lo=["127.0.0.1/8", "192.0.2.53/32"]
        ),
    )
    device = network(made).hosts["device"]
    assert set(device.interfaces) == {"bond0", "bond0.7", "br0", "port1", "gre1", "ppp0", "loopback0"}
    assert isinstance(device.made["br0"], Bridge)
    assert isinstance(device.made["bond0.7"], Vlan)
    assert isinstance(device.made["gre1"], Tunnel)
    assert made.lab["hosts"]["near-bond0"]["tunnels"]["gre1"]["local"] == "203.0.113.9"
    assert made.lab["hosts"]["near-ppp0"]["mtu"] == {"eth0": 1492}
    assert "port0 is a part of bond0, which is an interface of its own: left out" in made.notes
    assert "old0 is down: left out" in made.notes
    assert "ppp0 is of kind ppp, which labs do not have: a wire" in made.notes
    assert not any("gre0" in note for note in made.notes)  # the module made it, nobody else
