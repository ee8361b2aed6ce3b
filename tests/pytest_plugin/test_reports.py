"""What the controller makes of the reports that it receives."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness.cli import main
from harness.model import result, stored_results
from harness.model.result import Result
from harness.pytest_plugin.reports import BROKEN, Reports
from harness.report import html, kinds, summary

Make = Callable[..., Result]


class Run:
    """A session that receives what it is given, and is then finished."""

    def __init__(self, *, others: str = "", **options: Any) -> None:
        given = {
            **dict.fromkeys((kind.option for kind in kinds.KINDS), None),
            "verbose": 0,
            "inifilename": None,
            "rootdir": None,
            "nft_results": None,
            "nft_github": "no",
            "nft_cov": False,
            "nft_cov_fail_under": None,
            **options,
        }
        config = SimpleNamespace(
            option=SimpleNamespace(**given),
            invocation_params=SimpleNamespace(dir=Path()),
            stash=pytest.Stash(),
            args=[],
            inipath=None,
            pluginmanager=SimpleNamespace(get_plugin=lambda name: None, has_plugin=lambda name: name == others),
        )
        self.reports = Reports(config)  # type: ignore[arg-type]
        self.said: list[str] = []

    def receive(self, *results: Result, **attributes: Any) -> None:
        for one in results or (None,):
            text = result.encode(one) if one else b""
            self.reports.pytest_runtest_logreport(SimpleNamespace(nft_results=[text] if text else [], **attributes))  # type: ignore[arg-type]

    def finish(self, exitstatus: int = 0) -> int:
        session = SimpleNamespace(exitstatus=exitstatus)
        self.reports.pytest_sessionfinish(session)  # type: ignore[arg-type]
        writer = SimpleNamespace(write_line=lambda line, **_: self.said.append(line))
        self.reports.pytest_terminal_summary(writer)  # type: ignore[arg-type]
        return session.exitstatus


def test_the_exit_status_tells_a_broken_run_from_a_failed_one() -> None:
    for before, broken, after in [(0, False, 0), (1, False, 1), (1, True, BROKEN), (0, True, BROKEN), (2, True, 2)]:
        run = Run()
        run.receive(nft_broken=broken)
        assert run.finish(before) == after


def test_reports_of_other_tests_are_let_pass(tmp_path: Path) -> None:
    run = Run(nft_results=str(tmp_path / "results"))
    run.reports.pytest_runtest_logreport(SimpleNamespace())  # type: ignore[arg-type]
    assert run.finish() == 0


def test_results_are_stored(tmp_path: Path, make_result: Make) -> None:
    run = Run(nft_results=str(tmp_path))
    run.receive(make_result("two", line=9), make_result("one"))
    assert run.finish() == 0
    assert [one.name for one in stored_results.load([tmp_path])] == ["one", "two"]
    assert run.said == [f"nft-harness: 2 results are in {tmp_path}"]


def test_a_report_that_cannot_be_written_breaks_the_run(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "file").touch()
    run = Run(nft_results=str(tmp_path / "file"))
    run.receive(make_result())
    assert run.finish() == BROKEN
    assert "can't be stored" in run.said[0]


@pytest.mark.parametrize("outcome", ["passed", "failed", "error", "skipped"])
def test_every_outcome_is_stored(tmp_path: Path, make_result: Make, outcome: str) -> None:
    run = Run(nft_results=str(tmp_path))
    run.receive(make_result(outcome=outcome))
    run.finish()
    assert [one.outcome for one in stored_results.load([tmp_path])] == [outcome]


def test_too_little_rule_coverage_fails_the_run(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rulesets").mkdir()
    (tmp_path / "rulesets/edge.nft").write_text("what stood there when the tests ran\n" * 8)
    monkeypatch.chdir(tmp_path)
    for least, status in [(25, 0), (26, 1)]:
        run = Run(nft_cov_fail_under=least)
        run.receive(make_result())
        assert run.finish() == status
    assert run.said == ["nft-harness: rule coverage is 25.0 %, and 26 % were asked for"]


def test_a_report_for_the_browser_is_written_and_made_again(tmp_path: Path, make_result: Make) -> None:
    run = Run(nft_results=str(tmp_path / "results"), nft_html=str(tmp_path / "report.html"))
    run.receive(make_result())
    assert run.finish() == 0
    assert f"nft-harness: html is in {tmp_path / 'report.html'}" in run.said
    assert main(["report", str(tmp_path / "results"), "--html", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == (tmp_path / "report.html").read_text()


def test_captures_are_written_and_made_again(tmp_path: Path, make_result: Make) -> None:
    run = Run(nft_results=str(tmp_path / "results"), nft_pcapng=str(tmp_path / "captures"))
    run.receive(make_result())
    assert run.finish() == 0
    assert f"nft-harness: pcapng is in {tmp_path / 'captures'}" in run.said
    assert main(["report", str(tmp_path / "results"), "--pcapng", str(tmp_path / "again")]) == 0
    made, again = (sorted((tmp_path / folder).rglob("*.pcapng")) for folder in ("captures", "again"))
    assert [file.name for file in made] == ["interfaces.pcapng", "step1-packet1.pcapng"]
    assert [file.read_bytes() for file in made] == [file.read_bytes() for file in again]


def test_captures_that_cannot_be_written_break_the_run(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "file").touch()
    run = Run(nft_pcapng=str(tmp_path / "file"))
    run.receive(make_result())
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


def test_every_report_is_made_again_from_any_stored_form(tmp_path: Path, make_result: Make) -> None:
    pytest.importorskip("coverage", reason="coverage.py is not installed")
    result.store([make_result(outcome="failed")], tmp_path / "results")
    for folder, source in (("first", "results"), ("second", "first/results.jsonl")):
        names = {kind.name: "results.jsonl" if kind.name == "jsonl" else kind.name for kind in kinds.KINDS}
        options = [f"--{kind}={tmp_path / folder / name}" for kind, name in names.items()]
        assert main(["report", str(tmp_path / source), *options]) == 0
    for name in ("html", "results.jsonl", "summary", "gitlab", "sarif", "cov-lcov"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert (tmp_path / "first/cov-html/index.html").exists()


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_a_path_that_cannot_be_written_breaks_the_run_and_no_other_report(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch, kind: kinds.ReportKind
) -> None:
    pytest.importorskip("coverage", reason="coverage.py is not installed")
    (tmp_path / "file").touch()
    (tmp_path / "rulesets").mkdir()
    (tmp_path / "rulesets/edge.nft").write_text("what stood there when the tests ran\n" * 8)
    monkeypatch.chdir(tmp_path)
    run = Run(**{kind.option: str(tmp_path / "file/below"), "nft_results": str(tmp_path / "results")})
    run.receive(make_result())
    assert run.finish() == BROKEN
    assert any(
        re.search(r"can't be written to .*/file/below: .*(Not a directory|File exists)", line) for line in run.said
    )
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_a_full_disk_is_said(make_result: Make) -> None:
    run = Run(nft_html="/dev/full")
    run.receive(make_result())
    assert run.finish() == BROKEN
    assert run.said == ["nft-harness: html can't be written to /dev/full: No space left on device"]


def test_annotations_leave_to_another_plugin_what_it_says(make_result: Make) -> None:
    for others, commands in (("", ["error", "warning"]), ("annotate_errors", ["warning"])):
        run = Run(nft_github="yes", others=others)
        run.receive(make_result(outcome="failed"))
        run.finish()
        assert [line.split()[0] for line in run.said] == [f"::{command}" for command in commands]


def test_in_github_actions_annotations_and_summary_come_unasked(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(**given: str) -> tuple[str, str | None]:
        options = Namespace(**{"nft_github": "auto", "nft_summary": None, **given})
        kinds.by_environment(options)
        return options.nft_github, options.nft_summary

    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert chosen() == ("no", None)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert chosen() == ("yes", str(tmp_path / "summary.md"))
    assert chosen(nft_github="no", nft_summary="mine.md") == ("no", "mine.md")

    (tmp_path / "summary.md").write_text("what another command said\n")
    run = Run(nft_summary=str(tmp_path / "summary.md"))
    run.receive(make_result())
    run.finish()
    assert (tmp_path / "summary.md").read_text().startswith("what another command said\n\n## ✅ 1 passed\n")


def test_a_session_without_scenarios_writes_no_summary_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert Run(nft_summary=str(tmp_path / "summary.md")).finish() == 0
    assert not (tmp_path / "summary.md").exists()


def test_a_scenario_whose_kernel_died_is_in_every_report(tmp_path: Path) -> None:
    run = Run(nft_results=str(tmp_path))
    died = {"nodeid": "s/a.yaml::x", "location": ("s/a.yaml", 4, "x"), "longrepr": "worker 'vm' crashed"}
    run.receive(nft_broken=True, outcome="failed", **died)
    assert run.finish() == BROKEN
    (one,) = stored_results.load([tmp_path])
    assert (one.outcome, str(one.position), one.message) == ("error", "s/a.yaml:5", "worker 'vm' crashed")


def test_a_ruleset_that_changed_since_is_said(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one = make_result()
    assert one.ruleset is not None
    result.store([one], tmp_path / "results")
    (tmp_path / "rulesets").mkdir()
    for text, said in ((one.ruleset.texts["rulesets/edge.nft"], False), ("changed", True)):
        (tmp_path / "rulesets/edge.nft").write_text(text)
        assert main(["report", "results"]) == 0
        assert ("rulesets/edge.nft: changed since the run" in capsys.readouterr().err) == said


def test_a_quiet_session_says_only_what_is_bad(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "file").touch()
    run = Run(verbose=-1, nft_results=str(tmp_path / "results"), nft_html=str(tmp_path / "file/below"))
    run.receive(make_result())
    run.finish()
    assert run.said == [f"nft-harness: html can't be written to {tmp_path / 'file/below'}: Not a directory"]


def test_notes_are_one_line_for_each_ruleset() -> None:
    run = Run(verbose=-1)
    run.receive(nft_notes=[("a.nft", "drops ARP"), ("a.nft", "drops more")])
    run.receive(nft_notes=[("a.nft", "drops ARP"), ("b\x1b.nft", "drops ARP")])
    assert run.finish() == 0
    assert run.said == [
        "nft-harness: note: a.nft: drops ARP (and 1 more of this kind)",
        r"nft-harness: note: b\x1b.nft: drops ARP",
    ]


def test_notes_are_in_reports_and_results_without_them_are_read(tmp_path: Path, make_result: Make) -> None:
    plain = make_result()
    sent = msgspec.structs.replace(plain.sent[0], notes=("<drops> ARP",))
    noted = msgspec.structs.replace(plain, sent=(sent,))
    assert result.decode(result.encode(noted)).sent[0].notes == ("<drops> ARP",)
    before = msgspec.json.decode(result.encode(plain))
    del before["sent"][0]["notes"]
    assert result.decode(msgspec.json.encode(before)).sent[0].notes == ()
    assert "note: &lt;drops&gt; ARP" in html.render([noted])
    assert "note: " not in html.render([plain])
    assert "- note: " in (text := summary.render([noted, noted]))
    assert text.count("drops") == 1
    assert "note" not in summary.render([plain])


def test_stored_results_are_asked_for_rule_coverage(
    tmp_path: Path, make_result: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("coverage", reason="coverage.py is not installed")
    result.store([make_result()], tmp_path)
    assert main(["report", str(tmp_path), "--cov-fail-under", "25"]) == 0
    assert main(["report", str(tmp_path), "--cov-fail-under", "26"]) == 1
    assert "rule coverage is 25.0 %, and 26 % were asked for" in capsys.readouterr().err
