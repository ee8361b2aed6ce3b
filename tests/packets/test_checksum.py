"""Checksums above IP, right and wrong, of packets that scapy has written."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from harness.packets.checksum import is_checksum_wrong, ones_sum

V4, V6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
MACS = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


@pytest.mark.parametrize("tag", [None, Dot1Q(vlan=7)])
@pytest.mark.parametrize(
    "packet",
    [V4 / TCP() / b"odd", V4 / UDP() / b"even", V4 / ICMP(), V6 / TCP(), V6 / UDP() / b"x", V6 / ICMPv6EchoRequest()],
    ids=lambda packet: packet.summary(),
)
def test_a_changed_byte_is_noticed(packet: Packet, tag: Packet | None) -> None:
    frame = bytes(MACS / tag / packet) if tag else bytes(MACS / packet)
    assert not is_checksum_wrong(frame)
    assert is_checksum_wrong(frame[:-1] + bytes([frame[-1] ^ 1]))


@pytest.mark.parametrize(
    "packet",
    [
        V4 / UDP(chksum=0) / b"x",
        IP(src="192.0.2.1", dst="192.0.2.2", frag=1) / b"12345678",
        IP(src="192.0.2.1", dst="192.0.2.2", flags="MF") / UDP(chksum=1) / b"x",
        IP(src="192.0.2.1", dst="192.0.2.2", proto=89) / b"ospf",
        V6 / IPv6ExtHdrDestOpt() / UDP(chksum=1),
    ],
    ids=["none", "a later fragment", "a first fragment", "another protocol", "an extension header"],
)
def test_where_it_is_not_known_nothing_is_wrong(packet: Packet) -> None:
    assert not is_checksum_wrong(bytes(MACS / packet))


def test_nor_of_a_frame_that_is_cut_off() -> None:
    frame = bytes(MACS / V4 / TCP(chksum=1))
    assert is_checksum_wrong(frame)
    assert not any(is_checksum_wrong(frame[:end]) for end in range(len(frame)))


def test_padding_behind_the_packet_does_not_count() -> None:
    assert not is_checksum_wrong(bytes(MACS / V4 / TCP()) + b"padding")


@pytest.mark.parametrize(
    ("data", "total"), [(b"", 0), (b"\xff\xff\x00\x01", 1), (b"\x01", 0x100), (b"\xff" * 8, 0xFFFF)]
)
def test_the_sum_in_ones_complement(data: bytes, total: int) -> None:
    assert ones_sum(data) == total
