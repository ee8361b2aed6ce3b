"""What the reports of a session hear, and when they are written: in the controller, from results alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import result
from harness.errors import HarnessError

BROKEN = 6
"""Exit status of a run in which something could not be measured: a scenario or a measurement was
broken, or a report could not be written. What pytest itself returns ends at 5."""


class Reports:
    """A plugin of pytest's for the session that the user started."""

    def __init__(self, config: pytest.Config) -> None:
        self._options = config.option
        self._folder = config.invocation_params.dir
        self._plugins = config.pluginmanager
        self._results: list[result.Result] = []
        self._texts: dict[str, str] = {}
        self._broken = 0
        self._said: list[tuple[str, bool]] = []
        """Lines for the summary, and whether they are bad news."""
        self._table: list[str] = []
        if self._covers:
            try:
                from harness.report import coverage

                for report in self._options.nft_cov_report:
                    coverage.split(report)
            except HarnessError as error:
                raise pytest.UsageError(f"nft-harness: {error}") from None

    @property
    def _covers(self) -> bool:
        options = self._options
        return bool(options.nft_cov or options.nft_cov_report or options.nft_cov_fail_under is not None)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a scenario's report carries; with ``-v``, show the way of its packets."""
        self._broken += getattr(report, "nft_broken", False)
        if text := getattr(report, "nft_result", b""):
            self._results.append(result.with_texts(result.decode(text), self._folder, self._texts))
        terminal = self._plugins.get_plugin("terminalreporter")
        if terminal and (paths := getattr(report, "nft_paths", "")):
            terminal.ensure_newline()
            terminal.write_line(paths)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what was asked for, and tell a broken run from one that failed."""
        self._results.sort(key=result.order)
        try:
            self._write()
            if self._covers and not self._cover() and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        except HarnessError as error:
            self._broken += 1
            self._said.append((str(error), True))
        if self._broken and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = BROKEN

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show rule coverage, and say what was written."""
        if self._table:
            terminalreporter.section("rule coverage")
            for line in self._table:
                terminalreporter.write_line(line)
        for line, bad in self._said:
            terminalreporter.write_line(f"nft-harness: {line}", red=bad)

    def _write(self) -> None:
        if self._options.nft_results:
            result.store(self._results, folder := Path(self._options.nft_results))
            self._said.append((f"{len(self._results)} results are in {folder}", False))
        if self._options.nft_html:
            from harness.report import html

            html.write(self._results, file := Path(self._options.nft_html))
            self._said.append((f"the report is in {file}", False))
        if self._options.nft_pcapng:
            from harness.report import captures

            count = captures.write(self._results, folder := Path(self._options.nft_pcapng))
            self._said.append((f"{count} captures are in {folder}", False))

    def _cover(self) -> bool:
        """Report rule coverage; whether there is enough of it."""
        from harness.report.coverage import RuleCoverage

        covered = RuleCoverage(self._results, self._folder)
        if self._options.nft_cov:
            self._table = list(covered.lines())
        self._said += [(covered.write(report), False) for report in self._options.nft_cov_report]
        least: float | None = self._options.nft_cov_fail_under
        if least is None or covered.percent >= least:
            return True
        self._said.append((f"rule coverage is {covered.percent:.1f} %, and {least:g} % were asked for", True))
        return False
