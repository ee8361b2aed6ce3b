"""What the controller makes of the reports that it hears."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import result
from harness.cli import main
from harness.reports import BROKEN, Reports
from harness.result import Result

Make = Callable[..., Result]


class Run:
    """A session that hears what it is told, and is then finished."""

    def __init__(self, **options: Any) -> None:
        given = {
            "nft_results": None,
            "nft_html": None,
            "nft_pcapng": None,
            "nft_cov": False,
            "nft_cov_report": [],
            "nft_cov_fail_under": None,
            **options,
        }
        config = SimpleNamespace(
            option=SimpleNamespace(**given),
            invocation_params=SimpleNamespace(dir=Path()),
            pluginmanager=SimpleNamespace(get_plugin=lambda name: None),
        )
        self.reports = Reports(config)  # type: ignore[arg-type]
        self.said: list[str] = []

    def hear(self, *results: Result, **attributes: Any) -> None:
        for one in results or (None,):
            text = result.encode(one) if one else b""
            self.reports.pytest_runtest_logreport(SimpleNamespace(nft_result=text, **attributes))  # type: ignore[arg-type]

    def finish(self, exitstatus: int = 0) -> int:
        session = SimpleNamespace(exitstatus=exitstatus)
        self.reports.pytest_sessionfinish(session)  # type: ignore[arg-type]
        writer = SimpleNamespace(write_line=lambda line, **_: self.said.append(line))
        self.reports.pytest_terminal_summary(writer)  # type: ignore[arg-type]
        return session.exitstatus


def test_the_exit_status_tells_a_broken_run_from_a_failed_one() -> None:
    for before, broken, after in [(0, False, 0), (1, False, 1), (1, True, BROKEN), (0, True, BROKEN), (2, True, 2)]:
        run = Run()
        run.hear(nft_broken=broken)
        assert run.finish(before) == after


def test_reports_of_other_tests_are_let_pass() -> None:
    run = Run(nft_results="nowhere")
    run.reports.pytest_runtest_logreport(SimpleNamespace())  # type: ignore[arg-type]
    assert run.finish() == 0


def test_results_are_stored(tmp_path: Path, make_result: Make) -> None:
    run = Run(nft_results=str(tmp_path))
    run.hear(make_result("two", line=9), make_result("one"))
    assert run.finish() == 0
    assert [one.name for one in result.load([tmp_path])] == ["one", "two"]
    assert run.said == [f"nft-harness: 2 results are in {tmp_path}"]


def test_a_report_that_cannot_be_written_breaks_the_run(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "file").touch()
    run = Run(nft_results=str(tmp_path / "file"))
    run.hear(make_result())
    assert run.finish() == BROKEN
    assert "can't be stored" in run.said[0]


@pytest.mark.parametrize("outcome", ["passed", "failed", "error", "skipped"])
def test_every_outcome_is_stored(tmp_path: Path, make_result: Make, outcome: str) -> None:
    run = Run(nft_results=str(tmp_path))
    run.hear(make_result(outcome=outcome))
    run.finish()
    assert [one.outcome for one in result.load([tmp_path])] == [outcome]


def test_too_little_rule_coverage_fails_the_run(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rulesets").mkdir()
    (tmp_path / "rulesets/edge.nft").write_text("what stood there when the tests ran\n" * 8)
    monkeypatch.chdir(tmp_path)
    for least, status in [(25, 0), (26, 1)]:
        run = Run(nft_cov_fail_under=least)
        run.hear(make_result())
        assert run.finish() == status
    assert run.said == ["nft-harness: rule coverage is 25.0 %, and 26 % were asked for"]


def test_an_unknown_coverage_report_is_refused_at_the_start() -> None:
    with pytest.raises(pytest.UsageError, match="'pdf:x' is no coverage report"):
        Run(nft_cov_report=["pdf:x"])


def test_a_report_for_the_browser_is_written_and_made_again(tmp_path: Path, make_result: Make) -> None:
    run = Run(nft_results=str(tmp_path / "results"), nft_html=str(tmp_path / "report.html"))
    run.hear(make_result())
    assert run.finish() == 0
    assert f"nft-harness: the report is in {tmp_path / 'report.html'}" in run.said
    assert main(["report", str(tmp_path / "results"), "--html", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == (tmp_path / "report.html").read_text()


def test_captures_are_written_and_made_again(tmp_path: Path, make_result: Make) -> None:
    run = Run(nft_results=str(tmp_path / "results"), nft_pcapng=str(tmp_path / "captures"))
    run.hear(make_result())
    assert run.finish() == 0
    assert f"nft-harness: 2 captures are in {tmp_path / 'captures'}" in run.said
    assert main(["report", str(tmp_path / "results"), "--pcapng", str(tmp_path / "again")]) == 0
    made, again = (sorted((tmp_path / folder).rglob("*.pcapng")) for folder in ("captures", "again"))
    assert [file.name for file in made] == ["interfaces.pcapng", "step1-packet1.pcapng"]
    assert [file.read_bytes() for file in made] == [file.read_bytes() for file in again]


def test_captures_that_cannot_be_written_break_the_run(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "file").touch()
    run = Run(nft_pcapng=str(tmp_path / "file"))
    run.hear(make_result())
    assert run.finish() == BROKEN
    assert "captures can't be written to" in run.said[0]


def test_stored_results_are_listed_and_broken_ones_refused(
    tmp_path: Path, make_result: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    result.store([make_result()], tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "passed  scenarios/edge.yaml:5: HTTPS is let in (6.12.1)\n"
    next(tmp_path.iterdir()).write_text("{")
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a stored result" in capsys.readouterr().err
