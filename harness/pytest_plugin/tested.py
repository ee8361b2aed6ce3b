"""Whether the scenarios of a session were tested: what was skipped everywhere, and what never ran.

A run in which nothing was tested looks like one in which all is well; this module distinguishes the two.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _pytest.junitxml import xml_key

from harness.pytest_plugin.distribute import Distribution
from harness.pytest_plugin.reports import BROKEN, Reports
from harness.pytest_plugin.selection import scenario_files
from harness.text import counted, escape


def in_ci() -> bool:
    """Whether this is a run of continuous integration, by the variable ``CI``."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


class Skip(NamedTuple):
    """A scenario that was skipped on a kernel."""

    reason: str
    declared: bool


class Tested:
    """A plugin of pytest's for a session with scenarios, where the user started it."""

    def __init__(self, config: pytest.Config, distribution: Distribution, reports: Reports) -> None:
        self._config = config
        self._distribution = distribution
        self._reports = reports
        self._collected: dict[int, Sequence[str]] = {}
        """Tests by place."""
        self._nodes: dict[int, Any] = {}
        self._begun: set[tuple[int, str]] = set()
        self._tested: set[str] = set()
        self._skipped: dict[str, list[Skip]] = {}
        self._broken = False
        self._dead: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What this process will run, when there are no workers."""
        self._collected[0] = [item.nodeid for item in session.items]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """What the workers of a kernel will run."""
        place = self._distribution.place(node.gateway.id)
        self._collected[place] = list(ids)
        self._nodes[place] = node

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Note a worker that crashed.

        One that crashed before it could say what Python it is has reports all the same, which pytest's terminal heads
        with that: the same Python as here (_pytest/reports.py, getworkerinfoline()).
        """
        if error:
            self._dead.append(node.gateway.id)
            if not hasattr(node, "workerinfo"):
                from xdist.remote import getinfodict

                node.workerinfo = {**getinfodict(), "id": node.gateway.id}
            self._nodes.setdefault(self._distribution.place(node.gateway.id), node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a scenario or of a test that uses the fixtures."""
        node = getattr(report, "node", None)
        place = self._distribution.place(node.gateway.id) if node else 0
        self._begun.add((place, report.nodeid))
        if not hasattr(report, "nft_broken"):
            return
        if report.nft_broken:
            self._broken = True
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            skip = Skip(str(reason).removeprefix("Skipped: "), getattr(report, "nft_declared", False))
            self._skipped.setdefault(report.nodeid, []).append(skip)
        else:
            self._tested.add(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Report what never ran before the reports are written; show what was not tested last."""
        self._report_missed(session)
        said = self.verdict()
        if said and not said.accepted and in_ci() and session.exitstatus in (0, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = BROKEN
        result = yield
        if said:
            self._say(said, session.exitstatus)
        return result

    def verdict(self) -> LastLine | None:
        """The verdict on scenarios that were tested on no kernel; None when there are none."""
        skipped = {test: skips for test, skips in self._skipped.items() if test not in self._tested}
        missed = {test: skips for test, skips in skipped.items() if not all(skip.declared for skip in skips)}
        nothing = bool(skipped) and not self._tested and not self._broken
        if not missed and not nothing:
            return None
        shown = missed or skipped
        first = next(iter(shown))
        number = len(shown)
        of = "the only scenario" if nothing and number == 1 else f"{'all ' * nothing}{counted(number, 'scenario')}"
        of += " was" if number == 1 else " were"
        head = "NOTHING WAS TESTED" if nothing else "NOT EVERYTHING WAS TESTED"
        reason = next((skip for skip in shown[first] if not skip.declared), shown[first][0]).reason
        return LastLine(f"{head}: {of} skipped on every kernel; {first}: {reason}", accepted=not missed)

    def _report_missed(self, session: pytest.Session) -> None:
        stopped = bool(session.shouldfail or session.shouldstop) or session.exitstatus not in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
            pytest.ExitCode.INTERNAL_ERROR,
        )
        if stopped:
            why = "the session was stopped before it"
        elif self._nodes:
            why = "no worker has run it"
        else:
            why = "the session ended before it"
        if self._dead and not stopped:
            why = f"worker {', '.join(self._dead)} died before it"
        for place in range(len(self._distribution.places)):
            tests = self._collected.get(place)
            if tests is None and self._dead and not stopped:
                tests = self._files()
            for test in tests or ():
                if (place, test) not in self._begun:
                    self._report(self._missed(place, test, f"not run: {why}", stopped), stopped)

    def _missed(self, place: int, test: str, why: str, stopped: bool) -> pytest.TestReport:
        file, _, name = test.partition("::")
        report = pytest.TestReport(
            nodeid=test,
            location=(file, 0, name or file),
            keywords={},
            outcome="skipped" if stopped else "failed",
            longrepr=(file, 1, why) if stopped else why,
            when="setup",
            user_properties=[("nft.kernel", self._distribution.release(place))],
        )
        vars(report).update(nft_broken=not stopped, nft_kernel=self._distribution.release(place))
        if place in self._nodes:
            vars(report)["node"] = self._nodes[place]
        return report

    def _report(self, report: pytest.TestReport, stopped: bool) -> None:
        """Report to all plugins; of a stopped session to reports only, so that ``--lf`` does not forget the test."""
        if not stopped:
            self._config.hook.pytest_runtest_logreport(report=report)
            return
        if xml := self._config.stash.get(xml_key, None):
            xml.pytest_runtest_logreport(report)
        if Path(self._config.rootpath, report.nodeid.partition("::")[0]) in self._scenario_files():
            self._reports.missed(report)

    def _scenario_files(self) -> set[Path]:
        return {path.absolute() for path in scenario_files(self._config).files}

    def _files(self) -> list[str]:
        """Scenario files as pytest calls them."""
        root = self._config.rootpath
        paths = sorted(self._scenario_files())
        return [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]

    def _say(self, said: LastLine, status: int) -> None:
        status_said = f" (exit status {BROKEN} in CI)" if status == BROKEN and not said.accepted else ""
        line = f"nft-harness: {escape(said.sentence)}{status_said}"
        if terminal := self._config.pluginmanager.get_plugin("terminalreporter"):
            terminal.ensure_newline()
            terminal.write_line(line, red=True, bold=True)
        else:
            print(line, file=sys.stderr)


class LastLine(NamedTuple):
    """The line at the end of the session."""

    sentence: str
    accepted: bool
    """Whether all that was skipped has declared what it may miss."""
