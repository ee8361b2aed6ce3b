"""Frames are built once, and anew when anything that they depend on has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.packets import frames
from harness.packets.spec import Send
from harness.pytest_plugin import kept_frames
from harness.topology.builtin import LABS
from harness.topology.network import Network

ROUTER = Network.of(LABS["router"])


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Send]:
    """The packets that were built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(frames, "_prepared", {})
    packets: list[Send] = []
    build = frames._frame

    def note(packet: Any, network: Network) -> Any:
        packets.append(packet.said)
        return build(packet, network)

    monkeypatch.setattr(frames, "_frame", note)
    return packets


def send(**keys: Any) -> Send:
    return msgspec.convert({"from": "client", "to": "server", **keys}, Send)


def prepare(*packets: Send) -> dict[str, bytes]:
    """As a session of its own does."""
    frames._prepared.clear()
    return kept_frames.prepare((packet, ROUTER) for packet in packets)


def test_a_packet_is_built_in_the_first_session_only(built: list[Send]) -> None:
    https, dns = send(tcp={"dport": 443}), send(udp={"dport": 53})
    first = prepare(https)
    assert prepare(https) == first
    assert built == [https]
    both = prepare(https, dns)
    assert built == [https, dns]
    assert prepare(dns, https) == both
    assert built == [https, dns]


def test_a_packet_that_is_built_to_read_a_scenario_is_taken_from_an_earlier_session(built: list[Send]) -> None:
    packet = msgspec.convert({"from": "client", "packet": 'IP(dst="10.0.2.2")/UDP(dport=53)'}, Send)
    prepare(packet)
    built.clear()

    def reading() -> Iterator[tuple[Send, Network]]:
        frames.build(packet, ROUTER)  # as its check does
        yield packet, ROUTER

    frames._prepared.clear()
    assert kept_frames.prepare(reading())
    assert built == []


def test_a_packet_of_a_capture_is_read_from_it_each_time(built: list[Send]) -> None:
    capture = Path(__file__).parents[2] / "scenarios/captures/visitor.pcapng"
    replayed = msgspec.convert({"from": "client", "pcap": {"file": str(capture), "packets": 1}}, Send)
    assert prepare(replayed) == prepare(replayed)
    assert len(built) == 2


def test_another_builder_builds_anew(built: list[Send], monkeypatch: pytest.MonkeyPatch) -> None:
    https = send(tcp={"dport": 443})
    prepare(https)
    monkeypatch.setattr(kept_frames, "_builder", lambda: "another")
    prepare(https)
    assert built == [https, https]


def test_a_damaged_file_is_written_again(built: list[Send], tmp_path: Path) -> None:
    https = send(tcp={"dport": 443})
    prepare(https)
    place = tmp_path / "nft-harness" / kept_frames.NAME
    os.truncate(place, place.stat().st_size // 2)
    prepare(https)
    prepare(https)
    assert built == [https, https]


def test_too_many_are_not_kept(built: list[Send], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    https, dns = send(tcp={"dport": 443}), send(udp={"dport": 53})
    prepare(https)
    place = tmp_path / "nft-harness" / kept_frames.NAME
    monkeypatch.setattr(kept_frames, "MAX_BYTES", place.stat().st_size + 10)
    prepare(dns)
    assert place.stat().st_size <= kept_frames.MAX_BYTES
    prepare(dns)
    assert built == [https, dns]
