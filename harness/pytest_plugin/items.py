"""A scenario file becomes pytest items: measured and judged in setup, reported in the call.

That split gives each bad outcome its own word in pytest: a broken scenario or measurement is an
*error*, a ruleset that does not do what was expected *failed*, and what this kernel cannot do is
*skipped* with the reason.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

from harness.bounds import RESULT_BYTES
from harness.errors import HarnessError, Position, ScenarioError, Unsupported, short_of, shortage
from harness.pytest_plugin import companions
from harness.pytest_plugin.session import SESSION
from harness.pytest_plugin.trial import Failure, Trial, differing, failure_of, notes, paths, properties
from harness.scenario.case import Broken, Case
from harness.scenario.models import marks
from harness.text import escape, lines

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, Traceback


class ScenarioFile(pytest.File):
    """A file of scenarios."""

    def collect(self) -> Iterator[ScenarioItem]:
        """One item per scenario; what is wrong with the file as a whole is an item as well."""
        loaded = self.config.stash[SESSION].load(self.path)
        for number, error in enumerate(loaded.errors):
            yield ScenarioItem.from_parent(self, name=f"file-{number}" if number else "file", case=error)
        times: int = self.config.option.nft_repeat * companions.count(self.config)
        for turn in range(times):
            for case in loaded.cases:
                name = f"{case.id}[{turn + 1}]" if times > 1 else case.id
                yield ScenarioItem.from_parent(self, name=name, case=case)


class Failed(Exception):
    """The ruleset did not do what was expected; the text says it all."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.position = failure.position
        self.summary = failure.summary


