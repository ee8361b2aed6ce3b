"""Live traces: which functions, packets and namespaces are selected."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.errors import HarnessError
from harness.lab.namespace import Namespace
from harness.trace.formatter import EventFormatter
from harness.tracer import live
from harness.tracer.discover import Functions
from harness.tracer.kernel_cache import KernelCache
from tests.tracer.builders import function

LOOPBACK = 1


def test_the_most_informative_functions_are_left() -> None:
    known = Functions((function("b", 2), function("a", 0)))
    chosen = live.select_functions(known, live.Selection(max_functions=1), everything=True)
    assert [one.name for one in chosen] == ["a"]


def test_a_glob_without_a_match_is_refused_with_similar_names() -> None:
    known = Functions((function("ip_rcv"),))
    with pytest.raises(HarnessError, match=r"ip_rvc can't be traced: .*; did you mean ip_rcv"):
        live.select_functions(known, live.Selection(functions=["ip_rvc"]), everything=True)


def test_protocols_and_filter_are_one_expression() -> None:
    assert live.expression("host 10.0.0.1", ["tcp", "udp"]) == "(tcp or udp) and (host 10.0.0.1)"
    assert live.expression("", ["tcp"]) == "tcp"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "is not JSON"),
        ("{}", "names no functions"),
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
    with pytest.raises(HarnessError, match=r"test_live.py is not a network namespace; give a name"):
        live.namespace(__file__)
    assert live.namespace(str(os.getpid())) == Path("/proc/self/ns/net").stat().st_ino


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("live") as made:
        from harness.lab import requests, rtnetlink

        made.enter(rtnetlink.RouteSocket).ask([requests.up(LOOPBACK)])
        yield made


@pytest.mark.kernel
def test_only_matching_packets_of_the_namespace_are_followed(namespace: Namespace) -> None:
    choice = live.Selection(functions=["ip_rcv", "udp_rcv"], expression="udp dst port 4242")
    with live.LiveTrace(KernelCache(cache_dir()), choice) as trace:
        formatter = EventFormatter(trace)
        trace._hosts = [namespace.inum]
        sender = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind(("127.0.0.1", 1111))

        def send() -> None:
            for port in (4241, 4242, 4243):
                sender.sendto(b"x", ("127.0.0.1", port))

        seen = [
            one.line for batch in trace.events(lambda: True, send, settle=True) for one in formatter.format_batch(batch)
        ]
    assert trace.loss.total == 0
    functions = [line.function for line in seen if line.kind == "FUNC"]
    assert functions == ["ip_rcv", "udp_rcv"]
    assert {(line.source, line.destination) for line in seen} == {("127.0.0.1:1111", "127.0.0.1:4242")}
