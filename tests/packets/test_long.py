"""What becomes of an expression: which packets, with what filled in."""

from __future__ import annotations

import contextlib
import importlib
import socket
import subprocess
import sys
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from harness.model.problem import Problem
from harness.packets.frames import Frame, build
from harness.packets.headers import fields
from harness.packets.long import LAYERS, packets
from harness.packets.spec import Send
from harness.topology.builtin import LABS
from harness.topology.network import Network

ROUTER = Network.of(LABS["router"])


@pytest.fixture(autouse=True)
def no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = socket.getaddrinfo

    def looked_up(name: str, *about: Any) -> Any:
        with contextlib.suppress(ValueError):
            ip_address(name)
            return ask(name, *about)  # nobody is asked for the address of an address
        pytest.fail(f"{name} was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(socket, "gethostbyname", looked_up)


def frames(packet: str, sender: str = "client", **keys: Any) -> tuple[Frame, ...]:
    return build(msgspec.convert({"from": sender, "packet": packet, **keys}, Send), ROUTER)


def all_of(name: str, made: tuple[Frame, ...]) -> list[object]:
    return [fields(frame.data).get(name) for frame in made]


def test_every_layer_listed_is_one_of_scapys() -> None:
    for name in LAYERS:
        with contextlib.suppress(Problem):
            packets(f"{name}()")
        assert hasattr(importlib.import_module(f"scapy.{LAYERS[name]}"), name), name


def test_lists_and_ranges_and_subnets_are_a_packet_each_in_scapys_order() -> None:
    made = frames('IP(dst=["10.0.2.2", "10.0.2.1"])/TCP(dport=[80, (442, 443)])')
    assert all_of("dst", made) == ["10.0.2.2"] * 3 + ["10.0.2.1"] * 3
    assert all_of("dport", made) == [80, 442, 443] * 2
    assert all_of("src", frames('IP(src="198.51.100.0/30")/ICMP()', to="server")) == [
        f"198.51.100.{last}" for last in range(4)
    ]
    assert all_of("ttl", frames("IP(ttl=(1, 9, 4))/ICMP()", to="server")) == [1, 5, 9]


def test_what_is_left_out_comes_from_the_lab() -> None:
    (made,) = frames("IP()/UDP(dport=53)", to="server")
    assert made.summary == "client 203.0.113.5:53 → server 10.0.2.2:53 udp (IPv4, 28 bytes)"
    found = fields(made.data)
    assert (found["ether_src"], found["ether_dst"]) == ("02:00:00:00:01:01", "02:00:00:00:02:01")
    assert all_of("src", frames("IPv6()/ICMPv6EchoRequest()", to="server")) == ["2001:db8:113::5"]


def test_what_is_given_is_kept() -> None:
    (made,) = frames(
        'Ether(src="02:00:00:00:00:99", dst="02:00:00:00:00:98")/Dot1Q(vlan=7)/'
        'IP(src="198.51.100.1", dst="10.0.2.2", ttl=3, chksum=0xbad)/TCP(dport=80, chksum=1)/"é"'
    )
    found = fields(made.data)
    assert (found["ether_src"], found["ether_dst"], found["vlan"]) == ("02:00:00:00:00:99", "02:00:00:00:00:98", 7)
    assert (found["src"], found["ttl"]) == ("198.51.100.1", 3)
    assert made.data[18 + 10 : 18 + 12] == b"\x0b\xad"
    assert made.data.endswith("é".encode())


def test_arp_has_the_senders_ends() -> None:
    (asks,) = frames("ARP()", to="device")
    assert fields(asks.data)["ether_dst"] == "ff:ff:ff:ff:ff:ff"
    assert asks.data[22:42].hex() == "020000000101" + "cb007105" + "000000000000" + "cb007101"
    (answers,) = frames('ARP(op="is-at")', to="device")
    assert answers.data[32:38].hex() == "020000000201"


def test_the_devices_packets_go_through_its_kernel() -> None:
    assert [made.through for made in frames("IP()/ICMP()", "device", to="server")] == ["output"]
    assert [made.through for made in frames("ARP()", "device", to="client")] == ["wire"]


@pytest.mark.parametrize(
    "text",
    [
        'IP(options=[IPOption_RR(routers=["www.example.com"])])/ICMP()',
        'IPv6()/IPv6ExtHdrRouting(addresses=["www.example.com"])/UDP()',
        'IP()/UDP()/BOOTP()/DHCP(options=[("router", "www.example.com"), "end"])',
        'IP()/VRRP(addrlist=["www.example.com"])',
        'IPv6()/ICMPv6ND_RA()/ICMPv6NDOptRDNSS(dns=["www.example.com"])',
        'IP()/UDP()/DNS(an=DNSRR(rdata="www.example.com"))',
        'IP()/UDP()/DNS(an=DNSRR(type="CNAME", rdata="www.example.com"))',
        'ARP(pdst="www.example.com")',
        'IP(dst="www.example.com")/ICMP()',
        'IPv6(dst="fe80::1%eth0")/UDP()',
    ],
)
def test_no_name_is_looked_up(text: str) -> None:
    with pytest.raises(Problem):
        frames(text, to="server")


def test_scapy_is_as_it_was() -> None:
    from scapy.base_classes import Net

    before = vars(Net)["name2addr"]
    packets("IP()")
    assert vars(Net)["name2addr"] is before


def test_frames_are_handed_on_without_scapy() -> None:
    from harness.packets import frames

    send = msgspec.convert({"from": "client", "to": "server", "packet": "IP()/TCP(dport=(1, 3))", "count": 2}, Send)
    handed = frames.prepare([(send, ROUTER)])
    assert [len(msgspec.msgpack.decode(one)) for one in handed.values()] == [3]
    assert len(build(send, ROUTER)) == 6


WHAT_IS_ASKED = """
import sys

from harness.packets import isolation, long, frames as packet
from harness.topology import builtin as labs, network
from harness.scenario.models import Send
from harness.model.problem import Problem
import msgspec

ROUTER = network.Network.of(labs.LABS["router"])
ASKING = ("socket.", "subprocess.", "os.system")
events = []
sys.addaudithook(lambda event, _: events.append(event) if event.startswith(ASKING) else None)

def build(text: str) -> bool:
    long._import(long.parse(text))  # scapy's modules look around when they are imported
    events.clear()
    try:
        packet.build(msgspec.convert({"from": "client", "to": "server", "packet": text}, Send), ROUTER)
        built = True
    except Problem as problem:
        assert "\\n" not in str(problem)
        built = False
    assert not events, (text, events)
    return built

with isolation.alone():
    pass
"""


def ask(lines: str) -> str:
    """The output of a process whose audit hook sees each socket and resolver call."""
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IS_ASKED + lines], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_nothing_is_asked_for_any_field_of_any_layer() -> None:
    said = ask(
        """
built = 0
for name in long.LAYERS:
    kind = long._kind(long.parse(name + "()").layers[0])
    for fields in [""] + [field.name + "=None" for field in kind.fields_desc]:
        for text in ("{}", "IP()/UDP()/{}", "IPv6()/{}"):
            built += build(text.format(f"{name}({fields})"))
print(built > 500)
"""
    )
    assert said == "True\n"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Ether(dst=None)/IP(dst='10.99.0.2')/UDP(dport=53)", "IP(dst='10.99.0.2')/UDP(dport=53)"),
        ("Ether(src=None, dst='02:00:00:00:00:01')/IP()/UDP()", "Ether(dst='02:00:00:00:00:01')/IP()/UDP()"),
        ("IP(src=None, dst='10.99.0.7')/UDP(dport=53)", "IP(dst='10.99.0.7')/UDP(dport=53)"),
        ("ARP(hwsrc=None, psrc=None, pdst='10.99.0.9')", "ARP(pdst='10.99.0.9')"),
        ("Ether(dst=None)/IPv6(dst='fd99::2')/UDP()", "IPv6(dst='fd99::2')/UDP()"),
        ("IPv6(src=None, dst='fd99::7')/UDP(dport=53)", "IPv6(dst='fd99::7')/UDP(dport=53)"),
        ("IP(ttl=None)/UDP(dport=[None, 7])", "IP()/UDP(dport=[53, 7])"),
    ],
)
def test_none_is_not_given(text: str, same: str) -> None:
    assert [frame.data for frame in frames(text, to="server")] == [frame.data for frame in frames(same, to="server")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "IP()/UDP(dport=4789)/VXLAN()/Ether(dst=None)/IP(src='1.1.1.1', dst='10.99.0.3')",
            "inner Ethernet has no src",
        ),
        ("IP()/ICMP(type=3)/IP(src=None)/UDP()", "inner IP has no src"),
        ("IP()/GRE()/ARP(psrc=None)", "inner ARP has no hwsrc"),
    ],
)
def test_an_inner_end_is_to_be_given(text: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        frames(text, to="server")
