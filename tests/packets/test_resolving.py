"""Messages that resolve neighbours, beside those that Scapy makes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers import inet6, l2

from harness.packets.resolving import Kind, asked, kind, kind_of_headers, pair
from harness.topology.builtin import LABS
from harness.topology.network import Network

NETWORK = Network.of(LABS["host"])
CLIENT, DEVICE = NETWORK.hosts["client"].interfaces["eth0"], NETWORK.hosts["device"].interfaces["eth0"]
V4, V6 = IPv4Address("192.0.2.10"), IPv6Address("2001:db8:192::10")
OWN = IPv6Address("2001:db8:192::5")


def test_arp_is_as_scapy_writes_it() -> None:
    question, answer = pair(CLIENT, DEVICE.mac, V4, None)
    asked = l2.ARP(op=1, hwsrc=CLIENT.mac, psrc="192.0.2.5", hwdst="00:00:00:00:00:00", pdst=str(V4))
    assert question == bytes(l2.Ether(src=CLIENT.mac, dst="ff:ff:ff:ff:ff:ff") / asked)
    reported = l2.ARP(op=2, hwsrc=DEVICE.mac, psrc=str(V4), hwdst=CLIENT.mac, pdst="192.0.2.5")
    assert answer == bytes(l2.Ether(src=DEVICE.mac, dst=CLIENT.mac) / reported)


def test_neighbour_discovery_is_as_scapy_writes_it() -> None:
    question, answer = pair(CLIENT, DEVICE.mac, V6, OWN)
    asked = inet6.ICMPv6ND_NS(tgt=str(V6)) / inet6.ICMPv6NDOptSrcLLAddr(lladdr=CLIENT.mac)
    around = inet6.IPv6(src=str(OWN), dst="ff02::1:ff00:10", hlim=255)
    assert question == bytes(l2.Ether(src=CLIENT.mac, dst="33:33:ff:00:00:10") / around / asked)
    reported = inet6.ICMPv6ND_NA(tgt=str(V6), R=0, S=1, O=1) / inet6.ICMPv6NDOptDstLLAddr(lladdr=DEVICE.mac)
    around = inet6.IPv6(src=str(V6), dst=str(OWN), hlim=255)
    assert answer == bytes(l2.Ether(src=DEVICE.mac, dst=CLIENT.mac) / around / reported)


@pytest.mark.parametrize("address", [V4, V6])
def test_they_are_known_by_what_they_ask_for(address: IPv4Address | IPv6Address) -> None:
    frames = pair(CLIENT, DEVICE.mac, address, OWN if address is V6 else None)
    assert [kind(frame, address) for frame in frames] == [Kind.QUESTION, Kind.ANSWER]
    assert [kind(frame, type(address)(int(address) + 1)) for frame in frames] == [None, None]
    for frame in frames:
        assert [kind(frame[:size], address) for size in (0, 14, 20, 30)] == [None] * 4
    assert [asked(frame) for frame in frames] == [address, None]
    assert [asked(frames[0][:size]) for size in (0, 14, 20, 30, 41)] == [None] * 5


def test_other_packets_are_neither() -> None:
    ping = bytes(inet6.IPv6(src=str(OWN), dst=str(V6)) / inet6.ICMPv6EchoRequest())
    assert kind_of_headers(ping[:40], ping[40:]) is None
    assert kind_of_headers(ping[:40], b"") is None
    unreachable = bytes(inet6.IPv6(src=str(OWN), dst=str(V6)) / inet6.ICMPv6DestUnreach())
    assert kind_of_headers(unreachable[:40], unreachable[40:]) is None
    assert kind_of_headers(b"", b"") is None
