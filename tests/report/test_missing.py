"""``nft-harness report --scenarios``: a job whose results never came is not passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.model.result import Result, decode, encode

PASSES, FAILS = "scenarios/edge.yaml::HTTPS-passes", "scenarios/edge.yaml::HTTPS-is-refused"
K6, K7 = "6.12.117+deb13-amd64", "7.2.13+deb14-amd64"
MakeResult = Callable[..., Result]
Report = Callable[..., tuple[int, list[Result]]]


@pytest.fixture
def report(project: Path, monkeypatch: pytest.MonkeyPatch, make_result: MakeResult) -> Report:
    """Reports on results of tests on kernels; the exit status, and the results of all scenarios."""
    monkeypatch.chdir(project)

    def made(
        *tested: tuple[str, str], arguments: tuple[str, ...] = ("--scenarios", "scenarios")
    ) -> tuple[int, list[Result]]:
        stored = [encode(make_result(id=test, kernel=kernel)) for test, kernel in tested]
        (project / "stored.jsonl").write_bytes(b"\n".join(stored) + b"\n")
        status = main(["report", "stored.jsonl", *arguments, "--jsonl", "all.jsonl"])
        return status, [decode(line) for line in (project / "all.jsonl").read_bytes().splitlines()]

    return made


def of(results: list[Result], outcome: str) -> set[tuple[str, str]]:
    return {(one.id, one.kernel) for one in results if one.outcome == outcome}


def test_all_are_there(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    status, results = report((PASSES, K6), (FAILS, K6))
    assert (status, len(results)) == (0, 2)
    assert "no result" not in capsys.readouterr().err


def test_one_that_is_not_is_an_error(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    status, results = report((PASSES, K6))
    assert status == 3
    assert of(results, "error") == {(FAILS, K6)}
    (missed,) = (one for one in results if one.outcome == "error")
    assert missed.message == "not run: no stored result is of this scenario"
    assert missed.position.line == 6
    assert f"no result of 1 scenario; the first is {FAILS} on {K6}" in capsys.readouterr().err


def test_on_each_kernel_of_the_results(report: Report) -> None:
    status, results = report((PASSES, K6), (FAILS, K6), (PASSES, K7))
    assert status == 3
    assert of(results, "error") == {(FAILS, K7)}


def test_on_a_kernel_of_which_there_is_none(report: Report) -> None:
    asked = ("--scenarios", "scenarios", "--kernel", "6.12", "--kernel", "6.1")
    status, results = report((PASSES, K6), (FAILS, K6), arguments=asked)
    assert status == 3
    assert of(results, "error") == {(PASSES, "6.1"), (FAILS, "6.1")}


@pytest.mark.parametrize("test", [f"{PASSES}[2]", PASSES])
def test_one_that_was_repeated_is_there(report: Report, test: str) -> None:
    assert report((test, K6), (FAILS, K6))[0] == 0


def test_what_broke_before_it_had_a_kernel_is_there(report: Report) -> None:
    assert report((PASSES, ""), (FAILS, K6))[0] == 0


def test_a_file_that_is_wrong_needs_a_result_as_well(report: Report, project: Path) -> None:
    (project / "scenarios/wrong.yaml").write_text("ruleset: edge.nft\nscenarios: 7\n")
    status, results = report((PASSES, K6), (FAILS, K6))
    assert status == 3
    assert of(results, "error") == {("scenarios/wrong.yaml::file", K6)}


def test_nothing_is_looked_for_unasked(report: Report) -> None:
    status, results = report((PASSES, K6), arguments=())
    assert (status, len(results)) == (0, 1)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("scenarois", "scenarois: cannot be read: no such file or directory"),
        ("scenarios/edge.yaml::HTTPS-passes", "scenarios/edge.yaml::HTTPS-passes: cannot be read: no such file"),
        ("scenarios/rulesets/edge.nft", "scenarios/rulesets/edge.nft: is not a scenario file; name a YAML file or"),
        ("scenarios/rulesets", "scenarios/rulesets: has no scenario file"),
    ],
)
def test_a_path_without_scenarios_is_wrong(
    path: str, sentence: str, project: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "all.jsonl").touch()
    rulesets = project / "scenarios/rulesets"
    rulesets.mkdir(exist_ok=True)
    (rulesets / "edge.nft").write_text("table inet edge { }\n")
    assert report((PASSES, K6), arguments=("--scenarios", "scenarios", "--scenarios", path))[0] == 2
    assert sentence in capsys.readouterr().err


def test_a_kernel_without_scenarios_says_nothing(
    project: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "all.jsonl").touch()
    assert report((PASSES, K6), arguments=("--kernel", "6.12"))[0] == 2
    assert "name them with --scenarios" in capsys.readouterr().err


def test_no_results_at_all(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    (project / "none.jsonl").touch()
    assert main(["report", "none.jsonl", "--cov-fail-under", "90"]) == 2
    assert "none.jsonl: there are no stored results" in capsys.readouterr().err
    assert main(["report", "none.jsonl", "--scenarios", "scenarios"]) == 3
    assert "no result of 2 scenarios" in capsys.readouterr().err