class ScenarioItem(pytest.Item):
    """One scenario."""

    def __init__(self, *, case: Case | Broken | ScenarioError, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.case = case
        path, line, _ = self.reportinfo()
        self.trial = Trial(
            nodeid=self.nodeid,
            name=self.name,
            path=path,
            line=line + 1,
            case=case,
            colour=self.config.stash[SESSION].colour,
        )
        if not isinstance(case, ScenarioError):
            for mark in case.marks:
                name, args, named = marks.parse(mark)
                self.add_marker(getattr(pytest.mark, name).with_args(*args, **named) if args or named else name)
        if isinstance(case, Case) and case.may_miss:
            self.add_marker(pytest.mark.nft_may_miss(*case.may_miss))

    def setup(self) -> None:
        """Measure and judge: whatever goes wrong here says nothing about the ruleset."""
        match self.case:
            case ScenarioError() as error:
                raise error
            case Broken(errors=errors):
                raise ScenariosBroken(errors)
            case Case() as case:
                started = time.monotonic()
                self._forget()
                try:
                    self.trial.measurements = self.config.stash[SESSION].run(case)
                    self.trial.failure = self._judge(case)
                except Unsupported as lacking:
                    if short := short_of(lacking):
                        raise short from None
                    if self.config.option.nft_require:
                        raise
                    pytest.skip(f"unsupported here: {lacking}")
                finally:
                    self.trial.seconds = time.monotonic() - started
                    self.user_properties += properties(self.trial.measurements)

    def runtest(self) -> None:
        """Say whether the ruleset did what was expected; one that is recorded now does what it does."""
        if self.trial.failure and not self.config.option.nft_record:
            raise Failed(self.trial.failure)

    def _forget(self) -> None:
        """What an earlier turn has seen, where pytest-rerunfailures has a test run again."""
        self.trial.forget()
        forget_properties(self)

    def _traceback_filter(self, excinfo: ExceptionInfo[BaseException]) -> Traceback:
        """Show only frames of nft-harness: printing those of pytest takes a minute under emulation."""
        return excinfo.traceback.cut(path=__file__)

    def _judge(self, case: Case) -> Failure | None:
        """All that differs in the first step where anything does; what follows it would follow from it."""
        failure = None
        for _, packets in itertools.groupby(self.trial.measurements, key=attrgetter("action")):
            measurements = list(packets)
            found = [differing(case, measurement) for measurement in measurements]
            self.trial.mismatches += found
            failure = failure or failure_of(case, measurements, found, colour=self.trial.colour)
            if failure and not self.config.option.nft_record:  # which needs to know of every step
                break
        return failure

    def reportinfo(self) -> tuple[Path, int, str]:
        """The place of the scenario in its file."""
        match self.case:
            case Case() as case:
                line = case.where(0).line
            case Broken(position=position) | ScenarioError(position=position):
                line = position.line
        return self.path, max(line - 1, 0), self.name


class ScenariosBroken(HarnessError):
    """Everything that is wrong in one scenario."""

    def __init__(self, errors: tuple[ScenarioError, ...]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.position = errors[0].position

    def __str__(self) -> str:
        return self.sentence  # several lines, each escaped


def representation(item: pytest.Item, excinfo: ExceptionInfo[BaseException]) -> ReprExceptionInfo | None:
    """What the user reads about an error, without a traceback; None for a bug in nft-harness."""
    error = excinfo.value
    error = shortage(error) or error
    if not isinstance(error, HarnessError | Failed):
        return None
    path, line, _ = item.reportinfo()
    place: Position = getattr(error, "position", Position(str(path), (line or 0) + 1))
    summary = error.summary if isinstance(error, Failed) else str(error).splitlines()[0]
    each = error.each if isinstance(error, HarnessError) else (error,)
    shown = lines("\n".join(map(str, each)), colour=True)  # of the text of a failure
    return ReprExceptionInfo(
        reprtraceback=ReprTraceback([ReprEntryNative([f"{shown}\n"])], None, style="native"),
        reprcrash=ReprFileLocation(escape(place.file), place.line, summary),
    )


def forget_properties(item: pytest.Item) -> None:
    """Drop the JUnit properties of an earlier turn, where pytest-rerunfailures has a test run again."""
    item.user_properties = [one for one in item.user_properties if not one[0].startswith("nft.")]


def attach(item: pytest.Item, trials: Sequence[Trial], report: pytest.TestReport) -> None:
    """Put what was seen into the report in which ``item`` ends; xdist carries it to the controller."""
    if report.when == "call" or (report.when == "setup" and not report.passed):
        options = item.config.option
        wanted = item.config.stash[SESSION].wants_results
        results = _recorded(trials, report) if wanted else []
        shown = "\n".join(map(paths, trials)) if options.verbose > 0 and report.passed else ""
        # Together they are one message of a worker.
        if (size := sum(map(len, results)) + len(shown) + len(report.longreprtext)) > RESULT_BYTES:
            _refuse(item, trials, report, size)
            results, shown = _recorded(trials, report) if wanted else [], ""
        if report.failed and (failure := next((one.failure for one in trials if one.failure), None)):
            # Readers of pytest's reports, such as a plugin for annotations, then point at the expectation.
            file, _, name = report.location
            report.location = file, failure.position.line - 1, name
        vars(report).update(
            nft_broken=report.when == "setup" and report.failed,
            nft_declared=report.skipped and _declared(item, report),
            nft_scenario=_named(item),
            nft_moved=isinstance(item, ScenarioItem) and bool(item.trial.failure) and options.nft_record,
            nft_paths=shown,
            nft_notes=[note for trial in trials for note in notes(trial)],
            nft_results=results,
        )


def _refuse(item: pytest.Item, trials: Sequence[Trial], report: pytest.TestReport, size: int) -> None:
    """Make ``report`` that of an error: of a test of which so much was seen that no reader of results would take it."""
    for trial in trials:
        trial.forget()
    try:
        raise HarnessError(
            f"what was seen of its packets takes {size >> 20} MiB, and {RESULT_BYTES >> 20} MiB is a result's limit",
            remedy="send fewer packets, in several scenarios, or run it without reports and without -v",
        )
    except HarnessError:
        report.longrepr = representation(item, pytest.ExceptionInfo.from_current())
    report.outcome, report.when = "failed", "setup"


def _declared(item: pytest.Item, report: pytest.TestReport) -> bool:
    """Whether the test may miss what it was skipped for."""
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else report.longreprtext
    words = [str(word) for mark in item.iter_markers("nft_may_miss") for word in mark.args]
    return any(word.casefold() in reason.casefold() for word in words)


def _named(item: pytest.Item) -> str:
    """``FILE::ID`` of a scenario, by which others find it again; "" of anything else."""
    return f"{item.path}::{item.case.id}" if isinstance(item, ScenarioItem) and isinstance(item.case, Case) else ""


def _recorded(trials: Sequence[Trial], report: pytest.TestReport) -> list[bytes]:
    from harness.model.result import encode
    from harness.pytest_plugin.results import to_result

    return [encode(to_result(one, report)) for one in trials]
