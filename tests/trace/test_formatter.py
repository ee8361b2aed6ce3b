"""Events of a live trace as lines, grouped lines, statistics and capture files."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from harness.model.observation import Loss
from harness.trace.formatter import EventFormatter
from harness.trace.lines import REMEMBERED, Line, grouped
from harness.tracer.events import Event, EventKind
from tests.trace.builders import BORN, CHAIN_ADDRESS, OTHER_CHAIN, Known, address, event, lines

IP_RCV, DO_CHAIN, IMMEDIATE, HOOKS, CONNTRACK, ROUTE, LOOKUP, ROUTE6 = range(8)
FORWARD = 2 | 2 << 8
"""NF_INET_FORWARD of NFPROTO_IPV4."""


def test_a_line_has_the_format_of_the_tool_that_this_one_replaces() -> None:
    (line,) = lines(event(EventKind.HOP))
    assert str(line) == "[   1] FUNC       IPv4       ip_rcv                         10.0.0.1:1234 → 10.0.0.2:80"


def ruled(number: int, code: int, handle: int = 9, chain: int = CHAIN_ADDRESS) -> Event:
    return event(EventKind.VERDICT, number, a=chain, b=handle | (code & 0xFF) << 40 | (code >> 16 & 0xFFFF) << 48)


def test_a_chain_shows_hook_priority_and_what_decided() -> None:
    entry, result = lines(
        event(EventKind.HOP, DO_CHAIN, a=CHAIN_ADDRESS, b=FORWARD | (-150 & 0xFFFFFFFF) << 32),
        event(EventKind.RETURN, DO_CHAIN, a=0, b=1),
    )
    assert (entry.kind, entry.detail) == ("NFT_CHAIN", "inet filter forward, hook forward, priority -150 (mangle)")
    assert (result.kind, result.verdict, result.detail) == ("NFT_CHAIN", "DROP", "inet filter forward, policy")


@pytest.mark.parametrize(
    ("code", "verdict"), [(1, "ACCEPT"), (0, "DROP"), (-5, "RETURN"), (3 | 7 << 16, "QUEUE 7"), (2, "STOLEN")]
)
def test_a_rule_shows_its_place_and_its_verdict(code: int, verdict: str) -> None:
    (rule,) = lines(ruled(LOOKUP, code))
    assert (rule.kind, rule.verdict, rule.detail) == ("NFT_RULE", verdict, "inet filter forward handle 9")


def test_a_jump_shows_its_target() -> None:
    (rule,) = lines(ruled(IMMEDIATE, -3), event(EventKind.TARGET, IMMEDIATE, a=OTHER_CHAIN))
    assert (rule.verdict, rule.detail) == ("JUMP", "inet filter forward handle 9 → inet filter services")


def test_an_expression_with_a_verdict_and_its_call_are_one_line() -> None:
    formatted = lines(
        event(EventKind.HOP, IMMEDIATE),
        ruled(IMMEDIATE, 1),
        event(EventKind.HOP, IMMEDIATE),
        event(EventKind.HOP, IP_RCV),
    )
    assert [(line.number, line.kind) for line in formatted] == [(1, "NFT_RULE"), (2, "FUNC"), (3, "FUNC")]


def test_a_chain_at_the_address_of_another_has_its_own_name() -> None:
    formatted = lines(ruled(LOOKUP, 1), event(EventKind.NAMED, a=CHAIN_ADDRESS), ruled(LOOKUP, 1))
    assert [line.detail for line in formatted] == ["inet filter forward handle 9", "inet filter renamed handle 9"]


def test_hooks_show_their_verdict_by_name() -> None:
    one, every, error = lines(
        event(EventKind.RETURN, CONNTRACK, a=1, b=FORWARD),
        event(EventKind.RETURN, HOOKS, a=1, b=FORWARD),
        event(EventKind.RETURN, HOOKS, a=-1 & 0xFFFFFFFF, b=FORWARD),
    )
    assert (one.kind, one.function, one.verdict, one.detail) == ("HOOK", "ipv4_conntrack_in", "ACCEPT", "hook forward")
    assert (every.verdict, every.detail) == ("ACCEPT", "hook forward, = 1")
    assert (error.verdict, error.detail) == ("DROP", "hook forward, = -1 (EPERM)")


def test_a_route_shows_gateway_and_device() -> None:
    gateway = int.from_bytes(socket.inet_aton("192.0.2.1"), "little")
    found, none = lines(
        event(EventKind.RETURN, ROUTE, a=0),
        event(EventKind.ROUTE, ROUTE, a=gateway, ifindex=3 | 1 << 24),
        event(EventKind.RETURN, ROUTE, a=-113 & 0xFFFFFFFF),
    )
    assert (found.kind, found.verdict, found.detail) == ("ROUTE", "UNICAST", "via 192.0.2.1 dev eth3")
    assert (none.kind, none.detail) == ("FUNC", "= -113 (EHOSTUNREACH)")
    (six,) = lines(event(EventKind.ROUTE, ROUTE6, ifindex=4 | 255 << 24))
    assert six.detail == "dev eth4"


def test_a_drop_shows_reason_and_function() -> None:
    (drop,) = lines(event(EventKind.DROP, a=5, b=7))
    assert (drop.kind, drop.function, drop.verdict) == ("DROP", "tcp_v4_rcv", "NETFILTER_DROP")


def test_addresses_are_those_of_the_moment() -> None:
    before, after = lines(event(EventKind.HOP), address(EventKind.TO, "192.168.1.9", 8080, 6), event(EventKind.HOP))
    assert (before.destination, after.destination) == ("10.0.0.2:80", "192.168.1.9:8080")


def test_ipv6_addresses_with_ports_are_in_brackets() -> None:
    (line,) = lines(address(EventKind.FROM, "2001:db8::1", 53, 17), event(EventKind.HOP))
    assert line.source == "[2001:db8::1]:53"


def test_a_stack_belongs_to_the_line_before() -> None:
    one, other = lines(event(EventKind.HOP), event(EventKind.STACK, a=3), event(EventKind.HOP))
    assert one.stack == ("stack3",)
    assert other.stack == ()


def test_statistics_count_what_was_formatted() -> None:
    formatter = EventFormatter(Known())
    list(
        formatter.format_batch(
            [*BORN, event(EventKind.HOP), event(EventKind.HOP, DO_CHAIN), event(EventKind.RETURN, DO_CHAIN, a=1)]
        )
    )
    list(formatter.format_batch([event(EventKind.BIRTH, packet=2), event(EventKind.HOP, packet=2)]))
    text = str(formatter.statistics(armed=4, seconds=1, loss=Loss(entered=6, received=5, refused=1)))
    assert "Total events:       4" in text
    assert "Packets traced:     2" in text
    assert "Functions hit:      2 of 4" in text
    assert "Lost:               1 (refused 1, missed 0, untracked 0, unaccounted 0)" in text
    assert "  ACCEPT         :      1\n  no verdict     :      1" in text


def test_freed_packets_are_forgotten_and_still_counted() -> None:
    formatter, many = EventFormatter(Known()), 5 * REMEMBERED
    for number in range(many):
        birth, gone = (event(kind, packet=number) for kind in (EventKind.BIRTH, EventKind.GONE))
        returns = event(EventKind.RETURN, DO_CHAIN, a=0, packet=number)
        (formatted,) = formatter.format_batch([birth, event(EventKind.COPY, packet=number), gone, gone, returns])
        assert formatted.line.packet == f"0.{number}", "a function returns when the packet it dropped is gone"
    assert len(formatter._packets) + len(formatter._gone) <= REMEMBERED
    assert len(formatter.finished) == many - REMEMBERED
    seen = formatter.statistics(armed=1, seconds=1, loss=Loss())
    assert (seen.packets, seen.by_verdict) == (many, {"DROP": many})


def test_lines_are_grouped_by_packet() -> None:
    formatter = EventFormatter(Known())
    formatted = list(
        formatter.format_batch(
            [*BORN, event(EventKind.HOP), event(EventKind.HOP, packet=2), event(EventKind.HOP, DO_CHAIN)]
        )
    )
    heads = [line for line in grouped([one.line for one in formatted], []) if line.startswith("packet")]
    assert heads == ["packet 0.1: 10.0.0.1:1234 → 10.0.0.2:80 tcp", "packet 0.2: ? → ?"]


def test_a_group_is_printed_when_its_packet_was_freed() -> None:
    def entries() -> Iterator[Line]:
        for number in range(2 * REMEMBERED):
            yield lines(event(EventKind.HOP))[0]
            if number == REMEMBERED // 2:
                finished.append("0.1")

    finished: list[str] = []
    printed = grouped(stream := entries(), finished)
    assert next(printed).startswith("packet 0.1")
    assert next(stream, None), "the other lines have not been read yet"
