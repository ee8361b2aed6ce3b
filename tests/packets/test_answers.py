"""Hand-made answers, beside those that Scapy makes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from scapy.layers import inet, inet6, l2
from scapy.packet import Raw

from harness.model.problem import Problem
from harness.packets.answers import RawAnswer, answer_to, check
from harness.packets.checksum import is_checksum_wrong
from harness.packets.headers import fields

ETHER = l2.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BACK = l2.Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
IP = {4: inet.IP(src="203.0.113.5", dst="10.0.2.2"), 6: inet6.IPv6(src="2001:db8::5", dst="2001:db8::2")}
SYN = inet.TCP(sport=40000, dport=443, flags="S", seq=0xFFFFFFFF, options=[("MSS", 1460)])
ASKED = inet.UDP(sport=40000, dport=53) / Raw(b"question")


def answer(to: Any, **keys: Any) -> bytes:
    made = answer_to(bytes(to), msgspec.convert(keys, RawAnswer))
    assert made is not None
    return made


def back(version: int, ttl: int = 64, **keys: Any) -> Any:
    """The headers of an answer, around which Scapy puts lengths and checksums."""
    if version == 4:
        return BACK / inet.IP(src="10.0.2.2", dst="203.0.113.5", ttl=ttl, **keys)
    return BACK / inet6.IPv6(src="2001:db8::2", dst="2001:db8::5", hlim=ttl, **keys)


@pytest.mark.parametrize("version", [4, 6])
def test_segments_and_datagrams_are_as_scapy_writes_them(version: int) -> None:
    reply = inet.TCP(sport=443, dport=40000, flags="SA", seq=1000, ack=0, window=64240, options=[("MSS", 1400)])
    assert answer(ETHER / IP[version] / SYN, tcp={"mss": 1400}) == bytes(back(version) / reply)
    datagram = inet.UDP(sport=53, dport=40000) / Raw(b"answer!")
    assert answer(ETHER / IP[version] / ASKED, udp={}, payload="answer!") == bytes(back(version) / datagram)
    other = inet.UDP(sport=5353, dport=40000) / Raw(b"\x00\x01")
    made = answer(ETHER / IP[version] / ASKED, udp={}, payload={"hex": "00 01"}, sport=5353, ttl=7)
    assert made == bytes(back(version, 7) / other)


@pytest.mark.parametrize(
    ("flags", "load", "said", "expected"),
    [
        ("S", b"", {"flags": "RA"}, ("RA", 0, 6)),
        ("S", b"", {"flags": "R"}, ("R", 0, 0)),
        ("A", b"", {"flags": "R"}, ("R", 77, 0)),
        ("PA", b"data", {"flags": "A"}, ("A", 77, 9)),
        ("FA", b"data", {"flags": "FA"}, ("FA", 77, 10)),
        ("S", b"", {"flags": "SA", "seq": 5, "ack": -7}, ("SA", 1005, 0xFFFFFFFF)),
    ],
)
def test_numbers_fit_the_segment_that_is_answered(
    flags: str, load: bytes, said: dict[str, Any], expected: tuple[str, int, int]
) -> None:
    came = ETHER / IP[4] / inet.TCP(sport=40000, dport=443, flags=flags, seq=5, ack=77) / Raw(load)
    made = answer(bytes(came) + bytes(6), tcp=said)  # with what pads a short frame
    seen = fields(made)
    assert (set(str(seen["flags"])), seen["seq"], seen["ack"]) == (set(expected[0]), *expected[1:])
    assert not is_checksum_wrong(made)


def test_an_error_quotes_the_packet() -> None:
    came = ETHER / IP[4] / ASKED
    quoted = Raw(bytes(came)[14:])
    unreachable = back(4) / inet.ICMP(type=3, code=3) / quoted
    assert answer(came, icmp={}) == bytes(unreachable)
    too_long = (
        BACK / inet.IP(src="198.51.100.1", dst="203.0.113.5") / inet.ICMP(type=3, code=4, nexthopmtu=1400) / quoted
    )
    assert answer(came, icmp={"code": "frag-needed", "mtu": 1400}, src="198.51.100.1") == bytes(too_long)
    elsewhere = back(4) / inet.ICMP(type=5, code=1, gw="10.0.2.9") / quoted
    assert answer(came, icmp={"type": "redirect", "code": 1, "gateway": "10.0.2.9"}) == bytes(elsewhere)
    assert fields(answer(came, icmp={"type": "time-exceeded"}))["type"] == 11
    long = ETHER / IP[4] / inet.UDP(sport=1, dport=2) / Raw(bytes(1400))
    assert fields(answer(long, icmp={}))["length"] == 576


def test_an_error_of_icmpv6_quotes_the_packet() -> None:
    came = ETHER / IP[6] / ASKED
    quoted = Raw(bytes(came)[14:])
    assert answer(came, icmpv6={}) == bytes(back(6) / inet6.ICMPv6DestUnreach(code=4) / quoted)
    big = back(6) / inet6.ICMPv6PacketTooBig(mtu=1280) / quoted
    assert answer(came, icmpv6={"type": "packet-too-big", "mtu": 1280}) == bytes(big)
    long = ETHER / IP[6] / inet.UDP(sport=1, dport=2) / Raw(bytes(1400))
    assert fields(answer(long, icmpv6={}))["length"] == 1280


def test_a_tag_of_a_vlan_stays() -> None:
    came = ETHER / l2.Dot1Q(vlan=7) / IP[4] / SYN
    assert fields(answer(came, tcp={}))["vlan"] == 7


def test_what_cannot_be_answered_is_not() -> None:
    refused = msgspec.convert({"icmp": {}}, RawAnswer)
    rest = inet.IP(src="203.0.113.5", dst="10.0.2.2", frag=185, proto=17) / Raw(b"rest of it")
    assert answer_to(bytes(ETHER / rest), refused) is None
    assert answer_to(bytes(ETHER / IP[6] / SYN), refused) is None
    assert answer_to(bytes(ETHER / l2.ARP()), refused) is None
    segment = msgspec.convert({"tcp": {}}, RawAnswer)
    assert answer_to(bytes(ETHER / IP[4] / inet.UDP(sport=1, dport=2)), segment) is None
    assert (
        answer_to(bytes(ETHER / IP[6] / SYN), RawAnswer(udp=None, tcp=None, icmp=refused.icmp, src="10.0.0.1")) is None
    )


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "is no packet"),
        ({"tcp": {}, "icmp": {}}, "cannot be tcp and icmp at once"),
        ({"icmp": {}, "sport": 5}, "an ICMP error has no sport"),
        ({"icmpv6": {"type": "nd-redirect"}}, "nd-redirect is not an error"),
        ({"icmpv6": {}, "src": "10.0.0.1"}, "10.0.0.1 is IPv4, but icmpv6 is IPv6"),
        ({"icmp": {"type": "redirect"}}, "a redirect needs a gateway"),
        ({"icmp": {"gateway": "10.0.0.1"}}, "only a redirect has a gateway"),
        ({"icmp": {"type": "redirect", "gateway": "r2"}}, "'r2' is not an IPv4 address"),
        ({"tcp": {}, "src": "server"}, "'server' is not an address"),
        ({"icmp": {"type": "time-exceeded", "code": "admin-prohibited"}}, "only codes of destination-unreachable"),
    ],
)
def test_what_is_no_answer_is_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        check(msgspec.convert(keys, RawAnswer))
