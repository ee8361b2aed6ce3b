"""Writes the reports of a session, in the controller, from stored results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import HarnessError, Position, shortage
from harness.model import result
from harness.model.stored_results import StoredResults
from harness.pytest_plugin.selection import project
from harness.report import kinds
from harness.text import lines

BROKEN = 6
"""Exit status of a run in which something could not be measured: a scenario or a measurement was
broken, or a report could not be written. What pytest itself returns ends at 5."""


class Reports:
    """A plugin of pytest's for the session that the user started."""

    def __init__(self, config: pytest.Config) -> None:
        self._options = config.option
        self._folder = config.invocation_params.dir
        self._project = project(config)
        self._plugins = config.pluginmanager
        self._results = StoredResults()
        self._texts: dict[str, str | None] = {}
        self._broken = 0
        self._said: list[tuple[str, bool]] = []
        """Lines for the summary, and whether they are bad news."""
        self._table: list[str] = []
        self._annotations: list[str] = []
        self._notes: dict[str, dict[str, None]] = {}
        """Sentences by the file of a ruleset."""
        if kinds.covers(self._options):
            try:
                import harness.report.coverage  # noqa: F401  # what it needs is missed now, not at the end
            except HarnessError as error:
                raise pytest.UsageError(f"nft-harness: {error}") from None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a scenario's report carries; with ``-v``, show the way of its packets."""
        texts = vars(report).pop("nft_results", ())  # pytest keeps its reports until the session ends
        if (
            getattr(report, "outcome", "") == "rerun"
        ):  # pytest-rerunfailures: the test runs once more, and that is what counts
            return
        broken = getattr(report, "nft_broken", False)
        self._broken += broken
        for file, sentence in getattr(report, "nft_notes", ()):
            self._notes.setdefault(file, {})[sentence] = None
        with self._breaking():
            for text in texts:
                self._results.add(result.with_texts(result.decode(text), self._folder, self._texts, self._project))
        if not texts and broken:
            self.missed(report)
        terminal = self._plugins.get_plugin("terminalreporter")
        if terminal and (paths := getattr(report, "nft_paths", "")):
            terminal.ensure_newline()
            terminal.write_line(lines(paths, colour=True))

    def missed(self, report: pytest.TestReport) -> None:
        """Keep a test without an outcome of its own: its kernel crashed, or it never ran."""
        if kinds.wanted(self._options):
            with self._breaking():
                self._results.add(_crashed(report))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the requested reports; a broken run has an exit status of its own."""
        self._results.sort()
        for write in (self._store, *map(self._writer, kinds.asked(self._options)), self._annotate):
            with self._breaking():
                write()
        enough = True
        with self._breaking():
            enough = self._cover()
        if not enough and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self._broken and session.exitstatus in ended:
            session.exitstatus = BROKEN

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show rule coverage, annotations and notes, and the paths of the reports."""
        if self._table:
            terminalreporter.section("rule coverage")
        for line in (*map(lines, self._table), *self._annotations):
            terminalreporter.write_line(line)
        for file, (sentence, *more) in self._notes.items():
            others = f" (and {len(more)} more of this kind)" if more else ""
            terminalreporter.write_line(lines(f"nft-harness: note: {file}: {sentence}{others}"), yellow=True)
        for line, bad in self._said:
            if bad or self._options.verbose >= 0:
                terminalreporter.write_line(lines(f"nft-harness: {line}"), red=bad)

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """A result that can't be kept, or a report that can't be made, breaks the run and leaves the others alone."""
        try:
            yield
        except (HarnessError, OSError, MemoryError, SystemError) as error:
            if (said := error if isinstance(error, HarnessError) else shortage(error)) is None:
                raise
            self._broken += 1
            self._say(str(said), bad=True)

    def _say(self, line: str, *, bad: bool = False) -> None:
        """Have the summary say ``line``, once."""
        if (line, bad) not in self._said:
            self._said.append((line, bad))

    def _store(self) -> None:
        if self._options.nft_results:
            result.store(self._results, folder := Path(self._options.nft_results))
            self._say(f"{len(self._results)} results are in {folder}")

    def _writer(self, asked: tuple[kinds.ReportKind, str]) -> Callable[[], None]:
        kind, path = asked
        return lambda: self._say(kinds.write(kind, self._results, Path(path), self._folder))

    def _annotate(self) -> None:
        if self._options.nft_github == "yes":
            from harness.report import github

            # pytest-github-actions-annotate-failures knows of failed tests, and of no more.
            others = self._plugins.has_plugin("annotate_errors")
            self._annotations = list(github.commands(self._results, self._folder, failed=not others))

    def _cover(self) -> bool:
        """Report rule coverage; whether there is enough of it."""
        least: float | None = self._options.nft_cov_fail_under
        if not self._options.nft_cov and least is None:
            return True
        from harness.report.coverage import RuleCoverage

        covered = RuleCoverage(self._results, self._folder)
        if self._options.nft_cov:
            self._table = list(covered.lines())
        if shortfall := covered.shortfall(least):
            self._say(shortfall, bad=True)
        return not shortfall


def _crashed(report: pytest.TestReport) -> result.Result:
    """The result of a scenario whose kernel crashed, or that never ran."""
    file, line, name = report.location
    return result.Result(
        id=report.nodeid,
        name=name,
        position=Position(file, (line or 0) + 1),
        outcome="skipped" if report.outcome == "skipped" else "error",
        message=str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr),
        kernel=getattr(report, "nft_kernel", ""),
    )
