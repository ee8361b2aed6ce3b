"""Packets out of capture files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.model.problem import Problem
from harness.packets.frames import build
from harness.packets.headers import fields
from harness.packets.replay import packets
from harness.packets.spec import Pcap, Send
from harness.topology.builtin import LABS
from harness.topology.network import Network

HOST = Network.of(LABS["host"])
VISITOR = str(Path(__file__).parents[2] / "scenarios/captures/visitor.pcapng")


def sent(**pcap: Any) -> list[bytes]:
    send = msgspec.convert({"from": "client", "pcap": {"file": VISITOR, **pcap}}, Send)
    return [frame.data for frame in build(send, HOST)]


def test_only_the_ethernet_addresses_are_the_labs() -> None:
    recorded = [one.frame for one in packets(Pcap(file=VISITOR))]
    assert [frame[12:] for frame in sent()] == [frame[12:] for frame in recorded]
    assert {(fields(frame)["ether_src"], fields(frame)["ether_dst"]) for frame in sent()} == {
        ("02:00:00:00:01:01", "02:00:00:00:02:01")
    }
    assert sent(ether="keep") == recorded


def test_packets_are_chosen_by_number_in_the_order_that_is_said() -> None:
    everything = sent()
    assert sent(packets=3) == [everything[2]]
    assert sent(packets="4, 1-2, 2") == [everything[3], everything[0], everything[1], everything[1]]


@pytest.mark.parametrize("kind", ["pcap", "raw", "cooked"])
def test_other_files_give_the_same_packets(tmp_path: Path, kind: str) -> None:
    from scapy.layers.l2 import CookedLinux, Ether
    from scapy.utils import wrpcap

    path = str(tmp_path / "a.pcap")
    frames = [Ether(frame) for frame in sent()]
    made = {
        "pcap": frames,
        "raw": [frame.payload for frame in frames],
        "cooked": [CookedLinux() / frame.payload for frame in frames],
    }[kind]
    wrpcap(path, made, linktype={"pcap": 1, "raw": 101, "cooked": 113}[kind])
    send = msgspec.convert({"from": "client", "pcap": path}, Send)
    assert [frame.data for frame in build(send, HOST)] == sent()


@pytest.mark.parametrize("length", range(0, 470, 13))
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.pcapng"
    content = Path(VISITOR).read_bytes()
    for damaged in (content[:length], content[:length] + b"\xff" * 8 + content[length + 8 :]):
        path.write_bytes(damaged)
        with contextlib.suppress(Problem):
            assert len(packets(Pcap(file=str(path)))) <= 4


@pytest.mark.parametrize("cut", [1, 30])
def test_each_of_many_cut_captures_is_refused(tmp_path: Path, cut: int) -> None:
    """scapy warns of the first few only."""
    from scapy.layers.l2 import Ether
    from scapy.utils import wrpcap

    file = tmp_path / "a.pcap"
    wrpcap(str(file), [Ether(frame) for frame in sent()])
    file.write_bytes(file.read_bytes()[:-cut])
    for _ in range(6):
        with pytest.raises(Problem, match="cut off or damaged"):
            packets(Pcap(file=str(file)))
