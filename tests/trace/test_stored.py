"""A trace in a file, and what is shown of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest

from harness.cli import main
from harness.errors import HarnessError
from harness.model.observation import Loss
from harness.trace.lines import Line, Statistics
from harness.trace.stored import About, Writer, read, select


def line(number: int, packet: str, function: str, source: str, destination: str, protocol: str, netns: int = 1) -> Line:
    return Line(
        number=number,
        time=number,
        packet=packet,
        kind="FUNC",
        layer="IPv4",
        function=function,
        source=source,
        destination=destination,
        protocol=protocol,
        netns=netns,
        ifindex=2,
        device="eth0",
        cpu=0,
    )


LINES = [
    line(1, "0.1", "ip_rcv", "10.0.0.1:1234", "192.0.2.1:80", "tcp"),
    line(2, "0.2", "ip_rcv", "10.0.0.1", "10.0.0.2", "icmp"),
    line(3, "0.1", "nf_nat_inet_fn", "10.0.0.1:1234", "10.0.0.2:8080", "tcp"),
    line(4, "0.1", "ip_forward", "10.0.0.1:1234", "10.0.0.2:8080", "tcp", netns=2),
    line(5, "0.3", "ipv6_rcv", "[2001:db8::1]:53", "[2001:db8::2]:5353", "udp"),
    line(6, "0.4", "arp_rcv", "?", "?", ""),
]
STATISTICS = Statistics(
    events=6,
    packets=4,
    functions=5,
    armed=9,
    chains=0,
    rules=0,
    seconds=1.0,
    loss=Loss(entered=6, received=6),
    by_layer={},
    by_verdict={},
)


def written(path: Path, statistics: Statistics | None = STATISTICS) -> Path:
    file = io.BytesIO()
    writer = Writer(file, About(kernel="6.12.9", engine="kprobe.multi", functions=9))
    assert list(writer.passing(LINES)) == LINES
    if statistics:
        writer.end(statistics)
    path.write_bytes(file.getvalue())
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = read(written(tmp_path / "t.jsonl"))
    assert (found.lines, found.statistics) == (LINES, STATISTICS)
    assert found.about == About(kernel="6.12.9", engine="kprobe.multi", functions=9)


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("icmp", [2]),
        ("port 80", [1, 3, 4]),  # and what NAT made of that packet
        ("dst host 10.0.0.2", [2, 3, 4]),  # from where it is so
        ("tcp and src net 10.0.0.0/8", [1, 3, 4]),
        ("udp port 53 and ip6", [5]),
        ("ip6 host 2001:db8::2", [5]),
        ("not ip", [5, 6]),
    ],
)
def test_filters(expression: str, numbers: list[int]) -> None:
    assert [one.number for one in select(LINES, expression=expression)] == numbers


def test_functions_and_namespaces() -> None:
    assert [one.number for one in select(LINES, functions=["ip_*"])] == [1, 2, 4]
    assert [one.number for one in select(LINES, functions=["ip_*"], netns=["2"])] == [4]


@pytest.mark.parametrize("expression", ["tcp[13] = 2", "ether host 00:00:00:00:00:01", "vlan 5", "len > 100", "arp"])
def test_a_filter_that_needs_more_than_is_stored_is_refused(expression: str) -> None:
    with pytest.raises(HarnessError, match="a stored trace cannot answer"):
        list(select(LINES, expression=expression))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(written(tmp_path / "t.jsonl"))
    assert main(["trace", "--read", file]) == 0
    out = capsys.readouterr().out
    assert out.count("ip_rcv") == 2
    assert "6 of 6 events, 4 of 4 packets\n\nTRACE STATISTICS" in out
    assert main(["trace", "--read", file, "--proto", "tcp", "--group", "packet", "--functions", "ip_*"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("packet 0.1: 10.0.0.1:1234 → 192.0.2.1:80 tcp\n")
    assert out.endswith("2 of 6 events, 1 of 4 packets\n")
    assert main(["trace", "--read", file, "--json", "--filter", "icmp"]) == 0
    assert [json.loads(one)["number"] for one in capsys.readouterr().out.splitlines()] == [2]


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        (None, "the trace has no end: it was cut off"),
        (
            msgspec.structs.replace(STATISTICS, loss=Loss(entered=7, received=6)),
            "the trace is incomplete; use a larger buffer (--buffer 32768",
        ),
    ],
)
def test_a_trace_that_is_not_whole_is_3(
    statistics: Statistics | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "--read", str(written(tmp_path / "t.jsonl", statistics))]) == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (None, [], "t.jsonl can't be read: No such file"),
        ("nonsense\n", [], "t.jsonl:1: this is no line of a trace: JSON is malformed"),
        ('{"number": 1}\n', [], "t.jsonl:1: this is no line of a trace: Object missing required field"),
        ("", ["--netns", "blue"], "--netns blue is not a number; lines in JSON"),
        ("", ["--filter", "prot tcp"], "'prot tcp' is not a valid packet filter"),
        ("", ["--", "true"], "a trace that is read runs no command"),
    ],
)
def test_what_cannot_be_read(
    content: str | None, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.jsonl"
    if content is not None:
        file.write_text(content)
    assert main(["trace", "--read", str(file), *arguments]) == 2
    assert said in capsys.readouterr().err
