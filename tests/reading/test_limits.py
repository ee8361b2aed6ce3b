"""Limits of rules as nft lists them, and as iptables has them."""

from __future__ import annotations

import msgspec
import pytest

from harness.packets.headers import framed
from harness.reading.limits import Limit, limits_of, may_come_behind
from tests.builders import frame, rule, step


@pytest.mark.parametrize(
    ("text", "burst", "token"),
    [
        ("limit rate 5/second burst 5 packets accept", 5, 0.2),
        ("limit rate 5/minute accept", 5, 12),
        ("tcp dport 22 limit rate over 1/hour burst 3 packets drop", 3, 3600),
        ("limit rate 300 bytes/minute burst 100 bytes accept", 400, 0.2),
        ("limit rate 1 kbytes/second burst 2 kbytes accept", 3072, 1 / 1024),
        ("update @seen { ip saddr limit rate over 3/minute burst 4 packets } drop", 4, 20),
    ],
)
def test_how_much_passes_at_once_and_when_the_next(text: str, burst: int, token: float) -> None:
    (found,) = limits_of(rule(text))
    assert (found.burst, found.token) == (burst, pytest.approx(token))
    assert found.over is (" over " in text)
    assert found.bytes is ("bytes/" in text)
    assert found.shared is ("{" not in text)


@pytest.mark.parametrize(
    ("written", "burst", "token"),
    [
        ("-m limit --limit 5/min -j ACCEPT", 5, 12),
        ("-m limit --limit 10/sec --limit-burst 20 -j ACCEPT", 20, 0.1),
        ("-m hashlimit --hashlimit-above 2/minute --hashlimit-burst 3 --hashlimit-name ssh -j DROP", 3, 30),
    ],
)
def test_those_of_iptables_stand_where_it_is_written(written: str, burst: int, token: float) -> None:
    (found,) = limits_of(msgspec.structs.replace(rule('xt match "limit" counter accept'), written=written))
    assert (found.burst, found.token) == (burst, pytest.approx(token))


@pytest.mark.parametrize(
    "text", ["tcp dport 22 accept", 'accept comment "limit rate 5/second"', 'log prefix "limit name x " drop']
)
def test_what_is_no_limit(text: str) -> None:
    assert limits_of(rule(text)) == ()


def test_a_limit_with_a_name_is_what_its_declaration_says() -> None:
    named = {"inet filter slow": "limit rate over 2/minute burst 3 packets", "ip filter slow": "limit rate 9/second"}
    (found,) = limits_of(rule('tcp dport 22 limit name "slow" drop'), named)
    assert found == Limit("limit rate over 2/minute burst 3 packets", "tcp dport 22 ", 3, 30, False, True, True, "slow")


@pytest.mark.parametrize("text", ['limit name "other" drop', 'limit name ip saddr map { 192.0.2.1 : "other" } drop'])
def test_nothing_is_known_of_a_limit_that_is_not_declared(text: str) -> None:
    others = {"ip filter slow": "limit rate 2/minute", "inet other slow": "limit rate 2/minute"}
    (found,) = limits_of(rule(text), others)
    assert (found.burst, found.token) == (0, 0)


def test_all_limits_of_a_rule_in_order() -> None:
    text = "add @seen { ip saddr limit rate 2/minute burst 1 packets } limit rate 4/second burst 9 packets accept"
    assert [(one.burst, one.token, one.shared) for one in limits_of(rule(text))] == [(1, 30, False), (9, 0.25, True)]


def test_nothing_is_known_of_a_limit_of_iptables_by_bytes() -> None:
    written = "-m hashlimit --hashlimit-above 512kb/s --hashlimit-name bulk -j DROP"
    (found,) = limits_of(msgspec.structs.replace(rule('xt match "hashlimit" counter drop'), written=written))
    assert (found.burst, found.token, found.bytes) == (0, 0, True)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("limit rate 1/hour accept", True),
        ("tcp dport 443 limit rate 1/hour accept", True),
        ("tcp dport 22 limit rate 1/hour accept", False),
        ("limit rate 1/hour tcp dport 22 accept", True),
        ("ct state new limit rate 1/hour accept", True),
        ("icmp type echo-request limit rate 1/hour accept", False),
    ],
)
def test_a_packet_comes_to_a_limit_unless_a_match_before_it_fails(text: str, may: bool) -> None:
    """The packet goes to port 443 by TCP."""
    first = msgspec.structs.replace(step("accept"), headers=frame()[14:])
    assert framed(first.headers)[14:] == first.headers
    (limit,) = limits_of(rule(text))
    assert limit
    assert may_come_behind(limit.before, first) is may
