"""Headers of frames as fields, and in words."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest

from harness.packets import headers
from harness.packets.headers import fields, summarise
from tests.packets.builders import frame


@pytest.mark.parametrize("transport", ["tcp", "udp", "icmp", "icmpv6"])
def test_scapy_reads_the_same(transport: str) -> None:
    """Checksums and lengths are right, and our reading agrees with another one."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
    from scapy.layers.l2 import Ether

    data = frame(to="server", **{transport: {"dport": 53} if transport in ("tcp", "udp") else {}}, payload="hello").data
    packet = Ether(data)
    layer = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPv6EchoRequest}[transport]
    field = "cksum" if transport == "icmpv6" else "chksum"
    checksum = packet[layer].getfieldval(field)
    packet[layer].delfieldval(field)
    assert Ether(bytes(packet))[layer].getfieldval(field) == checksum
    network = packet[IPv6 if transport == "icmpv6" else IP]
    found = fields(data)
    assert (found["src"], found["dst"], found["length"]) == (network.src, network.dst, len(network))
    assert bytes(packet).endswith(b"hello")


def test_headers_that_stand_between() -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
    from scapy.layers.l2 import Dot1Q, Ether
    from scapy.packet import Raw

    def read(*layers: Any) -> dict[str, Any]:
        whole = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        for layer in layers:
            whole /= layer
        return dict(fields(bytes(whole)))

    assert read(Dot1Q(vlan=7), IP(dst="192.0.2.1"), UDP(dport=53)).items() >= {"vlan": 7, "dport": 53}.items()
    options = (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(offset=0, m=1))
    assert read(IPv6(dst="2001:db8::1"), *options, UDP(dport=53))["dport"] == 53
    assert "dport" not in read(IPv6(dst="2001:db8::1"), IPv6ExtHdrFragment(offset=8), Raw(b"x" * 20))
    assert "dport" not in read(IP(dst="192.0.2.1", frag=8, proto=17), Raw(b"x" * 20))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_truncated_frame_is_read_up_to_its_end(protocol: str) -> None:
    data = frame(to="server", **{protocol: {"dport": 53}}).data
    for size in range(len(data)):
        fields(data[:size])
        summarise(data[:size])
    assert fields(data[:36])["src"] == "203.0.113.5"
    assert summarise(data) == f"203.0.113.5:40000 → 10.0.2.2:53 {protocol}" + (
        " S (IPv4, 40 bytes)" if protocol == "tcp" else " (IPv4, 28 bytes)"
    )


@pytest.mark.parametrize("options", [b"\1\1\2\4\5\xb4", b"\2", b"\3", b"\5\0\5\0", b"\2\4\5"])
def test_tcp_options_however_broken(options: bytes) -> None:
    found: dict[str, str | int] = {}
    with contextlib.suppress(struct.error, IndexError):
        headers._read_options(options, found)
    assert found.get("mss") in (None, 1460)
