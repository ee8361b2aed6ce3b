"""Frames from a host's interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.capture import Capture
from harness.errors import HarnessError
from harness.inject import Sender
from harness.lab.lab import Lab
from harness.scenario.labs import LABS
from harness.scenario.network import Network
from harness.wait import wait_until

pytestmark = pytest.mark.kernel

BROADCAST = b"\xff" * 6
EXPERIMENTAL = b"\x88\xb5"
"""IEEE 802 - Local Experimental Ethertype 1: no kernel answers it."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.build(Network.of(LABS["router"])) as built:
        yield built


def test_a_frame_arrives_as_it_was_given(lab: Lab) -> None:
    capture = Capture([lab.device])
    frame = BROADCAST + bytes(6) + EXPERIMENTAL + bytes(range(100))
    Sender(lab.hosts["client"], "eth0").send(frame)
    seen: list[bytes] = []
    wait_until(lambda: seen.extend(one.frame for one in capture.read()) or seen, 5, "the frame")
    assert seen == [frame]


def test_every_sender_has_a_cookie_of_its_own(lab: Lab) -> None:
    cookies = {Sender(lab.hosts["client"], "eth0").cookie for _ in range(3)}
    assert len(cookies) == 3
    assert 0 not in cookies


def test_a_frame_that_is_too_long_is_refused_in_words(lab: Lab) -> None:
    with pytest.raises(HarnessError, match="client:eth0 could not send a frame of 3000 bytes: Message too long"):
        Sender(lab.hosts["client"], "eth0").send(bytes(3000))


def test_a_frame_without_a_whole_header_is_refused_in_words(lab: Lab) -> None:
    with pytest.raises(HarnessError, match="client:eth0 could not send a frame of 3 bytes: Invalid argument"):
        Sender(lab.hosts["client"], "eth0").send(b"abc")


def test_a_sender_receives_nothing(lab: Lab) -> None:
    sender = Sender(lab.device, "wan0")
    capture = Capture([lab.device])
    Sender(lab.hosts["client"], "eth0").send(BROADCAST + bytes(6) + EXPERIMENTAL + bytes(46))
    wait_until(capture.read, 5, "the frame")
    with pytest.raises(BlockingIOError):
        sender._socket.recv(2000, 0x40)  # MSG_DONTWAIT
