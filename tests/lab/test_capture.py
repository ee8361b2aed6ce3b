"""Frames that arrive at hosts."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest

from harness.errors import BrokenMeasurement
from harness.lab.capture import Capture, Captured
from harness.lab.inject import Wire
from harness.lab.lab import Lab
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.wait import wait_until

pytestmark = pytest.mark.kernel

BROADCAST = b"\xff" * 6
EXPERIMENTAL = b"\x88\xb5"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.build(Network.of(LABS["router"])) as built:
        yield built


def frame(number: int, size: int = 46) -> bytes:
    return BROADCAST + bytes(6) + EXPERIMENTAL + struct.pack("!H", number) + bytes(size)


def arrived(capture: Capture, count: int) -> list[Captured]:
    found: list[Captured] = []

    def enough() -> bool:
        found.extend(capture.read())
        return len(found) >= count

    wait_until(enough, 5, f"{count} frames")
    return found


def test_frames_come_in_order_with_host_and_interface(lab: Lab) -> None:
    capture = Capture(lab.hosts.values())
    for name in ("client", "server"):
        sender = Wire(lab.hosts[name], "eth0")
        for number in range(3):
            sender.send(frame(number))
    seen = [(one.host, one.device, one.frame) for one in arrived(capture, 6)]
    assert seen == [("device", "wan0", frame(n)) for n in range(3)] + [("device", "lan0", frame(n)) for n in range(3)]


def test_what_a_host_sends_is_not_what_arrives_there(lab: Lab) -> None:
    capture = Capture(lab.hosts.values())
    Wire(lab.device, "wan0").send(frame(1))
    assert [one.host for one in arrived(capture, 1)] == ["client"]


def test_the_time_is_that_of_the_monotonic_clock(lab: Lab) -> None:
    capture = Capture([lab.device])
    sender = Wire(lab.hosts["client"], "eth0")
    before = time.monotonic_ns()
    sender.send(frame(1))
    (one,) = arrived(capture, 1)
    slack = 1_000_000  # the two clocks are read one after the other
    assert before - slack <= one.time <= time.monotonic_ns() + slack


def test_a_vlan_tag_is_where_it_was(lab: Lab) -> None:
    tagged = BROADCAST + bytes(6) + struct.pack("!HH", 0x8100, 42) + EXPERIMENTAL + bytes(46)
    capture = Capture([lab.device])
    Wire(lab.hosts["client"], "eth0").send(tagged)
    assert [one.frame for one in arrived(capture, 1)] == [tagged]


def test_the_longest_frame_arrives_whole(lab: Lab) -> None:
    capture = Capture([lab.device])
    longest = frame(1, 1498)
    Wire(lab.hosts["client"], "eth0").send(longest)
    assert [one.frame for one in arrived(capture, 1)] == [longest]


def test_lost_frames_break_the_measurement(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.lab.capture.BUFFER", 4096)
    capture = Capture([lab.device])
    sender = Wire(lab.hosts["client"], "eth0")
    for number in range(100):
        sender.send(frame(number))
    with pytest.raises(BrokenMeasurement, match=r"the capture at device lost \d+ frames: the receive buffer was full"):
        arrived(capture, 100)
