"""Fields of packets that expressions read, their values, and membership in sets."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from harness.generate.expressions import UNKNOWN, choices, contains, element, field, state, value

PACKET: dict[str, Any] = {
    "family": 4,
    "proto": "tcp",
    "saddr": ip_address("192.0.2.7"),
    "daddr": ip_address("10.0.2.2"),
    "sport": 40000,
    "dport": 443,
    "flags": {"syn"},
    "iif": "wan0",
}


def payload(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        (meta("iifname"), "iif"),
        (meta("l4proto"), "proto"),
        (meta("mark"), "mark"),
        (payload("tcp", "dport"), "dport"),
        (payload("ip", "protocol"), "proto"),
        (payload("ether", "saddr"), "ether_saddr"),
        (payload("vlan", "id"), "vlan"),
        (payload("vlan", "pcp"), "vlan_pcp"),
        ({"&": [meta("mark"), 15]}, "mark"),
        ({"ct": {"key": "state"}}, "state"),
        ({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
        ({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "path"),
        ({"fib": {"result": "oif", "flags": ["daddr"]}}, ""),
        ({"tcp option": {"name": "maxseg", "field": "size"}}, "mss"),
        ({"ct": {"key": "proto-dst", "dir": "original"}}, "dport"),
        ({"exthdr": {"name": "hbh"}}, "exthdr hbh"),
        ({"exthdr": {"name": "rt", "field": "type"}}, "rt_type"),
        (22, ""),
    ],
)
def test_the_field_that_an_expression_reads(expression: Any, name: str) -> None:
    assert field(expression) == name


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        (443, 443),
        (payload("tcp", "dport"), 443),
        (payload("th", "dport"), 443),
        (payload("udp", "dport"), None),
        (payload("ip", "saddr"), ip_address("192.0.2.7")),
        (payload("ip6", "saddr"), None),
        (payload("ip", "ttl"), 64),
        (payload("icmp", "type"), None),
        (payload("tcp", "window"), 64240),
        (payload("tcp", "checksum"), UNKNOWN),
        (payload("ip", "length"), 40),
        (payload("ip", "hdrlength"), 5),
        (payload("ip6", "flowlabel"), None),
        ({"ip option": {"name": "rr"}}, False),
        ({"ct": {"key": "proto-dst", "dir": "original"}}, 443),
        ({"ct": {"key": "bytes", "dir": "original"}}, UNKNOWN),
        (meta("mark"), 0),
        (meta("cgroup"), UNKNOWN),
        (meta("pkttype"), "host"),
        ({"&": [{"ct": {"key": "mark"}}, 15]}, 0),
        ({"|": [{"ct": {"key": "mark"}}, 16]}, 16),
        ({"<<": [payload("tcp", "dport"), 1]}, 886),
        ({"&": [payload("tcp", "flags"), ["syn", "ack"]]}, 2),
        ({"&": [payload("udp", "dport"), 1]}, None),
        ({"&": [meta("cgroup"), 1]}, UNKNOWN),
        ({"concat": [payload("tcp", "dport"), meta("iifname")]}, (443, "wan0")),
        ({"concat": [payload("udp", "dport"), meta("cgroup")]}, None),
        ({"concat": [payload("tcp", "dport"), meta("cgroup")]}, UNKNOWN),
        ({"numgen": {"mode": "inc", "mod": 2}}, UNKNOWN),
        ({"numgen": {"mode": "inc", "mod": 1, "offset": 5}}, 5),
        ({"osf": {"key": "name"}}, UNKNOWN),
    ],
)
def test_the_value_of_an_expression(expression: Any, found: Any) -> None:
    assert value(expression, PACKET) == found


@pytest.mark.parametrize(
    ("left", "found", "member", "is_in"),
    [
        (payload("tcp", "dport"), 443, 443, True),
        (payload("tcp", "dport"), 443, {"range": [440, 443]}, True),
        (payload("tcp", "dport"), 443, {"range": [444, 450]}, False),
        (payload("tcp", "dport"), 443, {"elem": {"val": 443, "timeout": 60}}, True),
        (payload("ip", "saddr"), "192.0.2.7", {"prefix": {"addr": "192.0.2.0", "len": 24}}, True),
        (payload("ip", "saddr"), "192.0.3.7", {"prefix": {"addr": "192.0.2.0", "len": 24}}, False),
        (payload("ip", "saddr"), "192.0.2.7", {"prefix": {"addr": "nonsense", "len": 24}}, False),
        (meta("iifname"), "wlan7", "wlan*", True),
        (meta("iifname"), "lan7", "wlan*", False),
        (meta("iifname"), "wlan*", "wlan\\*", True),
        (payload("tcp", "flags"), frozenset({"syn", "ack"}), ["ack", "syn"], True),
        (payload("icmp", "type"), "echo-request", 8, True),
        (meta("nfproto"), 4, "ipv4", True),
        ({"concat": [payload("tcp", "dport"), meta("iifname")]}, (443, "wan0"), {"concat": [443, "wan*"]}, True),
        ({"concat": [payload("tcp", "dport"), meta("iifname")]}, (443, "wan0"), {"concat": [443, "lan0"]}, False),
        ({"concat": [payload("tcp", "dport"), meta("iifname")]}, (443, "wan0"), {"concat": [443]}, False),
    ],
)
def test_whether_a_value_is_in_a_set(left: Any, found: Any, member: Any, is_in: bool) -> None:
    assert contains(left, found, member, {"proto": "icmp"} if field(left) == "type" else PACKET) is is_in


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"proto": "tcp"}, "new"),
        ({"proto": "tcp", "state": "established"}, "established"),
        ({"proto": "icmp", "type": "echo-request"}, "new"),
        ({"proto": "icmp", "type": "redirect"}, "invalid"),
        ({"proto": "ipv6-icmp", "type": "nd-neighbor-solicit"}, "untracked"),
    ],
)
def test_the_state_that_conntrack_gives(fields: dict[str, Any], found: str) -> None:
    assert state(fields) == found


def test_one_of_several_states() -> None:
    assert choices(frozenset({"new"}), ["established", "new"])
    assert choices("new", [["established", "new"]])
    assert not choices(frozenset({"new"}), ["established", {"elem": {"val": "related"}}])


def test_an_element_without_what_else_it_holds() -> None:
    assert element({"elem": {"val": 22, "comment": "ssh"}}) == 22
    assert element({"prefix": {"addr": "10.0.0.0", "len": 8}}) == {"prefix": {"addr": "10.0.0.0", "len": 8}}
