"""``--nft-record`` in a session: what moved is written, what cannot be recorded is no success."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.pytest_plugin.reports import BROKEN

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
RECORD = ("--nft-record",)


def test_an_expectation_that_moved_is_written(scenarios: Run, pytester: pytest.Pytester) -> None:
    ran = scenarios((443, "expect: {verdict: drop}"), (23, "expect: {verdict: drop}"), arguments=(*RECORD, "-v"))
    ran.stdout.fnmatch_lines(["*::port-443 MOVED*", "*::port-23 PASSED*", "*port 443: recorded verdict*"])
    assert ran.ret == pytest.ExitCode.OK
    text = (pytester.path / "scenarios/edge.yaml").read_text()
    assert text.count("verdict: accept") == 1
    assert text.count("verdict: drop") == 1


def test_where_everything_holds_that_is_said(scenarios: Run) -> None:
    ran = scenarios((443, "expect: {verdict: accept}"), arguments=RECORD)
    ran.stdout.fnmatch_lines(["*nothing to record: every scenario expects what was seen"])


def test_what_cannot_be_recorded_fails_the_session(scenarios: Run, pytester: pytest.Pytester) -> None:
    before = "expect: {path: {exactly: [ip_rcv, ip_forward]}}"
    ran = scenarios((443, before), arguments=RECORD)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    assert "a path given as `exactly` is not rewritten" in ran.stdout.str()
    assert before in (pytester.path / "scenarios/edge.yaml").read_text()


def test_what_could_not_be_measured_breaks_it(scenarios: Run) -> None:
    assert scenarios((7, "expect: {verdict: accept}"), arguments=RECORD).ret == BROKEN
