"""Labs built in the kernel, looked at with ip(8)."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from harness.errors import HarnessError, Unsupported
from harness.lab import lab as lab_module
from harness.lab import requests, rtnetlink
from harness.lab.capture import Capture
from harness.lab.inject import Wire
from harness.lab.lab import Host, Lab
from harness.packets.frames import build
from harness.packets.spec import Send
from harness.scenario.flow import speaking
from harness.topology.builtin import LABS
from harness.topology.interfaces import NetemSpec
from harness.topology.network import Network
from harness.topology.spec import HostSpec, LabSpec
from harness.wait import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def router() -> Iterator[Lab]:
    with Lab.build(Network.of(LABS["router"])) as lab:
        yield lab


def ip(host: Host, *arguments: str) -> list[dict[str, Any]]:
    """What ``ip -json`` says in the host's namespace."""

    def run() -> str:
        return subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, check=True).stdout

    found: list[dict[str, Any]] = json.loads(host.namespace.call(run) or "[]")
    return found


def addresses(host: Host) -> dict[str, list[str]]:
    return {
        link["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]
        for link in ip(host, "address")
        if link["ifname"] != "lo"
    }


def test_the_device_has_the_addresses_of_the_plan(router: Lab) -> None:
    assert addresses(router.device) == {
        "wan0": ["203.0.113.1/24", "2001:db8:113::1/64"],
        "lan0": ["10.0.2.1/24", "2001:db8:2::1/64"],
    }


def test_the_other_hosts_are_silent(router: Lab) -> None:
    for name in ("client", "server"):
        assert addresses(router.hosts[name]) == {"eth0": []}


def test_every_link_is_up_and_has_the_address_of_the_plan(router: Lab) -> None:
    for host in router.hosts.values():
        links = {link["ifname"]: link for link in ip(host, "link") if link["ifname"] != "lo"}
        assert {name: link["operstate"] for name, link in links.items()} == dict.fromkeys(host.interfaces, "UP")
        assert {name: link["ifindex"] for name, link in links.items()} == host.interfaces
        assert {name: link["address"] for name, link in links.items()} == {
            name: one.mac for name, one in host.plan.interfaces.items()
        }


def test_the_device_knows_its_neighbours_and_gateways(router: Lab) -> None:
    neighbours = {(one["dst"], one["dev"], *one["state"]) for one in ip(router.device, "neighbour")}
    assert {("203.0.113.5", "wan0", "PERMANENT"), ("2001:db8:2::2", "lan0", "PERMANENT")} <= neighbours
    for family in ("-4", "-6"):
        (default,) = ip(router.device, family, "route", "show", "default")
        assert default["dev"] == "wan0"


@pytest.mark.parametrize(("lab", "forwarding"), [("router", "1"), ("host", "0")])
def test_only_a_router_forwards(lab: str, forwarding: str) -> None:
    with Lab.build(Network.of(LABS[lab])) as built:
        for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            assert built.device.namespace.call(Path("/proc/sys/net", key).read_text).strip() == forwarding


def test_a_host_and_an_interface_are_known_by_number(router: Lab) -> None:
    server = router.hosts["server"]
    assert router.by_inum[server.inum] is server
    assert server.interface(server.interfaces["eth0"]) == "eth0"
    assert server.interface(1) == "lo"
    assert server.interface(9999) == ""
    indexes = [index for host in router.hosts.values() for index in host.interfaces.values()]
    assert len(set(indexes)) == len(indexes)


def test_nobody_says_anything_by_himself(router: Lab) -> None:
    """No address resolution, router discovery or multicast report after the lab is built."""
    capture = Capture(router.hosts.values())
    frame = bytes.fromhex("020000000201020000000101") + struct.pack("!H", 0x88B5) + bytes(46)
    Wire(router.hosts["client"], "eth0").send(frame)
    seen: list[bytes] = []

    def arrived() -> bool:
        seen.extend(one.frame for one in capture.read())
        return frame in seen

    wait_until(arrived, 5, "a frame")
    assert seen == [frame]


def test_the_multicast_groups_of_addresses_are_joined_and_reported(router: Lab) -> None:
    """Solicited-node groups (RFC 4291 section 2.7.1) of the addresses, and of the subnet-router anycast addresses."""
    lines = router.device.namespace.call(Path("/proc/thread-self/net/igmp6").read_text).splitlines()
    flags = {(name, group): int(bits, 16) for _, name, group, _, bits, _ in map(str.split, lines)}
    for group in ("ff0200000000000000000001ff000001", "ff0200000000000000000001ff000000"):
        for name in ("wan0", "lan0"):
            assert flags[name, group] & 0x03 == 0x02  # reported, with no timer running


def test_a_group_that_another_host_on_the_link_has_reported_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def joined(host: Host) -> dict[str, int]:
        return dict(host.namespace.call(lambda: [(group, flags) for (_, group), flags in lab_module._memberships()]))

    monkeypatch.setattr(lab_module, "JOINED_S", 60.0)
    group = "ff0200000000000000000001ff000001"  # of both hosts' addresses
    spec = LabSpec(
        hosts={
            "left": HostSpec(interfaces={"eth0": ["2001:db8:1::1/64"]}),
            "right": HostSpec(interfaces={"eth0": ["2001:db8:1::1:0:1/64"]}),
        },
        links=[["left:eth0", "right:eth0"]],
        device="left",
    )
    begin = time.monotonic()
    with Lab.build(speaking({"right"}, Network.of(spec))) as built:
        flags = [joined(host)[group] for host in built.hosts.values()]
    assert all(each & lab_module.MAF_LOADED and not each & lab_module.MAF_TIMER_RUNNING for each in flags)
    assert any(not each & lab_module.MAF_LAST_REPORTER for each in flags), "neither report was suppressed"
    assert time.monotonic() - begin < 30


def test_the_lab_is_not_seen_in_the_host() -> None:
    def host() -> tuple[str, list[str]]:
        links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout
        return links, sorted(str(path) for path in Path("/run").glob("netns/*"))

    before = host()
    with Lab.build(Network.of(LABS["router"])):
        assert host() == before
    assert host() == before


def test_two_labs_at_once_do_not_meet() -> None:
    with Lab.build(Network.of(LABS["router"])) as one, Lab.build(Network.of(LABS["router"])) as other:
        capture = Capture(other.hosts.values())
        own = Capture([one.device])
        Wire(one.hosts["client"], "eth0").send(b"\xff" * 12 + b"\x88\xb5" + bytes(46))
        wait_until(own.read, 5, "a frame")
        assert capture.read() == []


def test_the_same_lab_again_costs_two_datagrams_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyroute2 takes longer to write a request than the kernel to do it, and each datagram is a system call or two."""
    written: list[str] = []
    asked: list[int] = []

    def write(what: str, method: str, /, **arguments: Any) -> rtnetlink.NetlinkRequest:
        written.append(what)
        return rtnetlink.written(what, method, **arguments)

    def ask(socket: rtnetlink.RouteSocket, requests: Sequence[rtnetlink.NetlinkRequest]) -> None:
        asked.append(len(requests))
        original(socket, requests)

    original = rtnetlink.RouteSocket.ask
    network = Network.of(LABS["router"])
    with Lab.build(network):
        monkeypatch.setattr(requests, "written", write)
        monkeypatch.setattr(rtnetlink.RouteSocket, "ask", ask)
    with Lab.build(network) as lab:
        assert written == []
        assert len([count for count in asked if count]) <= 2 * len(lab.hosts)
        assert max(asked) < rtnetlink.BATCH


def test_a_host_can_have_settings_of_its_interfaces() -> None:
    spec = LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24"]}),
            "device": HostSpec(interfaces={"eth0": ["192.0.2.1/24"]}, sysctls={"net.ipv4.conf.eth0.rp_filter": 1}),
        },
        links=[["client:eth0", "device:eth0"]],
    )
    with Lab.build(Network.of(spec)) as lab:
        read = Path("/proc/sys/net/ipv4/conf/eth0/rp_filter").read_text
        assert lab.device.namespace.call(read).strip() == "1"


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize(("delay", "interval"), [(0, 100), (0.5, 1000)])
def test_an_unknown_neighbour_is_given_up_soon_where_no_answer_can_be_late(
    version: str, delay: float, interval: int
) -> None:
    slow = {"netem": {"eth0": NetemSpec(delay=delay)}} if delay else {}
    spec = LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24", "2001:db8::5/64"]}, **slow),
            "device": HostSpec(interfaces={"eth0": ["192.0.2.1/24", "2001:db8::1/64"]}),
        },
        links=[["client:eth0", "device:eth0"]],
    )
    with Lab.build(Network.of(spec)) as lab:
        read = Path(f"/proc/sys/net/{version}/neigh/eth0/retrans_time_ms").read_text
        assert int(lab.device.namespace.call(read)) == interval


def test_a_packet_to_an_address_that_nobody_has_is_given_up_within_a_second() -> None:
    with Lab.build(Network.of(LABS["host"])) as lab:
        opened = lab.device.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        begun = time.monotonic()
        opened.sendto(b"anybody?", ("192.0.2.77", 7))
        opened.settimeout(30)
        with pytest.raises(OSError, match="No route to host"):
            opened.recv(1)
        assert time.monotonic() - begun < 2


def test_what_the_kernel_refuses_is_named() -> None:
    spec = LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24"]}),
            "device": HostSpec(interfaces={"..": ["192.0.2.1/24"]}),
        },
        links=[["client:eth0", "device:.."]],
    )
    words = r"the kernel refused the link client:eth0 to device:\.\. of client"
    with pytest.raises(HarnessError, match=words), Lab.build(Network.of(spec)):
        pass


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_device_writes_true_checksums(router: Lab, family: socket.AddressFamily) -> None:
    capture = Capture([router.hosts["server"]])
    to = "10.0.2.2" if family == socket.AF_INET else "2001:db8:2::2"
    router.device.namespace.socket(family, socket.SOCK_DGRAM).sendto(b"hello", (to, 9))
    seen: list[bytes] = []
    wait_until(lambda: seen.extend(one.frame for one in capture.read()) or seen, 5, "a datagram")
    (frame,) = seen
    start, addresses_at = (34, slice(26, 34)) if family == socket.AF_INET else (54, slice(22, 54))
    datagram = frame[start:]
    pseudo = frame[addresses_at] + struct.pack("!HH", socket.IPPROTO_UDP, len(datagram))
    assert ones_complement_sum(pseudo + datagram) == 0xFFFF


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071; 0xffff when a checksum inside is right."""
    total = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_bridge_has_its_ports_and_stations() -> None:
    with Lab.build(Network.of(LABS["bridge"])) as lab:
        links = {link["ifname"]: link for link in ip(lab.device, "-details", "link")}
        assert links["br0"]["operstate"] == "UP"
        assert [links[port].get("master") for port in ("port0", "port1")] == ["br0", "br0"]
        assert addresses(lab.device)["br0"] == ["192.0.2.10/24", "2001:db8:192::10/64"]
        sender = Wire(lab.hosts["client"], "eth0")
        capture = Capture([lab.hosts["server"]])
        (frame,) = build(msgspec.convert({"from": "client", "to": "server", "icmp": {}}, Send), lab.network)
        sender.send(frame.data)
        arrived: list[bytes] = []

        def came() -> bool:
            arrived.extend(one.frame for one in capture.read())
            return bool(arrived)

        wait_until(came, 5, "the frame to cross the bridge")
        assert arrived == [frame.data]


TUNNELS = """\
hosts:
  far:
    interfaces: {eth0: [10.0.0.2/30], vx0: [192.168.42.2/24]}
    vxlans: {vx0: {id: 42, local: 10.0.0.2, remote: 10.0.0.1, port: 8472}}
  device:
    interfaces:
      eth0: [10.0.0.1/30]
      eth0.7: [192.168.7.1/24]
      vx0: [192.168.42.1/24]
      service0: [192.0.2.1/32]
    vlans: {eth0.7: {link: eth0, id: 7}}
    vxlans: {vx0: {id: 42, local: 10.0.0.1, remote: 10.0.0.2, port: 8472}}
    dummies: [service0]
    mtu: {eth0: 1400, vx0: 1300}
    routes:
      - {to: 10.0.0.0/8, type: prohibit, metric: 7}
      - {to: default, via: far, table: 100}
    rules: [{from: 192.0.2.0/24, table: 100, priority: 900}, {mark: 6, mask: 7, type: unreachable}]
links: [["far:eth0", "device:eth0"]]
"""


def test_what_is_made_of_other_interfaces() -> None:
    plan = Network.of(msgspec.convert(YAML(typ="safe").load(TUNNELS), LabSpec))
    try:
        with Lab.build(plan) as lab:
            device = lab.device
            links = {link["ifname"]: link for link in ip(device, "-details", "link") if link["ifname"] != "lo"}
            assert {name: link["mtu"] for name, link in links.items()} == {
                "eth0": 1400,
                "eth0.7": 1400,
                "vx0": 1300,
                "service0": 1500,
            }
            data = {name: link["linkinfo"] for name, link in links.items()}
            assert (data["eth0.7"]["info_kind"], data["eth0.7"]["info_data"]["id"]) == ("vlan", 7)
            tunnel = data["vx0"]["info_data"]
            assert [tunnel[key] for key in ("id", "local", "remote", "port")] == [42, "10.0.0.1", "10.0.0.2", 8472]
            assert addresses(device)["service0"] == ["192.0.2.1/32"]
            (route,) = ip(device, "route", "show", "table", "100")
            assert (route["dst"], route["gateway"]) == ("default", "10.0.0.2")
            (route,) = ip(device, "route", "show", "type", "prohibit")
            assert (route["dst"], route["metric"]) == ("10.0.0.0/8", 7)
            rules = {rule["priority"]: rule for rule in ip(device, "rule")}
            assert (rules[900]["src"], rules[900]["srclen"], rules[900]["table"]) == ("192.0.2.0", 24, "100")
            assert any(rule.get("fwmark") == "0x6" and rule["action"] == "unreachable" for rule in rules.values())
            # A tunnel's packets are made by the host's kernel, so its end must have its address; no other has.
            assert addresses(lab.hosts["far"]) == {"eth0": ["10.0.0.2/30"], "vx0": []}
    except Unsupported as lacking:
        pytest.skip(str(lacking))
