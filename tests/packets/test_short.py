"""The short form of a packet, as bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from harness.packets.headers import fields
from tests.packets.builders import frame


def test_a_neighbour_solicitation_has_its_target() -> None:
    data = frame(to="device", icmpv6={"type": "nd-neighbor-solicit"}).data
    assert data[-16:] == bytes.fromhex("20010db8011300000000000000000001")


@pytest.mark.parametrize(
    ("header", "kind", "limit"),
    [({}, "nd-neighbor-solicit", 255), ({}, 137, 255), ({"hlim": 1}, "nd-redirect", 1), ({}, "echo-request", 64)],
)
def test_neighbour_discovery_has_the_hop_limit_that_it_needs(header: Any, kind: Any, limit: int) -> None:
    hop_limit = frame(to="device", ip6=header, icmpv6={"type": kind}).data[14 + 7]
    assert hop_limit == limit


def test_a_vlan_tag_stands_before_what_is_in_it() -> None:
    found = fields(frame(to="server", ether={"vlan": 10}, tcp={"dport": 443}).data)
    assert (found["vlan"], found["ether_type"], found["dport"]) == (10, 0x0800, 443)
    found = fields(frame(to="device", ether={"vlan": 20}, arp={}).data)
    assert (found["vlan"], found["op"]) == (20, "request")


def test_options_checksums_and_bytes() -> None:
    data = frame(
        to="server", ip={"checksum": 0xBAD}, tcp={"dport": 443, "mss": 1400, "checksum": 7}, payload={"hex": "16 0301"}
    ).data
    assert (data[24:26], data[50:52], data[-3:]) == (b"\x0b\xad", b"\0\x07", b"\x16\x03\x01")
    assert fields(data)["mss"] == 1400


@pytest.mark.parametrize(
    ("keys", "layers"),
    [
        ({"sctp": {"dport": 9}}, "IP SCTP SCTPChunkInit"),
        ({"sctp": {"dport": 9, "chunk": "data"}, "payload": "x"}, "IP SCTP SCTPChunkData"),
        ({"ip6": {}, "sctp": {"dport": 9, "chunk": "abort"}}, "IPv6 SCTP SCTPChunkAbort"),
        ({"gre": {"key": 7}, "payload": {"hex": "0001"}}, "IP GRE Raw"),
        ({"ip6": {"headers": ["hbh", "dst", "rt"]}, "tcp": {"dport": 80}},
         "IPv6 IPv6ExtHdrHopByHop IPv6ExtHdrDestOpt IPv6ExtHdrRouting TCP"),
        ({"ip6": {"headers": [{"frag": {"offset": 3, "id": 9}}], "nh": 59}}, "IPv6 IPv6ExtHdrFragment"),
        ({"ip": {"options": ["rr", "ra"]}, "icmp": {}}, "IP IPOption_RR IPOption_Router_Alert ICMP"),
    ],
)  # fmt: skip
def test_scapy_reads_the_headers_that_were_meant(keys: dict[str, Any], layers: str) -> None:
    from scapy.layers.l2 import Ether
    from scapy.layers.sctp import SCTP

    made = Ether(frame(to="server", **keys).data)
    seen = [layer.__name__ for layer in made.layers()[1:]]
    if options := [
        type(one).__name__ for one in made.payload.fields.get("options", ()) if type(one).__name__[-3:] != "EOL"
    ]:
        seen[1:1] = options
    assert " ".join(seen).removesuffix(" Padding") == layers
    if SCTP in made:
        given = made[SCTP].chksum
        made[SCTP].chksum = None
        assert Ether(bytes(made))[SCTP].chksum == given


def test_checksums_are_right_behind_extension_headers() -> None:
    made = frame(to="server", ip6={"headers": ["hbh", "dst"]}, icmpv6={}).data
    packet, total = made[14:], 0
    message = packet[56:]
    pseudo = packet[8:40] + struct.pack(">IHBB", len(message), 0, 0, 58) + message
    for (word,) in struct.iter_unpack(">H", pseudo):
        total += word
    assert total % 0xFFFF == 0
