"""What ``nft-harness check`` prints, and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.check import functions
from harness.check.functions import Surveyed
from harness.cli import main

Write = Callable[..., Path]


@pytest.fixture
def wrong(project: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a mistake and something to be warned of."""
    monkeypatch.setattr(functions, "surveys", lambda where: [Surveyed("6.12", frozenset({"ip_rcv"}), ())])
    return project("{rule: edge.nft:999, path: [ip_rvc]}")


ERROR = "expect.rule: no rule of the ruleset begins on that line"
WARNING = "expect.path[0]: Linux 6.12 has no function ip_rvc that takes a packet and can be traced"


def test_text(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(wrong)]) == 1
    error, warning = capsys.readouterr().out.splitlines()
    assert error.startswith(f"edge.yaml:6:20: {ERROR}; the nearest is edge.nft:12: ")
    assert warning == f"edge.yaml:6:41: warning: {WARNING}; did you mean ip_rcv?"


def test_warnings_alone_are_no_error(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong.write_text(wrong.read_text().replace("edge.nft:999", "edge.nft:8"))
    assert main(["check", str(wrong)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["1 file, 1 scenario: 1 warning"]


@pytest.mark.parametrize(("is_terminal", "no_colour", "coloured"), [(1, 0, 1), (1, 1, 0), (0, 0, 0)])
def test_colour_on_a_terminal(
    wrong: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    no_colour: bool,
    coloured: bool,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: bool(is_terminal))
    monkeypatch.setenv("NO_COLOR", "1") if no_colour else monkeypatch.delenv("NO_COLOR", raising=False)
    main(["check", str(wrong)])
    assert ("\x1b[31mexpect.rule" in capsys.readouterr().out) == bool(coloured)


def test_json(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--format", "json", str(wrong)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["scenarios"], found["not_checked"]) == (1, 1, [])
    assert [(one["level"], one["file"], one["line"], one["column"], one["message"]) for one in found["findings"]] == [
        ("error", "edge.yaml", 6, 20, ERROR),
        ("warning", "edge.yaml", 6, 41, WARNING),
    ]


def test_sarif(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--format", "sarif", str(wrong)]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [("error", "error"), ("doubtful", "warning")]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"], place["region"]) == ({"uri": "edge.yaml"}, {"startLine": 6, "startColumn": 20})


def test_github(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--format", "github", str(wrong)]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"::error file=edge.yaml,line=6,col=20,title=nft-harness check::{ERROR}")
    assert second.startswith("::warning file=edge.yaml,line=6,col=41,")
