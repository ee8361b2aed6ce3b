"""Hosts around the machine, where its routes lead."""

from __future__ import annotations

from harness.topology.parts import Wireguard
from tests.twin.builders import addresses, link, network, twin


def test_hosts_stand_where_routes_lead() -> None:
    made = twin(
        links=[link("wan0"), link("lan0")],
        addresses=addresses(wan0=["203.0.113.2/24"], lan0=["192.168.1.1/24"]),
        routes4=[
            {"dst": "default", "gateway": "203.0.113.1", "dev": "wan0", "table": "254", "protocol": "3"},
            {"dst": "10.20.0.0/16", "gateway": "192.168.1.254", "dev": "lan0", "table": "254", "metric": 7},
        ],
        nft="table ip t {\n\tchain c {\n\t\tip saddr 198.51.100.9 ip daddr 192.168.1.80 accept\n\t}\n}\n",
    )
    hosts = made.lab["hosts"]
    assert hosts["device"]["routes"] == [
        {"to": "0.0.0.0/0", "via": "203.0.113.1"},
        {"to": "10.20.0.0/16", "metric": 7, "via": "192.168.1.254"},
    ]
    assert hosts["near-wan0"]["interfaces"]["eth0"] == ["203.0.113.1/24"]
    assert hosts["near-lan0"]["interfaces"]["eth0"] == ["192.168.1.254/24", "192.168.1.80/24"]  # rules name the latter
    assert "198.51.100.9/32" in hosts["internet"]["interfaces"]["eth0"]
    assert hosts["far-lan0"]["interfaces"]["eth0"][0].startswith("10.20.")
    known = {name: {one["to"]: one["via"] for one in hosts[name]["routes"]} for name in ("near-wan0", "near-lan0")}
    outside, inside = (hosts[name]["interfaces"]["eth0"][-2].partition("/")[0] for name in ("internet", "far-lan0"))
    assert known["near-wan0"]["0.0.0.0/0"] == outside
    assert known["near-wan0"]["192.168.1.0/24"] == "203.0.113.2"
    assert known["near-lan0"]["0.0.0.0/0"] == "192.168.1.1"  # the machine, as for any host there
    assert known["near-lan0"]["10.20.0.0/16"] == inside
    assert not made.notes
    assert network(made).hosts["device"].neighbours


def test_a_router_at_the_end_of_a_tunnel_sends_what_it_does_not_know_to_the_machine() -> None:
    tunnel = link("gre1", "gre", mtu=1476, data={"local": "192.168.1.1", "remote": "10.99.0.1"})
    made = twin(
        links=[link("wan0"), link("lan0"), tunnel],
        addresses=addresses(wan0=["203.0.113.2/24"], lan0=["192.168.1.1/24"], gre1=["10.8.0.1/30"]),
        routes4=[
            {"dst": "default", "gateway": "203.0.113.1", "dev": "wan0", "table": "254"},
            {"dst": "10.99.0.1", "gateway": "192.168.1.254", "dev": "lan0", "table": "254"},
        ],
    )
    routes = {one["to"]: one["via"] for one in made.lab["hosts"]["near-lan0"]["routes"]}
    assert routes["0.0.0.0/0"] == "192.168.1.1"
    assert routes["10.99.0.1/32"].startswith("198.18.")


def test_next_hops_outside_of_every_network() -> None:
    made = twin(
        links=[link("eth0"), link("wan0")],
        addresses=addresses(eth0=["203.0.113.77/32"], wan0=["2001:db8::2/64"]),
        routes4=[{"dst": "default", "gateway": "172.31.1.1", "dev": "eth0", "flags": ["onlink"]}],
        routes6=[{"dst": "default", "gateway": "fe80::1", "dev": "wan0", "metric": 1024}],
    )
    assert made.lab["hosts"]["device"]["routes"] == [
        {"to": "0.0.0.0/0", "via": "172.31.1.1", "dev": "eth0"},
        {"to": "::/0", "via": "fe80::1", "dev": "wan0"},
    ]
    assert not made.notes
    assert network(made)


def test_the_same_addresses_in_two_vrfs() -> None:
    made = twin(
        links=[
            link("red", "vrf", data={"table": 10}),
            link("blue", "vrf", data={"table": 20}),
            link("red0", master="red"),
            link("blue0", master="blue"),
        ],
        addresses=addresses(red0=["192.168.1.1/24"], blue0=["192.168.1.1/24"]),
    )
    assert made.lab["hosts"]["device"]["vrfs"]["red"] == {"table": 10, "interfaces": ["red0"]}
    assert any("192.168.1.1" in note for note in made.notes)  # a host of a lab has an address once
    assert network(made)


def test_peers_of_wireguard_are_hosts_without_their_keys() -> None:
    made = twin(
        links=[link("wan0"), link("wg0", "wireguard", mtu=1420)],
        addresses=addresses(wan0=["203.0.113.1/24"], wg0=["10.8.0.1/24"]),
        routes4=[
            {"dst": "default", "gateway": "203.0.113.254", "dev": "wan0"},
            {"dst": "192.168.77.0/24", "dev": "wg0"},
        ],
        wireguard="allowed wg0 - 10.8.0.2/32 192.168.77.0/24\nallowed wg0 - 10.8.0.3/32\n"
        "endpoint wg0 - 198.51.100.1:51820\nendpoint wg0 - (none)\nport wg0 51821\nmark wg0 off\n",
    )
    device = network(made).hosts["device"]
    (peer,) = made.lab["hosts"]["device"]["wireguards"]["wg0"]["peers"].values()
    assert peer == {"allowed": ["10.8.0.2/32", "192.168.77.0/24"], "endpoint": "198.51.100.1", "port": 51820}
    of = device.made["wg0"]
    assert isinstance(of, Wireguard)
    assert of.port == 51821
    assert "a peer of wg0 without a known endpoint is left out" in made.notes
