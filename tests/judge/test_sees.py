"""How a packet must look where it arrived, field by field."""

from __future__ import annotations

import msgspec
import pytest

from harness.judge.sees import WantedField, describe_sees, wanted_fields
from harness.packets.spec import Sees


@pytest.mark.parametrize(
    ("field", "wanted", "seen", "fits"),
    [
        ("ttl", 63, 63, True),
        ("ttl", 63, 64, False),
        ("flags", "SA", "AS", True),
        ("flags", "SA", "A", False),
        ("src", "2001:DB8:0::1", "2001:db8::1", True),
        ("dst", "2001:DB8:0::1", "2001:db8::1", True),
        ("dst", "10.0.2.2", "10.0.2.3", False),
        ("protocol", "tcp", "udp", False),
        ("dst", "10.0.2.2 | 10.0.2.3", "10.0.2.3", True),
        ("dst", "10.0.2.2 | 2001:DB8:0::1", "2001:db8::1", True),
        ("dst", "10.0.2.2 | 10.0.2.3", "10.0.2.4", False),
        ("dport", "80 | 443", 443, True),
        ("dport", "80|443", 44, False),
    ],
)
def test_a_field(field: str, wanted: str | int, seen: str | int, fits: bool) -> None:
    assert WantedField(field, wanted, wanted).fits({field: seen}) is fits


@pytest.mark.parametrize("field", ["src", "dst", "flags", "ttl"])
def test_a_field_that_the_packet_does_not_have(field: str) -> None:
    assert WantedField(field, "10.0.2.2", "10.0.2.2").fits({}) is False


def test_a_packet_without_a_tag_is_in_vlan_0() -> None:
    assert WantedField("vlan", 0, 0).fits({})
    assert not WantedField("vlan", 5, 5).fits({})


def test_in_a_few_words() -> None:
    sees = msgspec.convert({"ttl": 63, "tcp": {"flags": "RA"}}, Sees)
    assert describe_sees(sees) == "ttl 63, tcp, flags RA"


def test_icmp_types_are_found_as_numbers() -> None:
    sees = msgspec.convert({"icmp": {"type": "destination-unreachable", "code": "admin-prohibited"}}, Sees)
    assert {key: one.found for key, one in wanted_fields(sees).items() if one.field in ("type", "code")} == {
        ("icmp", "type"): 3,
        ("icmp", "code"): 13,
    }


def test_icmpv6_types_are_others() -> None:
    sees = msgspec.convert({"icmpv6": {"type": "destination-unreachable", "code": "admin-prohibited"}}, Sees)
    wanted = wanted_fields(sees)
    assert {key: one.found for key, one in wanted.items()} == {
        ("icmpv6",): "icmpv6",
        ("icmpv6", "type"): 1,
        ("icmpv6", "code"): 1,
    }
    assert wanted["icmpv6",] == WantedField("protocol", "icmpv6", "icmpv6")


def test_echoes_of_icmp_have_more_than_type_and_code() -> None:
    sees = msgspec.convert({"icmp": {"type": "echo-reply"}}, Sees)
    assert {key: one.found for key, one in wanted_fields(sees).items()} == {("icmp",): "icmp", ("icmp", "type"): 0}
