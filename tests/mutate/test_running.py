"""Which scenarios show each place that their packets come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.mutate.running import is_followed
from harness.scenario.case import Case
from harness.scenario.load import load_all

SEND = "send: {from: client, to: device, tcp: {dport: 22}}"
DROP = f"{{{SEND}, expect: {{verdict: drop}}}}"
LISTEN = "{listen: {on: server, tcp: 80}}"
CONNECT = "{connect: {from: client, to: server, tcp: 80}, expect: {verdict: accept}}"


@pytest.mark.parametrize(
    ("steps", "followed"),
    [
        ([DROP], True),
        ([LISTEN, CONNECT, DROP], True),
        ([f"{{{SEND}}}", DROP], False),
        ([DROP, "{nft: 'add element inet t s { 1.2.3.4 }'}", DROP], False),
        ([DROP, "{wait: {conntrack: none}}", DROP], False),
    ],
)
def test_packets_are_followed_where_something_is_expected_of_each(
    steps: list[str], followed: bool, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "t.nft").write_text("table inet t { set s { type ipv4_addr; } }")
    lines = "".join(f"      - {step}\n" for step in steps)
    file = tmp_path / "t.yaml"
    file.write_text(f"lab: router\nruleset: t.nft\nscenarios:\n  - name: one\n    steps:\n{lines}")
    (case,) = load_all(file).cases
    assert isinstance(case, Case), case
    assert is_followed(case) is followed
