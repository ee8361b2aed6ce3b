from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.packets.frames import build, prepare
from harness.packets.headers import fields, summarise, vlan_tags
from harness.packets.spec import Send
from harness.scenario.models.actions import SendAction
from harness.scenario.models.expect import Expect
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.packets.builders import ROUTER, frame

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("keys", "summary"),
    [
        (
            {"to": "server", "tcp": {"dport": 443}},
            "client 203.0.113.5:40000 → server 10.0.2.2:443 tcp S (IPv4, 40 bytes)",
        ),
        (
            {"to": "server", "ip6": {}, "tcp": {"dport": 443, "flags": "SAEC"}},
            "client [2001:db8:113::5]:40000 → server [2001:db8:2::2]:443 tcp SAEC (IPv6, 60 bytes)",
        ),
        (
            {"to": "198.51.100.9", "udp": {"dport": 53}, "payload": "é"},
            "client 203.0.113.5:40000 → 198.51.100.9:53 udp (IPv4, 30 bytes)",
        ),
        ({"to": "device", "icmp": {}}, "client 203.0.113.5 → device 203.0.113.1 icmp echo-request (IPv4, 28 bytes)"),
        (
            {"to": "server", "icmp": {"type": "destination-unreachable", "code": 3}},
            "client 203.0.113.5 → server 10.0.2.2 icmp destination-unreachable code 3 (IPv4, 28 bytes)",
        ),
        (
            {"to": "device", "icmpv6": {"type": "nd-neighbor-solicit"}},
            "client 2001:db8:113::5 → device 2001:db8:113::1 icmpv6 nd-neighbor-solicit (IPv6, 64 bytes)",
        ),
        (
            {"to": "server", "ip": {"src": "198.51.100.7", "proto": 47}},
            "client 198.51.100.7 → server 10.0.2.2 gre (IPv4, 20 bytes)",
        ),
        ({"to": "device", "arp": {}}, "client 203.0.113.5 → device 203.0.113.1 arp request"),
        ({"ether": {"type": 0x88B5}, "payload": "x"}, "02:00:00:00:01:01 → 02:00:00:00:02:01 type 0x88b5"),
    ],
)
def test_the_summary_says_what_is_sent(keys: dict[str, Any], summary: str) -> None:
    assert frame(**keys).summary == summary


def test_addresses_and_next_hop_come_from_the_lab() -> None:
    assert fields(frame("server", to="198.51.100.9", tcp={"dport": 80}).data) == {
        "ether_src": "02:00:00:00:03:01",
        "ether_dst": "02:00:00:00:02:02",
        "ether_type": 0x0800,
        "family": 4,
        "src": "10.0.2.2",
        "dst": "198.51.100.9",
        "ttl": 64,
        "tos": 0,
        "dscp": 0,
        "length": 40,
        "proto": 6,
        "protocol": "tcp",
        "sport": 40000,
        "dport": 80,
        "seq": 1000,
        "ack": 0,
        "flags": "S",
    }


def test_what_is_given_is_kept() -> None:
    given = frame(
        to="server",
        ether={"src": "02:00:00:00:00:aa", "dst": "02:00:00:00:00:bb"},
        ip6={"src": "2001:db8::7", "dst": "2001:db8::8", "hlim": 3, "tc": 184, "fl": 0x12345},
        udp={"sport": 1, "dport": 2},
    )
    found = fields(given.data)
    assert (found["ether_src"], found["ether_dst"]) == ("02:00:00:00:00:aa", "02:00:00:00:00:bb")
    assert (found["src"], found["dst"]) == ("2001:db8::7", "2001:db8::8")
    assert (found["ttl"], found["tos"], found["sport"], found["dport"]) == (3, 184, 1, 2)


def test_an_address_that_no_one_has_can_be_sent_to_a_given_neighbour() -> None:
    sent = frame(to="203.0.113.77", ether={"dst": "02:00:00:00:02:01"}, icmp={})
    assert (sent.interface, fields(sent.data)["dst"]) == ("eth0", "203.0.113.77")


def test_arp_asks_everybody_and_answers_one() -> None:
    request, reply = (fields(frame(to="device", arp={"op": op}).data) for op in ("request", "reply"))
    assert (request["ether_dst"], request["op"]) == ("ff:ff:ff:ff:ff:ff", "request")
    assert (reply["ether_dst"], reply["op"]) == ("02:00:00:00:02:01", "reply")


