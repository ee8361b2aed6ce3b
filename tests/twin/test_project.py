"""From the output of the script to a lab and rulesets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.errors import HarnessError
from harness.scenario.load import load_lab
from harness.topology.network import Network
from harness.topology.parts import Bridge, Tunnel, Vlan, Wireguard
from harness.topology.spec import LabSpec
from harness.twin import machine, project
from harness.twin.project import Twin


def link(name: str, kind: str = "", *, up: bool = True, **more: Any) -> dict[str, Any]:
    """An interface as ip(8) shows it."""
    data = more.pop("data", {})
    info = {"linkinfo": {"info_kind": kind, "info_data": data}} if kind else {}
    return {"ifname": name, "flags": ["UP"] if up else [], "mtu": 1500, **info, **more}


def addresses(**of: list[str]) -> list[dict[str, Any]]:
    """Addresses of interfaces as ip(8) shows them."""
    found = []
    for name, texts in of.items():
        parts = [text.split("/") for text in texts]
        own = [{"family": "inet6" if ":" in a else "inet", "local": a, "prefixlen": int(n)} for a, n in parts]
        found.append({"ifname": name, "addr_info": own})
    return found


def output(**sections: Any) -> str:
    """What the script prints; sections are text, or values of which it prints JSON."""
    lines = [machine.FORMAT]
    for name, content in ({"host": "fw1.example.org 6.12.0", "links": [link("eth0")]} | sections).items():
        text = content if isinstance(content, str) else json.dumps(content)
        lines += [f"[{name}]", *(f"|{line}" for line in text.splitlines()), "|", "|=0"]
    return "\n".join(lines) + "\n"


def twin(**sections: Any) -> Twin:
    return project.of(machine.read(output(**sections)))


def network(made: Twin) -> Network:
    return Network.of(msgspec.convert(made.lab, LabSpec))


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


def test_rules_are_for_their_ip_version() -> None:
    made = twin(
        addresses=addresses(eth0=["192.0.2.1/24"]),
        routes4=[{"dst": "default", "gateway": "192.0.2.9", "dev": "eth0", "table": "100"}],
        rules4=[
            {"priority": 0, "src": "all", "table": "255"},
            {"priority": 50, "src": "all", "fwmark": "0x1", "fwmask": "0xff", "table": "100"},
            {"priority": 60, "not": None, "src": "10.0.0.0", "srclen": 8, "table": "254", "suppress_prefixlen": 0},
            {"priority": 70, "src": "all", "iif": "eth0", "action": "6"},
            {"priority": 80, "src": "all", "ipproto": "tcp", "table": "100"},
            {"priority": 90, "src": "all", "table": "220"},
            {"priority": 32766, "src": "all", "table": "254"},
        ],
    )
    assert made.lab["hosts"]["device"]["rules"] == [
        {"from": "0.0.0.0/0", "mark": 1, "mask": 255, "table": 100, "priority": 50},
        {"not": True, "from": "10.0.0.0/8", "table": "main", "suppress_prefixlength": 0, "priority": 60},
        {"from": "0.0.0.0/0", "iif": "eth0", "type": "blackhole", "priority": 70},
    ]
    assert [note for note in made.notes if "ipproto" in note]
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


def test_rulesets_of_iptables_are_told_apart() -> None:
    listing = """\
table ip filter { # handle 1
	chain INPUT { # handle 1
		type filter hook input priority filter; policy accept;
		xt match "comment" counter packets 3 bytes 180 accept # handle 2
	}
}
table inet own { # handle 2
	set dyn { # handle 1
		type ipv4_addr
		flags dynamic,timeout
		timeout 1h
		elements = { 192.0.2.66 expires 59m3s128ms }
	}

	chain c { # handle 3
		tcp dport 22 counter packets 7 bytes 420 accept comment "packets 1 bytes 2" # handle 4
	}
}
"""
    save = """\
# Generated by iptables-nft-save v1.8.9 (nf_tables) on Fri Nov 27 03:44:20 2026
*filter
:INPUT ACCEPT [5:300]
-A INPUT -m comment --comment ours -j ACCEPT
COMMIT
*nat
:OUTPUT ACCEPT [0:0]
COMMIT
"""
    made = twin(
        nft=listing,
        compat="# Warning: table ip filter is managed by iptables-nft, do not touch!",
        iptables=save,
        legacy6="*raw\n:OUTPUT ACCEPT [1:2]\n-A OUTPUT -j CT --notrack\nCOMMIT\n",
    )
    assert list(made.rulesets) == ["legacy.v6", "v4", "nft"]
    assert made.rulesets["v4"] == (
        "# Generated by iptables-nft-save v1.8.9 (nf_tables)\n*filter\n:INPUT ACCEPT [0:0]\n"
        "-A INPUT -m comment --comment ours -j ACCEPT\nCOMMIT\n"
    )
    assert "table ip filter" not in made.rulesets["nft"]
    assert "elements = { 192.0.2.66 }" in made.rulesets["nft"]
    assert 'tcp dport 22 counter accept comment "packets 1 bytes 2" # handle 4' in made.rulesets["nft"]
    assert ":OUTPUT ACCEPT [0:0]" in made.rulesets["legacy.v6"]


def test_settings_that_a_new_namespace_does_not_have() -> None:
    made = twin(
        links=[link("eth0.5"), link("eth1"), link("br0", "bridge"), link("port0", master="br0")],
        sysctls="net/ipv4/ip_forward:1\nnet/ipv6/conf/all/forwarding:0\nnet/ipv4/conf/eth0.5/rp_filter:2\n"
        "net/ipv4/conf/gone0/rp_filter:2\nnet/ipv4/conf/eth1/forwarding:0\nnet/ipv4/conf/eth0.5/forwarding:1\n"
        "net/ipv4/conf/default/rp_filter:1\nnet/ipv4/tcp_fastopen_key:1\n"
        "net/netfilter/nf_conntrack_tcp_be_liberal:1\nnet/bridge/bridge-nf-call-iptables:1\n",
    )
    device = made.lab["hosts"]["device"]
    assert device["forwarding"] is True
    assert device["sysctls"] == {
        "net/ipv4/conf/eth0.5/rp_filter": 2,
        "net.ipv4.conf.eth1.forwarding": 0,
        "net.netfilter.nf_conntrack_tcp_be_liberal": 1,
        "net.bridge.bridge-nf-call-iptables": 1,
        "net.ipv6.conf.all.forwarding": 0,
    }
    assert device["modules"] == ["br_netfilter", "nf_conntrack"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = twin(
        links=[link("eth0"), link("über%0")], addresses=addresses(eth0=["192.0.2.1/24"]), nft="table ip t {\n}\n"
    )
    paths = project.write(made, tmp_path / "fw1")
    assert [path.relative_to(tmp_path / "fw1").as_posix() for path in paths] == [
        "pytest.ini",
        "labs/fw1.yaml",
        "rulesets/fw1.nft",
    ]
    assert "über%0" in load_lab(tmp_path / "fw1/labs/fw1.yaml").hosts["device"].interfaces
    with pytest.raises(HarnessError, match="already exists"):
        project.write(made, tmp_path / "fw1")
