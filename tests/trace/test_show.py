"""How lines of a trace look."""

from __future__ import annotations

import msgspec
import pytest

from harness.trace.lines import Line
from harness.trace.show import show

LINE = Line(
    number=1,
    time=5,
    packet="0.1",
    kind="NFT_RULE",
    layer="Netfilter",
    function="nft_immediate_eval",
    source="10.0.0.1:1234",
    destination="10.0.0.2:80",
    protocol="tcp",
    netns=4026531840,
    ifindex=2,
    device="eth0",
    cpu=0,
    verdict="ACCEPT",
    stack=("ip_rcv",),
)


@pytest.mark.parametrize(
    ("kind", "verdict", "coloured"),
    [
        ("NFT_RULE", "ACCEPT", "\x1b[32m[ACCEPT]\x1b[0m"),
        ("HOOK", "DROP", "\x1b[31m[DROP]\x1b[0m"),
        ("NFT_RULE", "QUEUE 3", "[QUEUE 3]"),
        ("DROP", "NETFILTER_DROP", "\x1b[31m[   1] DROP"),
    ],
)
def test_verdicts_in_colour(kind: str, verdict: str, coloured: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = msgspec.structs.replace(LINE, kind=kind, verdict=verdict)
    show([line], [], coloured=True)
    assert coloured in capsys.readouterr().out
    show([line], [])
    assert capsys.readouterr().out == f"{line}\n"


def test_what_a_name_has_of_its_own_is_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    show([msgspec.structs.replace(LINE, detail="\x1b[31mchain")], [], coloured=True)
    assert "\\x1b[31mchain" in capsys.readouterr().out