def test_scapy_is_needed_for_building_only(tmp_path: Path) -> None:
    """Its import takes seconds under emulation, so frames can be built elsewhere."""
    sends = [{"from": "client", "to": "server", "tcp": {"dport": port}} for port in (80, 443)]
    packets = [(msgspec.convert(send, Send), ROUTER) for send in sends]
    broken = msgspec.convert({"from": "nobody"}, Send)
    (tmp_path / "packets").write_bytes(pickle.dumps(packets))
    (tmp_path / "frames").write_bytes(pickle.dumps(prepare([*packets, (broken, ROUTER)])))
    script = """if True:
        import pickle, sys
        from pathlib import Path
        import harness.scenario.load
        from harness.packets.frames import build, use
        from harness.packets.headers import fields, summarise
        folder = Path(sys.argv[1])
        use(pickle.loads((folder / "frames").read_bytes()))
        for send, network in pickle.loads((folder / "packets").read_bytes()):
            print(build(send, network)[0].summary)
        assert "scapy" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert done.stdout.splitlines() == [build(*packet)[0].summary for packet in packets]


@pytest.mark.parametrize(
    ("sender", "keys", "through", "interface"),
    [
        ("client", {"to": "server", "icmp": {}}, "wire", "eth0"),
        ("device", {"to": "server", "icmp": {}}, "output", "lan0"),
        ("device", {"to": "client", "arp": {}}, "wire", "wan0"),
        ("device", {"ether": {"type": 0x88B5}, "payload": "x"}, "wire", "wan0"),
        ("device", {"to": "127.0.0.53", "udp": {"dport": 53}}, "output", "lo"),
        ("device", {"to": "::1", "udp": {"dport": 53}}, "output", "lo"),
        ("device", {"to": "device", "tcp": {"dport": 80}}, "output", "lo"),
    ],
)
def test_what_a_host_with_addresses_sends_goes_through_its_kernel(
    sender: str, keys: dict[str, Any], through: str, interface: str
) -> None:
    made = frame(sender, **keys)
    assert (made.through, made.interface) == (through, interface)


def test_a_host_calls_itself_from_the_address_that_it_calls() -> None:
    found = fields(frame("device", to="device", ip6={}, icmpv6={}).data)
    assert found["src"] == found["dst"] == "2001:db8:113::1"


def test_one_packet_is_sent_several_times() -> None:
    send = msgspec.convert({"from": "client", "to": "server", "icmp": {}, "count": 3}, Send)
    frames = build(send, ROUTER)
    assert len(frames) == 3
    assert len(set(map(repr, frames))) == 1


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        ({}, 0),
        ({"interval": "10ms"}, 0.01),
        ({"interval": "2.5s"}, 2.5),
        ({"interval": "40us"}, 0.00004),
        ({"rate": "100/s"}, 0.01),
        ({"rate": "30/minute"}, 2),
    ],
)
def test_the_pace(keys: dict[str, Any], seconds: float) -> None:
    assert msgspec.convert({"from": "client", **keys}, Send).pace == pytest.approx(seconds)


def test_a_list_of_expectations_is_about_one_packet_after_the_other() -> None:
    action = SendAction(send=Send(from_="client"), expect=[Expect(packets=2, verdict="accept"), Expect(verdict="drop")])
    assert [(keys, expect.verdict) for keys, expect in action.expected_of(4)] == [
        (("expect", 0), "accept"),
        (("expect", 0), "accept"),
        (("expect", 1), "drop"),
        (("expect", 1), "drop"),
    ]


class TestTagsAndTunnels:
    """What stands around and inside a packet is in its line."""

    UDP = bytes.fromhex("450000201234000040110000cb0071050a000202") + bytes.fromhex("9c400035000c0000") + b"ping"

    @pytest.mark.parametrize(("tags", "said"), [((), ""), ((10,), ", VLAN 10"), ((20, 10), ", VLAN 20, 10")])
    def test_vlans(self, tags: tuple[int, ...], said: str) -> None:
        frame = bytes(12) + b"".join(b"\x81\x00" + tag.to_bytes(2, "big") for tag in tags) + b"\x08\x00" + self.UDP
        assert summarise(frame) == f"203.0.113.5:40000 → 10.0.2.2:53 udp (IPv4, 32 bytes{said})"
        assert vlan_tags(frame) == tags

    def outer(self, protocol: int, data: bytes) -> bytes:
        header = bytes((0x45, 0, *(20 + len(data)).to_bytes(2, "big"), 0, 1, 0, 0, 64, protocol, 0, 0))
        return header + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + data

    @pytest.mark.parametrize(
        ("protocol", "before", "name"),
        [
            (4, b"", "4"),
            (47, bytes.fromhex("00000800"), "gre"),
            (47, bytes.fromhex("2000080000000007"), "gre"),
            (47, bytes.fromhex("00006558") + bytes(12) + b"\x08\x00", "gre"),
        ],
    )
    def test_tunnels(self, protocol: int, before: bytes, name: str) -> None:
        frame = bytes(12) + b"\x08\x00" + self.outer(protocol, before + self.UDP)
        assert summarise(frame) == (
            f"192.0.2.1 → 192.0.2.2 {name} [203.0.113.5:40000 → 10.0.2.2:53 udp (IPv4, 32 bytes)] "
            f"(IPv4, {20 + len(before) + 32} bytes)"
        )
        assert "sport" not in fields(frame)

    def test_vxlan(self) -> None:
        inside = bytes(12) + b"\x08\x00" + self.UDP
        data = bytes.fromhex("9c4012b5") + (16 + len(inside)).to_bytes(2, "big") + bytes(2) + bytes(8) + inside
        said = summarise(bytes(12) + b"\x08\x00" + self.outer(17, data))
        assert "192.0.2.2:4789 udp [203.0.113.5:40000 → 10.0.2.2:53 udp (IPv4, 32 bytes)]" in said

    def test_tunnels_in_tunnels_end(self) -> None:
        packet = self.UDP
        for _ in range(2000):
            packet = self.outer(4, packet)
        assert summarise(bytes(12) + b"\x08\x00" + packet).count("[") == 1


def test_frames_prepared_for_one_lab_are_not_those_of_another() -> None:
    host, send = Network.of(LABS["host"]), msgspec.convert({"from": "client", "to": "device", "icmp": {}}, Send)
    keys = [next(iter(prepare([(send, lab)]))) for lab in (ROUTER, host, ROUTER, Network.of(LABS["router"]))]
    assert keys[0] == keys[2] == keys[3] != keys[1]
