"""Numbers that nft prints as names."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from harness.generate import names


@pytest.mark.parametrize(
    ("value", "protocol"),
    [("tcp", "tcp"), (6, "tcp"), ("icmpv6", "ipv6-icmp"), (58, "ipv6-icmp"), ("ospf", 89), ("vrrp", 112), (200, 200)],
)
def test_a_protocol_as_packets_have_it(value: Any, protocol: str | int) -> None:
    assert names.protocol(value) == protocol


@pytest.mark.parametrize(
    ("value", "field", "protocol", "number"),
    [
        (22, "dport", None, 22),
        ("22", "dport", None, 22),
        ("echo-request", "type", "icmp", 8),
        ("echo-request", "type", "ipv6-icmp", 128),
        ("arp", "ether_type", None, 0x0806),
        ("cs1", "dscp", None, 8),
        ("af21", "dscp", None, 18),
        ("reply", "op", None, 2),
        ("10.0.0.1", "saddr", None, int(ip_address("10.0.0.1"))),
        ("2001:db8::1", "saddr", None, int(ip_address("2001:db8::1"))),
        ("cs1", "dport", None, None),
        ("eth0", "iifname", None, None),
        (True, "dport", None, None),
        (None, "dport", None, None),
    ],
)
def test_a_value_as_a_number(value: Any, field: str, protocol: Any, number: int | None) -> None:
    assert names.number(value, field, protocol) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("syn", 2),
        (["fin", "syn"], 3),
        ({"|": ["syn", "ack"]}, 18),
        (["syn", "syn"], 2),
        (18, 18),
        ("nonsense", None),
        (["syn", "nonsense"], None),
        ({"&": []}, None),
    ],
)
def test_flags(value: Any, number: int | None) -> None:
    assert names.flags(value) == number
