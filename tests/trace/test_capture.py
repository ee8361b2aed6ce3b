"""A live trace as a pcapng file."""

from __future__ import annotations

import io

from scapy.utils import RawPcapNgReader

from harness.trace.capture import EventCapture
from harness.tracer.events import SNAP, EventKind, EventWithBytes
from tests.trace.builders import event, lines


def test_a_capture_shows_whether_there_is_an_ethernet_header() -> None:
    def record(protocol: int, data: bytes) -> None:
        hop = event(EventKind.HOP)
        (line,) = lines(hop)
        capture.add(line, EventWithBytes(*hop, 100, len(data), protocol, data.ljust(SNAP, b"?")))

    capture = EventCapture(file := io.BytesIO(), epoch=5)
    record(0, bytes(12) + b"\x08\x00" + b"E...")
    record(0x0800, b"E...")
    file.seek(0)
    (whole, first), (bare, other) = RawPcapNgReader(file)
    assert (first.linktype, whole) == (1, bytes(12) + b"\x08\x00E...")
    assert (other.linktype, bare[-6:]) == (113, b"\x08\x00E...")
    assert (first.wirelen, other.wirelen) == (100, 116)
    assert first.ifname == other.ifname == b"eth2"
    assert first.comments == [b"packet 0.1: FUNC ip_rcv\nlayer IPv4"]
    assert first.tshigh << 32 | first.tslow == 5
