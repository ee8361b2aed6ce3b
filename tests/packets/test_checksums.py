from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from harness.packets.checksums import corrected


@pytest.mark.parametrize("network", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fe80::1", dst="fe80::2")])
@pytest.mark.parametrize("transport", [TCP(sport=1, dport=2), UDP(sport=1, dport=2)])
@pytest.mark.parametrize("content", [b"", b"odd", b"even", b"\xff" * 1000])
def test_the_sum_is_that_of_the_content(network: Packet, transport: Packet, content: bytes) -> None:
    right = bytes(network / transport / Raw(content))
    place = len(network) + (16 if isinstance(transport, TCP) else 6)
    wrong = right[:place] + b"\x12\x34" + right[place + 2 :]
    assert corrected(wrong) == right


@pytest.mark.parametrize("packet", [b"", b"short", bytes(IP() / ICMP()), bytes(IP(frag=1) / UDP() / Raw(b"x"))])
def test_others_stay_as_they_are(packet: bytes) -> None:
    assert corrected(packet) == packet
