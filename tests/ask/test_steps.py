"""Captures and real exchanges as steps."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.ask.steps import Question, flow
from harness.errors import HarnessError
from harness.topology.builtin import LABS
from harness.topology.network import Network

ROUTER = Network.of(LABS["router"])


def capture(folder: Path, *ends: tuple[str, str]) -> Path:
    """A pcap file of UDP packets, each with a source and a destination address."""
    from scapy.layers import inet

    frames = [bytes(inet.IP(src=src, dst=dst) / inet.UDP(sport=1, dport=2)) for src, dst in ends]
    records = b"".join(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)
    path = folder / "c.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101) + records)
    return path


def test_each_packet_of_a_capture_starts_at_the_host_of_its_source(tmp_path: Path) -> None:
    there, back, elsewhere = ("203.0.113.5", "10.0.2.2"), ("10.0.2.2", "203.0.113.5"), ("192.0.2.77", "10.0.2.2")
    path = capture(tmp_path, there, there, back, elsewhere, ("10.0.2.99", "203.0.113.5"))
    sends = [step.value["send"] for step in Question(pcap=path).steps(ROUTER)]
    assert [(one["from"], one["pcap"]["packets"]) for one in sends] == [
        ("client", "1-2"),
        ("server", "3-3"),
        ("client", "4-4"),
        ("server", "5-5"),
    ]
    (alone,) = Question(line="server", pcap=path).steps(ROUTER)
    assert alone.value["send"]["pcap"]["packets"] == "1-5"


def test_a_capture_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.pcap").write_text("hello")
    with pytest.raises(HarnessError, match=r"c\.pcap: is not a capture file"):
        Question(pcap=tmp_path / "c.pcap").steps(ROUTER)


def test_an_exchange_is_with_the_program_where_the_packet_arrives() -> None:
    (step,) = Question(line="client > device ip6 tcp dport 8443 sport 5").steps(ROUTER)
    made = [one.value for one in flow(step, ("server", 443), ROUTER, exchange=True)]
    called = {"from": "client", "to": "device", "tcp": 8443, "sport": 5, "family": "ip6"}
    assert made == [{"listen": {"on": "server", "tcp": 443}}, {"connect": called}, {"exchange": called}]
    (step,) = Question(line="client > server udp dport 53").steps(ROUTER)
    assert [list(one.value) for one in flow(step, None, ROUTER, exchange=False)] == [["exchange"]]
    (step,) = Question(line="client > server icmp").steps(ROUTER)
    with pytest.raises(HarnessError, match="--flow works with TCP and UDP only"):
        flow(step, None, ROUTER, exchange=False)


def test_headers_stand_in_one_place() -> None:
    with pytest.raises(HarnessError, match="packet:1:17: --packet gives the headers already"):
        Question(line="client > server tcp dport 1", packet="IP()").steps(ROUTER)
