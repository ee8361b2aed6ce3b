"""Reports that pytest's options ask for, and the writing of one."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.report import kinds
from tests.report.builders import Make


def options(**asked: Any) -> Namespace:
    nothing = dict.fromkeys((kind.option for kind in kinds.KINDS), None)
    return Namespace(
        **{**nothing, "nft_github": "auto", "nft_cov": False, "nft_cov_fail_under": None, "nft_results": None, **asked}
    )


def by_name(name: str) -> kinds.ReportKind:
    return next(kind for kind in kinds.KINDS if kind.name == name)


@pytest.mark.parametrize(
    ("asked", "covers", "wanted"),
    [
        ({}, False, False),
        ({"nft_html": "a.html"}, False, True),
        ({"nft_cov_lcov": "lcov.info"}, True, True),
        ({"nft_cov": True}, True, True),
        ({"nft_cov_fail_under": 0}, True, True),
        ({"nft_results": "results"}, False, True),
        ({"nft_github": "yes"}, False, True),
    ],
)
def test_what_is_asked_for(asked: dict[str, Any], covers: bool, wanted: bool) -> None:
    found = options(**asked)
    assert (kinds.covers(found), kinds.wanted(found)) == (covers, wanted)


@pytest.mark.parametrize(
    ("in_github", "asked", "found"),
    [
        (False, {}, ("no", None)),
        (True, {}, ("yes", "/step.md")),
        (True, {"nft_github": "no", "nft_summary": "own.md"}, ("no", "own.md")),
    ],
)
def test_github_shows_some_unasked(
    in_github: bool, asked: dict[str, Any], found: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_github:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv(kinds.STEP_SUMMARY, "/step.md")
    chosen = options(**asked)
    kinds.by_environment(chosen)
    assert (chosen.nft_github, chosen.nft_summary) == found


def test_each_report_says_where_it_is(tmp_path: Path, make_result: Make) -> None:
    for kind in kinds.KINDS:
        if kind.name.startswith("cov-"):
            pytest.importorskip("coverage")
        path = tmp_path / kind.name
        folder = Path(__file__).parents[2]
        assert kinds.write(kind, [make_result()], path, folder) == f"{kind.name} is in {path}"
        assert path.is_dir() is (kind.path == "DIR")


def test_one_that_cannot_be_written_is_named(tmp_path: Path, make_result: Make) -> None:
    with pytest.raises(HarnessError, match=r"html can't be written to .*: Is a directory"):
        kinds.write(by_name("html"), [make_result()], tmp_path, tmp_path)


def test_the_summary_of_a_job_keeps_what_others_wrote(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step.md"
    path.write_text("of another command\n")
    monkeypatch.setenv(kinds.STEP_SUMMARY, str(path))
    kinds.write(by_name("summary"), [], path, tmp_path)
    assert path.read_text() == "of another command\n"
    kinds.write(by_name("summary"), [make_result()], path, tmp_path)
    assert path.read_text().startswith("of another command\n\n## ")


def test_a_report_of_one_file_can_be_printed(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in kinds.KINDS:
        if kind.name.startswith("cov-"):
            pytest.importorskip("coverage")
        if kind.path == "FILE":
            assert kinds.to_print(kind, [make_result()], Path(__file__).parents[2])
        else:
            with pytest.raises(HarnessError, match=f"--{kind.name} -: this report is a folder"):
                kinds.to_print(kind, [make_result()], tmp_path)
    assert not list(tmp_path.iterdir())


def test_pytest_prints_no_report_between_its_own_lines() -> None:
    kinds.refuse_standard_output(options(nft_html="a.html"))
    with pytest.raises(HarnessError, match="--nft-html -: pytest prints to standard output itself"):
        kinds.refuse_standard_output(options(nft_html="-"))
