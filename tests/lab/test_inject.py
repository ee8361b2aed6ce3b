"""Frames from a host's interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from harness.errors import HarnessError
from harness.lab.capture import Capture
from harness.lab.inject import Output, Wire, sender
from harness.lab.lab import Lab
from harness.packets.frames import build
from harness.packets.spec import Send
from harness.ruleset.nft import Nft
from harness.topology.builtin import LABS
from harness.topology.network import Network
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
    Wire(lab.hosts["client"], "eth0").send(frame)
    seen: list[bytes] = []
    wait_until(lambda: seen.extend(one.frame for one in capture.read()) or seen, 5, "the frame")
    assert seen == [frame]


def test_every_sender_has_a_cookie_of_its_own(lab: Lab) -> None:
    cookies = {Wire(lab.hosts["client"], "eth0").cookie for _ in range(3)}
    assert len(cookies) == 3
    assert 0 not in cookies


def test_a_frame_that_is_too_long_is_refused_in_words(lab: Lab) -> None:
    with pytest.raises(HarnessError, match="client:eth0 could not send a frame of 3000 bytes: Message too long"):
        Wire(lab.hosts["client"], "eth0").send(bytes(3000))


def test_a_frame_without_a_whole_header_is_refused_in_words(lab: Lab) -> None:
    with pytest.raises(HarnessError, match="client:eth0 could not send a frame of 3 bytes: Invalid argument"):
        Wire(lab.hosts["client"], "eth0").send(b"abc")


def test_a_sender_receives_nothing(lab: Lab) -> None:
    sender = Wire(lab.device, "wan0")
    capture = Capture([lab.device])
    Wire(lab.hosts["client"], "eth0").send(BROADCAST + bytes(6) + EXPERIMENTAL + bytes(46))
    wait_until(capture.read, 5, "the frame")
    with pytest.raises(BlockingIOError):
        sender._socket.recv(2000, 0x40)  # MSG_DONTWAIT


class TestOutput:
    """Packets that a host's kernel sends: what arrives, and that it says what was refused."""

    def send(self, lab: Lab, **keys: Any) -> list[bytes]:
        """What the server gets of a packet that the device sends."""
        (frame,) = build(msgspec.convert({"from": "device", "to": "server", **keys}, Send), lab.network)
        assert frame.through == "output"
        capture = Capture([lab.hosts["server"]])
        sender(lab.device, frame).send(frame.data)
        seen: list[bytes] = []
        wait_until(lambda: seen.extend(one.frame for one in capture.read()) or seen, 5, "the packet")
        assert seen == [frame.data]
        return seen

    @pytest.mark.parametrize(
        "keys",
        [
            {"tcp": {"dport": 443, "mss": 1360}, "ip": {"ttl": 3, "tos": 0xB8, "id": 77}},
            {"udp": {"dport": 53, "checksum": 0xBAD}, "payload": "x" * 1400},
            {"ip6": {"hlim": 3, "tc": 0xB8, "fl": 0x12345}, "udp": {"dport": 53}},
            {"ip": {"src": "198.51.100.1"}, "icmp": {}},
            {"ip": {"flags": "MF", "frag": 185, "proto": 17}, "payload": "12345678"},
            {"icmpv6": {"type": "nd-neighbor-advert"}},
        ],
        ids=lambda keys: "-".join(keys),
    )
    def test_it_arrives_as_the_lab_would_have_sent_it(self, lab: Lab, keys: dict[str, Any]) -> None:
        self.send(lab, **keys)

    def test_groups_leave_by_the_interface_that_was_planned(self, lab: Lab) -> None:
        (frame,) = build(
            msgspec.convert({"from": "device", "to": "224.0.0.251", "udp": {"dport": 5353}}, Send), lab.network
        )
        capture = Capture([lab.hosts["client"]])
        sender(lab.device, frame).send(frame.data)
        seen: list[bytes] = []
        wait_until(lambda: seen.extend(one.frame for one in capture.read()) or seen, 5, "the packet")
        assert seen == [frame.data]

    def test_what_its_own_hook_drops_is_no_error(self, lab: Lab) -> None:
        chain = "table inet a { chain b { type filter hook output priority 0; policy drop; }; }"
        Nft(lab.device.namespace).run(chain)
        (frame,) = build(msgspec.convert({"from": "device", "to": "server", "icmp": {}}, Send), lab.network)
        sender(lab.device, frame).send(frame.data)

    def test_a_packet_that_is_too_long_is_refused_in_words(self, lab: Lab) -> None:
        with pytest.raises(HarnessError, match="device could not send a packet of 2986 bytes: Message too long"):
            Output(lab.device, "lan0", family=4).send(bytes(14) + b"\x45" + bytes(15) + b"\x0a\0\2\2" + bytes(2966))
