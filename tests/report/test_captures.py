"""Captures of results, as tshark reads them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.model.observation import Delivery, ObservedPacket
from harness.model.result import Result
from harness.report import captures

Make = Callable[..., Result]
Read = Callable[..., list[list[str]]]

SYN = bytes.fromhex(
    "02000000020102000000010108004500002800010000400633be cb007105 0a000202 9c4001bb00000000000000005002faf000000000"
)
"""From 203.0.113.5:40000 to 10.0.2.2:443."""
ARRIVED = SYN[:22] + b"\x3f" + SYN[23:]
"""With a TTL of 63."""
EPOCH = 1_795_373_689_123_456_789


@pytest.fixture
def read(program: Callable[[str, str], str]) -> Read:
    """Reads ``fields`` of every packet with tshark, which must have nothing to complain about."""
    tshark = program("tshark", "tshark")

    def run(file: Path, *fields: str) -> list[list[str]]:
        names = [word for field in fields for word in ("-e", field)]
        done = subprocess.run([tshark, "-r", file, "-T", "fields", *names], capture_output=True, text=True, check=True)
        assert not [line for line in done.stderr.splitlines() if "Running as user" not in line]
        return [line.split("\t") for line in done.stdout.splitlines()]

    return run


def with_bytes(result: Result, **changes: object) -> Result:
    sent = result.sent[0]
    (packet,) = sent.observation.packets
    delivery = Delivery(time=11000, host="server", device="eth0", frame=ARRIVED)
    real = msgspec.structs.replace(packet, frame=SYN, born=EPOCH, deliveries=(delivery,), **changes)
    observation = msgspec.structs.replace(sent.observation, packets=(real,))
    return msgspec.structs.replace(result, sent=(msgspec.structs.replace(sent, observation=observation),))


def written(result: Result, folder: Path) -> Path:
    captures.write([result], folder)
    (place,) = folder.iterdir()
    return place


def test_each_interface_has_what_passed_it(tmp_path: Path, make_result: Make, read: Read) -> None:
    place = written(with_bytes(make_result()), tmp_path)
    fields = ("frame.interface_name", "frame.packet_flags_direction", "ip.ttl", "tcp.dstport", "frame.time_epoch")
    assert read(place / "interfaces.pcapng", *fields) == [
        ["client:eth0", "0x00000002", "64", "443", "1795373689.123456789"],
        ["device:wan0", "0x00000001", "64", "443", "1795373689.123458289"],
        ["device:lan0", "0x00000002", "63", "443", "1795373689.123467789"],
        ["server:eth0", "0x00000001", "63", "443", "1795373689.123467789"],
    ]


def test_what_was_not_seen_is_in_no_capture(tmp_path: Path, make_result: Make, read: Read) -> None:
    """A frame that the device never took in did not arrive there."""
    whole = with_bytes(make_result())
    hops = whole.sent[0].observation.packets[0].hops
    place = written(with_bytes(make_result(), hops=tuple(hop for hop in hops if hop.host == "client")), tmp_path)
    names = [name for (name,) in read(place / "interfaces.pcapng", "frame.interface_name")]
    assert "device:wan0" not in names


def test_the_way_of_a_packet_is_a_record_for_each_function(tmp_path: Path, make_result: Make, read: Read) -> None:
    place = written(with_bytes(make_result()), tmp_path)
    records = read(place / "step1-packet1.pcapng", "frame.interface_name", "frame.comment", "ip.ttl")
    assert [comment.split("\\n")[0] for _, comment, _ in records] == [
        "__dev_queue_xmit",
        "netif_receive_skb",
        "ip_rcv",
        "nft_do_chain inet edge forward → accept",
        "ip_output",
        "__dev_queue_xmit",
        "netif_rx",
    ]
    chain = records[3][1].split("\\n")
    assert chain[1:3] == ["layer Netfilter", "hook forward"]
    assert chain[-1] == "bytes as injected"
    assert records[0][0] == "client:eth0"


def test_the_rule_stands_with_its_chain(tmp_path: Path, make_result: Make, read: Read) -> None:
    one = with_bytes(make_result())
    packet = one.sent[0].observation.packets[0]
    step = msgspec.structs.replace(packet.steps[0], time=packet.hops[3].time + 10)
    place = written(with_bytes(make_result(), steps=(step,)), tmp_path)
    comments = [comment for (comment,) in read(place / "step1-packet1.pcapng", "frame.comment")]
    assert "rule accept: inet edge forward, rulesets/edge.nft:5 (handle 4): tcp dport 443 accept" in comments[3]
    assert not any("handle" in comment for comment in comments[:3] + comments[4:])


def test_bytes_are_those_known_last() -> None:
    from harness.model.observation import Hop

    def bytes_at(host: str, time: int, packet: ObservedPacket) -> tuple[bytes, str]:
        hop = Hop(time=time, cpu=0, host=host, device="eth0", function="ip_rcv", layer="IPv4")
        return captures._bytes(packet, hop)

    arrival = Delivery(time=50, host="server", device="eth0", frame=ARRIVED)
    ours = ObservedPacket(number=0, sender="client", frame=SYN, deliveries=(arrival,))
    assert bytes_at("device", 60, ours) == (SYN, "bytes as injected")
    assert bytes_at("server", 40, ours)[0] == SYN
    assert bytes_at("server", 60, ours) == (ARRIVED, "bytes as they arrived at server:eth0")
    theirs = ObservedPacket(number=1, sender="device", frame=b"", injected=False, deliveries=(arrival,))
    assert bytes_at("device", 0, theirs) == (ARRIVED, "bytes as they arrived later, at server:eth0")
    unseen = ObservedPacket(number=1, sender="device", frame=b"", injected=False)
    assert bytes_at("device", 0, unseen)[0] == b""


def test_no_name_can_move_a_cursor(tmp_path: Path, make_result: Make) -> None:
    place = written(make_result("evil \x1b[31m"), tmp_path)
    assert b"\x1b" not in (place / "step1-packet1.pcapng").read_bytes()
    assert b"\x1b" not in (place / "interfaces.pcapng").read_bytes()


def test_captures_of_a_run_before_do_not_stay(tmp_path: Path, make_result: Make) -> None:
    place = written(make_result(), tmp_path)
    (place / "step2-packet1.pcapng").touch()
    written(make_result(), tmp_path)
    assert sorted(file.name for file in place.iterdir()) == ["interfaces.pcapng", "step1-packet1.pcapng"]
