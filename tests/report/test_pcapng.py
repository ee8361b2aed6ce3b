"""Capture files, as another reader reads them."""

from __future__ import annotations

import io

from scapy.utils import RawPcapNgReader

from harness.report.pcapng import COOKED, FrameDirection, Writer

TIME = 1_795_373_689_123_456_789


def test_a_reader_finds_what_was_written() -> None:
    file = io.BytesIO()
    capture = Writer(file, comment="about")
    first, second = capture.interface("one:eth0", "10.0.0.1/24"), capture.interface("two", link=COOKED)
    capture.packet(first, TIME, b"abcde", length=60, direction=FrameDirection.OUT, comment="ip_rcv → accept")
    capture.packet(second, TIME + 1, b"")
    file.seek(0)
    (data, about), (nothing, bare) = RawPcapNgReader(file)
    assert (data, nothing) == (b"abcde", b"")
    assert (about.ifname, about.wirelen, about.linktype, about.direction) == (b"one:eth0", 60, 1, 2)
    assert (about.tshigh << 32 | about.tslow, about.tsresol) == (TIME, 10**9)
    assert "ip_rcv → accept".encode() in about.comments
    assert (bare.ifname, bare.linktype, bare.comments) == (b"two", 113, None)


def test_the_first_block_says_who_wrote_it_in_our_byte_order() -> None:
    file = io.BytesIO()
    Writer(file)
    assert file.getvalue().startswith(bytes.fromhex("0a0d0d0a300000004d3c2b1a01000000ffffffffffffffff"))
    assert b"nft-harness" in file.getvalue()
