"""What a ``send`` leaves open comes from the lab; what contradicts it is refused at its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.model.problem import Problem
from harness.packets.endpoints import Endpoints, payload, plan_endpoints
from harness.packets.spec import Send
from tests.packets.builders import ROUTER

TCP: dict[str, Any] = {"tcp": {"dport": 443}}


def planned(sender: str = "client", **keys: Any) -> Endpoints:
    return plan_endpoints(msgspec.convert({"from": sender, **keys}, Send), ROUTER)


def words(one: Endpoints) -> str:
    return f"{one.interface.end} {one.through} IPv{one.family} {one.source} > {one.destination}"


@pytest.mark.parametrize(
    ("sender", "keys", "ends"),
    [
        ("client", {"to": "server", **TCP}, "client:eth0 wire IPv4 203.0.113.5 > 10.0.2.2"),
        ("client", {"to": "server", "ip6": {}, **TCP}, "client:eth0 wire IPv6 2001:db8:113::5 > 2001:db8:2::2"),
        ("client", {"to": "2001:db8:2::2", **TCP}, "client:eth0 wire IPv6 2001:db8:113::5 > 2001:db8:2::2"),
        ("client", {"to": "device", **TCP}, "client:eth0 wire IPv4 203.0.113.5 > 203.0.113.1"),
        ("server", {"to": "device", **TCP}, "server:eth0 wire IPv4 10.0.2.2 > 10.0.2.1"),
        (
            "client",
            {"to": "server", "ip": {"src": "192.0.2.9"}, **TCP},
            "client:eth0 wire IPv4 192.0.2.9 > 10.0.2.2",
        ),
        ("device", {"to": "client", **TCP}, "device:wan0 output IPv4 203.0.113.1 > 203.0.113.5"),
        ("device", {"to": "device", **TCP}, "device:lo output IPv4 "),
        ("client", {"to": "device", "arp": {}}, "client:eth0 wire IPv4 203.0.113.5 > 203.0.113.1"),
    ],
)
def test_addresses_and_the_way_out(sender: str, keys: dict[str, Any], ends: str) -> None:
    assert words(planned(sender, **keys)).startswith(ends)


def test_the_next_hop_is_the_router_and_a_request_is_for_everybody() -> None:
    assert planned(to="server", **TCP).destination_mac == "02:00:00:00:02:01"
    assert planned(to="device", arp={}).destination_mac == "ff:ff:ff:ff:ff:ff"
    assert planned(to="server", ether={"dst": "02:00:00:00:00:99"}, **TCP).destination_mac == "02:00:00:00:00:99"


def test_a_frame_of_another_kind_goes_to_the_other_end_of_the_wire() -> None:
    one = planned(ether={"type": 0x88CC})
    assert (one.family, one.source, one.destination) == (None, None, None)
    assert (one.source_mac, one.destination_mac) == ("02:00:00:00:01:01", "02:00:00:00:02:01")


@pytest.mark.parametrize(
    ("keys", "key", "sentence"),
    [
        ({"to": "servr", **TCP}, ("to",), "did you mean 'server'"),
        ({"to": "10.0.2.999", **TCP}, ("to",), "is not a valid IPv4 address"),
        ({"to": "server", "tcp": {"dport": 1}, "udp": {"dport": 1}}, ("udp",), "cannot be tcp and udp at once"),
        ({"to": "server", "arp": {}, **TCP}, ("tcp",), "an ARP message has no tcp"),
        ({"to": "server", "ip6": {}, "icmp": {}}, ("icmp",), "icmp is IPv4, but ip6 is IPv6"),
        ({"to": "server", "icmp": {"type": "echo"}}, ("icmp", "type"), "is not a type name that nft knows"),
        ({"to": "server"}, (), "has no protocol above IP"),
        ({**TCP}, (), "does not say where to"),
        ({"to": "client", **TCP}, ("to",), "client would send to itself"),
        ({"to": "server", "ip": {"src": "2001:db8::1"}, **TCP}, ("ip", "src"), "is not an IPv4 address"),
        ({"to": "203.0.113.77", **TCP}, ("to",), "no host on the link of client:eth0 has 203.0.113.77"),
        ({"to": "server", **TCP, "payload": "x" * 1500}, ("payload",), "makes a packet of 1540 bytes"),
        ({"to": "server", "sctp": {"dport": 1, "chunk": "init"}, "payload": "x"}, ("payload",), "carries no payload"),
    ],
)
def test_what_contradicts_itself_or_the_lab_is_refused_at_its_key(
    keys: dict[str, Any], key: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(Problem, match=sentence) as problem:
        planned(**keys)
    assert problem.value.keys == key


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"ether": {"dst": "02:00:00:00:00:99"}}, "the kernel of device writes the Ethernet header"),
        ({"ip": {"checksum": 1}}, "the kernel of device writes the IPv4 checksum"),
        ({"ip": {"id": 0}}, "the kernel of device replaces 0 by an identification of its own"),
    ],
)
def test_what_a_kernel_writes_itself_cannot_be_given(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        planned("device", to="server", **TCP, **keys)


def test_the_bytes_behind_the_last_header(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\x00\xff")

    def content(value: Any) -> bytes:
        return payload(msgspec.convert({"from": "client", "to": "server", "payload": value, **TCP}, Send))

    assert content("hé") == "hé".encode()
    assert content({"hex": "00ff"}) == content({"file": str(tmp_path / "body")}) == b"\x00\xff"
    with pytest.raises(Problem, match="cannot be read") as problem:
        content({"file": str(tmp_path / "none")})
    assert problem.value.keys == ("payload", "file")
