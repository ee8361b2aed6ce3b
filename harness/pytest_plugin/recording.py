"""``--nft-record``, in the process that the user started."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.model import result
from harness.model.stored_results import StoredResults
from harness.pytest_plugin.reports import BROKEN
from harness.pytest_plugin.selection import project
from harness.recording.files import RecordingOutcome, record
from harness.scenario.files import SUFFIXES
from harness.text import escape


class RecordingPlugin:
    """A plugin that collects results and records them when the session ends."""

    def __init__(self) -> None:
        self._begun = time.time_ns()
        self._results = StoredResults()
        self._outcomes: list[RecordingOutcome] = []
        self._error = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a scenario's report carries."""
        for one in map(result.decode, getattr(report, "nft_results", ())):
            if one.position.file.endswith(SUFFIXES):  # and no test in Python
                try:
                    self._results.add(one)
                except HarnessError as error:
                    self._error = str(error)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """A scenario whose expectation moved did not pass; nor is it a failure, now that it is to be written."""
        return ("moved", "m", "MOVED") if getattr(report, "nft_moved", False) and report.when == "call" else None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the files; what could not be recorded is no success."""
        folder = Path(session.config.invocation_params.dir)
        try:
            if not self._error:  # of some scenarios not all is known
                self._outcomes = record(self._results, folder, self._begun, project(session.config))
        except HarnessError as error:
            self._error = str(error)
        refused = [outcome for outcome in self._outcomes if not outcome.written]
        if session.exitstatus == pytest.ExitCode.OK and any(outcome.moved for outcome in refused):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        broken = self._error or any(not outcome.moved for outcome in refused)
        if broken and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = BROKEN

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was written where."""
        for outcome in self._outcomes:
            terminalreporter.write_line(
                escape(f"nft-harness: {outcome.position}: {outcome.name}: {outcome.words}"), red=not outcome.written
            )
        if self._error:
            terminalreporter.write_line(f"nft-harness: {self._error}", red=True)
        if not self._outcomes and not self._error:
            terminalreporter.write_line("nft-harness: nothing to record: every scenario expects what was seen")
