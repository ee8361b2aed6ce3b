"""Neighbours are resolved through the rulesets that are loaded, as the packets of a program would have it done."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Interface, ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.lab.lab import Lab, link_local
from harness.lab.neighbours import Query, Resolver
from harness.scenario.flow import speaking
from harness.topology.builtin import LABS
from harness.topology.interfaces import VlanSpec, VrfSpec, VxlanSpec
from harness.topology.network import Network
from harness.topology.parts import End, Interface
from harness.topology.spec import HostSpec, LabSpec

pytestmark = pytest.mark.kernel

CLIENT, DEVICE, SERVER = "2001:db8:113::5", "2001:db8:113::1", "2001:db8:2::2"
BASE = "type filter hook {hook} priority filter; policy {policy};"


def table(family: str, hook: str, *rules: str, policy: str = "accept") -> str:
    return "\n".join([f"table {family} t {{", "chain c {", BASE.format(hook=hook, policy=policy), *rules, "}", "}"])


@contextmanager
def lab_of(spec: LabSpec, tmp_path: Path, ruleset: str = "") -> Iterator[Lab]:
    with Lab.build(speaking(spec.hosts, Network.of(spec))) as lab:
        run(lab, spec.device, "nft", "-f", "-", text=ruleset)
        yield lab


def run(lab: Lab, host: str, *command: str, text: str = "") -> str:
    """The output of a program in a host of the lab."""
    namespace = lab.hosts[host].namespace
    return namespace.call(
        lambda: subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    )


def failed(lab: Lab, host: str, destination: str) -> list[str]:
    return [f"{query.host} {query.address}" for query in Resolver(lab).towards(host, ip_address(destination))]


def states(lab: Lab, host: str) -> dict[str, str]:
    """What a host knows of its neighbours."""
    lines = [line.split() for line in run(lab, host, "ip", "neigh", "show").splitlines()]
    return {line[0]: line[-1] for line in lines}


@pytest.mark.parametrize(
    ("ruleset", "destination", "unresolved"),
    [
        ("", "10.0.2.2", []),
        ("", SERVER, []),
        (table("arp", "input", policy="drop"), "10.0.2.2", ["client 203.0.113.1"]),
        (table("arp", "output", "arp operation reply drop"), "10.0.2.2", ["client 203.0.113.1"]),
        (table("arp", "output", "arp operation request drop"), "10.0.2.2", ["device 10.0.2.2"]),
        (table("arp", "input", policy="drop"), SERVER, []),
        (table("inet", "input", policy="drop"), SERVER, [f"client {DEVICE}"]),
        (table("inet", "input", policy="drop"), "10.0.2.2", []),
        (table("ip6", "input", "icmpv6 type nd-neighbor-solicit drop"), SERVER, [f"client {DEVICE}"]),
        (table("ip6", "input", "icmpv6 type nd-neighbor-advert drop"), SERVER, [f"device {SERVER}"]),
        (table("ip6", "output", "icmpv6 type nd-neighbor-advert drop"), SERVER, [f"client {DEVICE}"]),
        (table("ip6", "output", "icmpv6 type nd-neighbor-solicit drop"), SERVER, [f"device {SERVER}"]),
        (table("ip6", "input", "ip6 hoplimit != 255 drop"), SERVER, []),
        # A program's packet waits at the client, so its address is the source; that of a router's is link-local.
        (
            table("ip6", "input", f"icmpv6 type nd-neighbor-solicit ip6 saddr {CLIENT} drop"),
            SERVER,
            [f"client {DEVICE}"],
        ),
        (
            table("ip6", "output", "icmpv6 type nd-neighbor-solicit ip6 saddr fe80::/10 drop"),
            SERVER,
            [f"device {SERVER}"],
        ),
        (table("ip6", "output", f"icmpv6 type nd-neighbor-solicit ip6 saddr {DEVICE} drop"), SERVER, []),
    ],
)
def test_rulesets_see_it(tmp_path: Path, ruleset: str, destination: str, unresolved: Sequence[str]) -> None:
    with lab_of(LABS["router"], tmp_path, ruleset) as lab:
        assert failed(lab, "client", destination) == unresolved


def test_each_host_knows_the_others_afterwards(tmp_path: Path) -> None:
    with lab_of(LABS["router"], tmp_path) as lab:
        assert states(lab, "client") == states(lab, "server") == {}
        assert failed(lab, "client", "10.0.2.2") == []
        assert states(lab, "client") == {"203.0.113.1": "REACHABLE"}
        assert states(lab, "device")["10.0.2.2"] == "REACHABLE"
        assert states(lab, "device")["203.0.113.5"] in ("STALE", "DELAY")  # learned from the question
        assert failed(lab, "client", SERVER) == []
        assert states(lab, "client")[DEVICE] == "REACHABLE"


def test_what_failed_leaves_no_entry_that_holds_packets(tmp_path: Path) -> None:
    with lab_of(LABS["host"], tmp_path, table("inet", "input", policy="drop")) as lab:
        assert failed(lab, "client", "2001:db8:192::10") == ["client 2001:db8:192::10"]
        assert states(lab, "client").get("2001:db8:192::10", "FAILED") == "FAILED"
        assert failed(lab, "client", "192.0.2.10") == []
        run(lab, "device", "nft", "flush", "ruleset")
        assert failed(lab, "client", "2001:db8:192::10") == []


def test_a_program_of_the_device_asks_through_its_output_hook(tmp_path: Path) -> None:
    ruleset = table("ip6", "output", "icmpv6 type nd-neighbor-solicit ip6 saddr 2001:db8:192::10 drop")
    with lab_of(LABS["host"], tmp_path, ruleset) as lab:
        assert failed(lab, "device", "2001:db8:192::5") == ["device 2001:db8:192::5"]
        assert failed(lab, "client", "2001:db8:192::10") == []


@pytest.mark.parametrize(
    ("ruleset", "destination", "unresolved"),
    [
        ("", "192.0.2.6", []),
        (table("bridge", "forward", "ether type arp drop"), "192.0.2.6", ["client 192.0.2.6"]),
        (table("bridge", "forward", "ether type arp drop"), "192.0.2.10", []),
        (table("bridge", "input", "ether type arp drop"), "192.0.2.10", ["client 192.0.2.10"]),
        (
            table("bridge", "forward", "icmpv6 type nd-neighbor-advert drop"),
            "2001:db8:192::6",
            ["client 2001:db8:192::6"],
        ),
    ],
)
def test_across_a_bridge(tmp_path: Path, ruleset: str, destination: str, unresolved: Sequence[str]) -> None:
    with lab_of(LABS["bridge"], tmp_path, ruleset) as lab:
        assert failed(lab, "client", destination) == unresolved


def spec(links: list[list[str]], **hosts: Any) -> LabSpec:
    return LabSpec(hosts={name: HostSpec(**host) for name, host in hosts.items()}, links=links)


MADE = {
    "VLAN": spec(
        [["peer:eth0", "device:eth0"]],
        peer={
            "interfaces": {"eth0": [], "in": ["10.1.0.1/24", "fd00:1::1/64"]},
            "vlans": {"in": VlanSpec(link="eth0", id=7)},
        },
        device={
            "interfaces": {"eth0": [], "in": ["10.1.0.2/24", "fd00:1::2/64"]},
            "vlans": {"in": VlanSpec(link="eth0", id=7)},
        },
    ),
    "VRF": spec(
        [["peer:in", "device:in"]],
        peer={"interfaces": {"in": ["10.1.0.1/24", "fd00:1::1/64"]}},
        device={
            "interfaces": {"in": ["10.1.0.2/24", "fd00:1::2/64"], "blue": []},
            "vrfs": {"blue": VrfSpec(table=10, interfaces=["in"])},
        },
    ),
    "VXLAN": spec(
        [["peer:eth0", "device:eth0"]],
        peer={
            "interfaces": {"eth0": ["10.9.0.1/24"], "in": ["10.1.0.1/24", "fd00:1::1/64"]},
            "vxlans": {"in": VxlanSpec(id=42, local="10.9.0.1", remote="10.9.0.2")},
        },
        device={
            "interfaces": {"eth0": ["10.9.0.2/24"], "in": ["10.1.0.2/24", "fd00:1::2/64"]},
            "vxlans": {"in": VxlanSpec(id=42, local="10.9.0.2", remote="10.9.0.1")},
        },
    ),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize(("peer", "device"), [("10.1.0.1", "10.1.0.2"), ("fd00:1::1", "fd00:1::2")])
def test_by_interfaces_that_are_no_wires(tmp_path: Path, kind: str, peer: str, device: str) -> None:
    for host, destination in (("peer", device), ("device", peer)):
        with lab_of(MADE[kind], tmp_path) as lab:
            Resolver(lab).hold()
            assert failed(lab, host, destination) == []
            assert states(lab, host)[destination] == "REACHABLE"


def test_no_timer_asks_and_only_here(tmp_path: Path) -> None:
    names = ("base_reachable_time_ms", "delay_first_probe_time", "mcast_solicit")
    own = Path("/proc/sys/net/ipv4/neigh/default")
    before = {name: (own / name).read_text() for name in names}
    with lab_of(LABS["host"], tmp_path) as lab:
        for version, destination in ((4, "192.0.2.10"), (6, "2001:db8:192::10")):
            Resolver(lab).hold()
            assert failed(lab, "client", destination) == []
            settings = [
                int(run(lab, "client", "cat", f"/proc/sys/net/ipv{version}/neigh/eth0/{name}")) for name in names
            ]
            assert settings == [86_400_000, 86_400, 0]
        assert {name: (own / name).read_text() for name in names} == before


def test_silent_hosts_and_known_neighbours_have_entries() -> None:
    silent = Network.of(LABS["router"])
    assert speaking((), silent) is silent
    with Lab.build(speaking(["client"], silent)) as lab:
        assert states(lab, "device")["10.0.2.2"] == "PERMANENT"
        assert "203.0.113.5" not in states(lab, "device")
    given = LabSpec(hosts=LABS["host"].hosts, links=LABS["host"].links, neighbours="known")
    with Lab.build(speaking(["client"], Network.of(given))) as lab:
        assert set(states(lab, "client").values()) == set(states(lab, "device").values()) == {"PERMANENT"}
        assert not Resolver(lab).needed
        assert failed(lab, "client", "192.0.2.10") == []


def test_a_host_that_only_a_frame_has_reached(tmp_path: Path) -> None:
    with lab_of(LABS["router"], tmp_path, table("arp", "output", "arp operation request drop")) as lab:
        unanswered = Resolver(lab).beyond("device", 4)
        assert Query("device", "lan0", ip_address("10.0.2.2")) in unanswered


def test_link_local_addresses() -> None:
    own = IPv6Interface("2001:db8::1/64")
    plan = Interface(
        host="a", name="eth0", mac="02:00:00:00:01:01", addresses=(own,), peer=End("b", "eth0"), reaches=()
    )
    assert link_local(plan) == IPv6Interface("fe80::ff:fe00:101/64")
    given = IPv6Interface("fe80::1/64")
    assert link_local(msgspec.structs.replace(plan, addresses=(own, given))) == given
