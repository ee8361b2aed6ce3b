"""Annotations of GitHub Actions."""

from __future__ import annotations

import re
from pathlib import Path

from harness.model.result import Result
from harness.report import github


def test_github_is_told_by_workflow_commands(failed: Result, tmp_path: Path) -> None:
    assert list(github.commands([failed], tmp_path)) == [
        (
            "::error file=scenarios/edge.yaml,line=31,col=7,title=SSH is refused::"
            "expect.verdict: expected x, seen y%0A"
            "packet: client 203.0.113.5:40000 → server 10.0.2.2:23 tcp S (IPv4, 40 bytes)%0A"
            "decided: inet edge forward, policy drop: policy drop%0A"
            "ended: dropped on device by inet edge forward, policy drop"
        ),
        (
            "::warning file=rulesets/edge.nft,line=3,col=45,title=decided here%3A policy drop::"
            "“SSH is refused” (scenarios/edge.yaml:31): expect.verdict: expected x, seen y"
        ),
    ]
    assert [one[:9] for one in github.commands([failed], tmp_path, failed=False)] == ["::warning"]


def test_no_name_is_a_workflow_command(evil: Result, tmp_path: Path) -> None:
    for command in github.commands([evil], tmp_path):
        assert command.splitlines() == [command]
        assert "\x1b" not in command
        properties, _, _ = command.removeprefix("::").partition("::")
        assert set(re.findall(r"(?:^\w+ |,)(\w+)=", properties)) == {"file", "line", "col", "title"}
