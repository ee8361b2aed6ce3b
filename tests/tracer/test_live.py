"""Following whatever passes: what is chosen, and how it is told."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.kernel.images import cache_dir
from harness.lab.namespace import Namespace
from harness.report.live import Line, Teller, grouped
from harness.tracer import live, pcap
from harness.tracer.discover import Function, Functions
from harness.tracer.events import Event, Kind
from harness.tracer.kept import Kept

CHAIN_ADDRESS = 0xFFFF0001
LOOPBACK = 1


def function(name: str, priority: int = 1) -> Function:
    return Function(name=name, kernel_name=name, position=0, carries="sk_buff", layer="IPv4", priority=priority)


FUNCTIONS = [function(name) for name in ("ip_rcv", "nft_do_chain", "nft_immediate_eval", "nf_hook_slow")]


def event(kind: Kind, number: int = 0, *, a: int = 0, b: int = 0, packet: int = 1, ifindex: int = 2) -> Event:
    return Event(0, 0xAA, a, b, packet, 4026531840, ifindex, number, kind, 0)


def address(kind: Kind, text: str, port: int, protocol: int, packet: int = 1) -> Event:
    six = ":" in text
    raw = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, text).ljust(16, b"\0")
    words = [int.from_bytes(raw[at : at + 8], "little") for at in (0, 8)]
    ethertype = 0x86DD if six else 0x0800
    return event(kind, ethertype, a=words[0], b=words[1], packet=packet, ifindex=port | protocol << 16)


BORN = [event(Kind.BIRTH), address(Kind.FROM, "10.0.0.1", 1234, 6), address(Kind.TO, "10.0.0.2", 80, 6)]


def teller() -> Teller:
    return Teller(
        FUNCTIONS,
        chain={CHAIN_ADDRESS: "inet filter forward"}.get,  # type: ignore[arg-type]
        symbol=lambda _: "tcp_v4_rcv",
        stack=lambda number: (f"stack{number}",),
        reasons={7: "NETFILTER_DROP"},
    )


def lines(*events: Event) -> list[Line]:
    return list(teller().tell([*BORN, *events]))


def test_a_line_has_what_the_ancestor_printed() -> None:
    (line,) = lines(event(Kind.HOP))
    assert str(line) == "[   1] FUNC       IPv4       ip_rcv                         10.0.0.1:1234 → 10.0.0.2:80"


def test_rules_chains_and_drops_tell_their_verdicts() -> None:
    chain, rule, result, drop = lines(
        event(Kind.HOP, 1, a=CHAIN_ADDRESS),
        event(Kind.HOP, 2, a=1 << 32 | 0xFFFFFFFD),
        event(Kind.RETURN, 1, a=1),
        event(Kind.DROP, a=5, b=7),
    )
    assert (chain.kind, chain.detail) == ("NFT_CHAIN", "inet filter forward")
    assert (rule.kind, rule.verdict) == ("NFT_RULE", "JUMP")
    assert (result.kind, result.verdict) == ("NFT_CHAIN", "ACCEPT")
    assert (drop.kind, drop.function, drop.verdict) == ("DROP", "tcp_v4_rcv", "NETFILTER_DROP")


def test_addresses_are_those_of_the_moment() -> None:
    before, after = lines(event(Kind.HOP), address(Kind.TO, "192.168.1.9", 8080, 6), event(Kind.HOP))
    assert (before.destination, after.destination) == ("10.0.0.2:80", "192.168.1.9:8080")


def test_ipv6_addresses_with_ports_are_in_brackets() -> None:
    (line,) = lines(address(Kind.FROM, "2001:db8::1", 53, 17), event(Kind.HOP))
    assert line.source == "[2001:db8::1]:53"


def test_a_stack_belongs_to_the_line_before() -> None:
    one, other = lines(event(Kind.HOP), event(Kind.STACK, a=3), event(Kind.HOP))
    assert one.stack == ("stack3",)
    assert other.stack == ()


def test_statistics_count_what_was_told() -> None:
    from harness.observation import Loss

    tell = teller()
    list(tell.tell([*BORN, event(Kind.HOP), event(Kind.HOP, 1), event(Kind.RETURN, 1, a=1)]))
    text = str(tell.statistics(armed=4, seconds=1, loss=Loss(entered=6, received=5, refused=1)))
    assert "Total events:       3" in text
    assert "Functions hit:      2 of 4" in text
    assert "Lost:               1 (refused 1, missed 0, untracked 0, unaccounted 0)" in text
    assert "  ACCEPT         :      1" in text


def test_grouped_lines_stand_packet_by_packet() -> None:
    told = lines(event(Kind.HOP), event(Kind.HOP, packet=2), event(Kind.HOP, 1))
    heads = [line for line in grouped(told) if line.startswith("packet")]
    assert heads == ["packet 1: 10.0.0.1:1234 → 10.0.0.2:80 tcp", "packet 2: ? → ?"]


def test_the_most_telling_functions_are_left() -> None:
    known = Functions((function("b", 2), function("a", 0)))
    chosen = live.select_functions(known, live.Choice(max_functions=1), everything=True)
    assert [one.name for one in chosen] == ["a"]


def test_a_glob_without_a_match_is_refused_with_what_is_near() -> None:
    known = Functions((function("ip_rcv"),))
    with pytest.raises(HarnessError, match=r"ip_rvc can't be traced: .*; did you mean ip_rcv"):
        live.select_functions(known, live.Choice(functions=["ip_rvc"]), everything=True)


def test_protocols_and_filter_are_one_expression() -> None:
    assert live.expression("host 10.0.0.1", ["tcp", "udp"]) == "(tcp or udp) and (host 10.0.0.1)"
    assert live.expression("", ["tcp"]) == "tcp"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "is no JSON"),
        ("{}", "names no function"),
        ('{"functions": [{"nam": "x"}]}', "missing required field `name`"),
    ],
)
def test_a_wrong_config_is_refused_in_words(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(HarnessError, match=complaint):
        live.read_config(path)


def test_names_of_a_config_are_read_in_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"functions": ["ip_rcv", {"name": "ip_output", "layer": "IPv4"}]}))
    assert live.read_config(path) == ["ip_rcv", "ip_output"]


def test_a_namespace_that_is_nowhere_is_refused() -> None:
    with pytest.raises(HarnessError, match="there is no network namespace nowhere"):
        live.namespace("nowhere")
    assert live.namespace(str(os.getpid())) == Path("/proc/self/ns/net").stat().st_ino


def test_a_filter_becomes_c() -> None:
    assert pcap.in_c("tcp port 80").startswith("u32 A = 0, X = 0; LOAD(A, 2, 12U);")
    with pytest.raises(HarnessError, match=r"'foo bar' is no packet filter: .*syntax error; see pcap-filter"):
        pcap.in_c("foo bar")
    with pytest.raises(HarnessError, match="only a capture knows"):
        pcap.in_c("inbound")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("live") as made:
        from harness.lab import rtnl
        from harness.netlink import Netlink

        def up() -> None:
            with Netlink(rtnl.NETLINK_ROUTE) as link:
                link.ask([rtnl.up(LOOPBACK)])

        made.call(up)
        yield made


@pytest.mark.kernel
def test_only_wanted_packets_of_the_namespace_are_followed(namespace: Namespace) -> None:
    choice = live.Choice(functions=["ip_rcv", "udp_rcv"], expression="udp dst port 4242")
    with live.Trace(Kept(cache_dir()), choice) as trace:
        told = Teller(trace.functions, chain=trace.chain, symbol=trace.symbol, stack=trace.stack, reasons=trace.reasons)
        trace._hosts = [namespace.inum]
        sender = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind(("127.0.0.1", 1111))

        def send() -> None:
            for port in (4241, 4242, 4243):
                sender.sendto(b"x", ("127.0.0.1", port))

        seen = [line for batch in trace.events(lambda: True, send, settle=True) for line in told.tell(batch)]
    assert trace.loss.total == 0
    functions = [line.function for line in seen if line.kind == "FUNC"]
    assert functions == ["ip_rcv", "udp_rcv"]
    assert {(line.source, line.destination) for line in seen} == {("127.0.0.1:1111", "127.0.0.1:4242")}
