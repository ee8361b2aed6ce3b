"""A scenario file becomes pytest items: measured and judged in setup, reported in the call.

That split gives each bad outcome its own word in pytest: a broken scenario or measurement is an
*error*, a ruleset that does not do what was expected *failed*, and what this kernel cannot do is
*skipped* with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

from harness.errors import HarnessError, Position, ScenarioError, Unsupported
from harness.judge import Keys, Mismatch, judge
from harness.report.terminal import escape, explain
from harness.scenario.load import Broken, Case
from harness.session import SESSION

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, Traceback

    from harness.run import Sight


class ScenarioFile(pytest.File):
    """A file of scenarios."""

    def collect(self) -> Iterator[ScenarioItem]:
        """One item per scenario; what is wrong with the file as a whole is an item as well."""
        loaded = self.config.stash[SESSION].load(self.path)
        for number, error in enumerate(loaded.errors):
            yield ScenarioItem.from_parent(self, name=f"file-{number}" if number else "file", case=error)
        for case in loaded.cases:
            yield ScenarioItem.from_parent(self, name=case.id, case=case)


class Failed(Exception):
    """The ruleset did not do what was expected; the text says it all."""

    def __init__(self, text: str, position: Position, summary: str) -> None:
        super().__init__(text)
        self.position = position
        self.summary = summary


class ScenarioItem(pytest.Item):
    """One scenario."""

    def __init__(self, *, case: Case | Broken | ScenarioError, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.case = case
        self.failure: Failed | None = None
        if not isinstance(case, ScenarioError):
            for mark in case.marks:
                self.add_marker(mark)

    def setup(self) -> None:
        """Measure and judge: whatever goes wrong here says nothing about the ruleset."""
        match self.case:
            case ScenarioError() as error:
                raise error
            case Broken(errors=errors):
                raise ScenariosBroken(errors)
            case Case() as case:
                try:
                    self.failure = self._judge(case, self.config.stash[SESSION].run(case))
                except Unsupported as lacking:
                    if self.config.option.nft_require:
                        raise
                    pytest.skip(f"unsupported here: {lacking}")

    def runtest(self) -> None:
        """Say whether the ruleset did what was expected."""
        if self.failure:
            raise self.failure

    def _traceback_filter(self, excinfo: ExceptionInfo[BaseException]) -> Traceback:
        """Of a bug of ours show what is ours: to print pytest's way to it takes a minute under emulation."""
        return excinfo.traceback.cut(path=__file__)

    def _judge(self, case: Case, sights: Iterable[Sight]) -> Failed | None:
        """All that differs in the first step where anything does; what follows it would follow from it."""
        for sight in sights:
            at = functools.partial(_position, case, sight.action)
            if mismatches := judge(sight.expect, sight.observation, sight.packet, at=at):
                text = explain(
                    case.name,
                    mismatches[0].position,
                    sight.summary,
                    sight.expect,
                    mismatches,
                    sight.observation,
                    sight.packet,
                    colour=self.config.stash[SESSION].colour,
                )
                return Failed(text, mismatches[0].position, _summary(mismatches))
        return None

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


def _position(case: Case, action: int, keys: Keys) -> Position:
    return case.where(action, *keys)


def _summary(mismatches: tuple[Mismatch, ...]) -> str:
    first = mismatches[0]
    more = f", and {len(mismatches) - 1} more" if len(mismatches) > 1 else ""
    return escape(f"{first.key}: expected {first.expected}, seen {first.seen}{more}")


def representation(item: ScenarioItem, excinfo: ExceptionInfo[BaseException]) -> ReprExceptionInfo | None:
    """What the user reads of a bad end, without a traceback; None for a bug of ours."""
    error = excinfo.value
    if not isinstance(error, HarnessError | Failed):
        return None
    path, line, _ = item.reportinfo()
    place: Position = getattr(error, "position", Position(str(path), line + 1))
    summary = error.summary if isinstance(error, Failed) else str(error).splitlines()[0]
    return ReprExceptionInfo(
        reprtraceback=ReprTraceback([ReprEntryNative([f"{error}\n"])], None, style="native"),
        reprcrash=ReprFileLocation(place.file, place.line, summary),
    )
