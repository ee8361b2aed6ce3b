"""Lengths of packets by their headers, and payloads that give a packet the length asked for."""

from __future__ import annotations

from typing import Any

import pytest

from harness.generate.headers import existing, filled, held, measured, options_of

UDP: dict[str, Any] = {"family": 4, "proto": "udp"}
TCP: dict[str, Any] = {"family": 6, "proto": "tcp"}


@pytest.mark.parametrize(
    ("fields", "name", "length"),
    [
        (UDP, "length", 28),
        (UDP, "udp_length", 8),
        (UDP, "hdrlength", 5),
        (UDP, "doff", None),
        (UDP, "length6", None),
        (UDP | {"payload": "ffff"}, "length", 30),
        (UDP | {"ip option rr": True}, "hdrlength", 7),
        (UDP | {"ip option rr": True}, "length", 36),
        (TCP, "length6", 20),
        (TCP | {"mss": 1000}, "doff", 6),
        (TCP | {"mss": 1000, "exthdr hbh": True}, "length6", 32),
        (TCP | {"rt_type": 0}, "length6", 28),
        (TCP, "hdrlength", None),
    ],
)
def test_a_length_of_a_packet(fields: dict[str, Any], name: str, length: int | None) -> None:
    assert measured(fields, name) == length


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        (UDP | {"length": 100}, 72),
        (UDP | {"udp_length": 8}, 0),
        (UDP | {"length": 100, "udp_length": 80}, 72),
        (UDP | {"length": 100, "udp_length": 81}, None),
        (UDP | {"length": 27}, None),
        (UDP | {"length6": 60}, None),
        (UDP | {"proto": "esp", "length": 100}, None),
    ],
)
def test_a_payload_fills_a_packet_up_or_none_can(fields: dict[str, Any], size: int | None) -> None:
    found = filled(fields)
    assert (found and found["size"]) == size
    if found is not None:
        assert measured(found, "length") == found.get("length", measured(found, "length"))


def test_what_a_packet_may_have_or_not() -> None:
    assert existing("exthdr", {"name": "frag"}) == "exthdr frag"
    assert existing("exthdr", {"name": "rt", "field": "type"}) == "rt_type"
    assert existing("ip option", {"name": "lsrr"}) == "ip option lsrr"
    assert existing("ip option", {"name": "lsrr", "field": "addr"}) == ""
    assert existing("sctp chunk", {"name": "data"}) == ""


@pytest.mark.parametrize(("words", "options"), [(5, []), (6, ["ra"]), (8, ["ra", "rr"]), (9, None)])
def test_options_for_a_header_of_so_many_words(words: int, options: list[str] | None) -> None:
    found = options_of(words)
    assert (None if found is None else held(found, "ip option")) == options
    if found is not None:
        assert measured({"proto": "udp", **found}, "hdrlength") == words
