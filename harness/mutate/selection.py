"""The scenarios that pytest would run with the same arguments."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from harness import ending
from harness.errors import HarnessError
from harness.project import FILES, PATTERNS
from harness.pytest_plugin.distribute import asked_kernels
from harness.pytest_plugin.items import ScenarioItem
from harness.scenario.case import Broken, Case
from harness.scenario.files import shortened
from harness.text import counted, escape

INTERNAL: Final = "INTERNALERROR>"
"""How pytest begins the lines of a traceback of its own."""


class Selected(NamedTuple):
    """What pytest would run."""

    cases: list[Case]
    broken: list[str]
    """Scenarios that are wrong: sentences."""
    others: int
    """Tests that are no scenarios of a file."""
    kernels: Sequence[str]
    left_out: int = 0
    """Scenarios that -k or -m leave out."""
    unread: Sequence[str] = ()
    """Files of tests in Python that pytest cannot collect: sentences."""

    def refuse_none(self) -> None:
        """Raise :class:`~harness.errors.HarnessError` where there is no scenario to be run, with the reason."""
        if self.cases:
            return
        if self.broken:
            raise HarnessError(
                f"none of the selected scenarios can be run: {self.broken[0]}",
                remedy="nft-harness check shows all that is wrong with them",
            )
        if self.left_out:
            remedy = "give other words: pytest --collect-only lists the names of scenarios and pytest --markers marks"
            raise HarnessError(
                f"-k and -m leave out {counted(self.left_out, 'scenario')}, and none is left", remedy=remedy
            )
        only = f", only {counted(self.others, 'test')} in Python" if self.others else ""
        remedy = f"name scenario files, or folders in which they are called {' or '.join(PATTERNS)} (setting {FILES})"
        raise HarnessError(f"the selection has no scenarios{only}", remedy=remedy)


class _Collecting:
    """A plugin of pytest that keeps what was collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        self.kernels: Sequence[str] = ()
        self.left_out = 0
        self.failed: list[str] = []
        """As :attr:`Selected.unread`."""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            lines = report.longreprtext.splitlines() or ["cannot be collected"]
            self.failed.append(escape(f"{report.nodeid}: {_raised(lines) or lines[0]}"))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self.left_out += sum(isinstance(item, ScenarioItem) for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)
        self.kernels = asked_kernels(session.config)


def _named_wrongly(lines: Iterable[str]) -> str:
    """What is wrong with a path, of which pytest says in ``lines`` that nothing is there; "" for anything else."""
    for line in lines:
        if path := _found(line, "ERROR: file or directory not found: "):
            return f"{path} does not exist"
        if named := _found(line, "ERROR: not found: "):
            path, _, scenario = named.partition("::")
            shown = shortened(Path(path))
            return f"{shown} has no scenario '{scenario}'" if scenario else f"{shown} is not a scenario file"
    return ""


def _raised(lines: Iterable[str]) -> str:
    """The exception that ``lines`` of pytest's show; "" for none."""
    marks = ("E   ", INTERNAL)
    found = [line.removeprefix(mark).strip() for line in lines for mark in marks if line.startswith(mark)]
    return found[-1] if found else ""


def _found(line: str, before: str) -> str:
    return line.removeprefix(before) if line.startswith(before) else ""


def select(arguments: Sequence[str]) -> Selected:
    """The scenarios that pytest selects by ``arguments``.

    Raises :class:`~harness.errors.HarnessError` where pytest refuses them.
    """
    collecting = _Collecting()
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *arguments], plugins=[collecting])
    ending.check()  # pytest takes a signal for the end of its session
    # A file of tests in Python that cannot be imported interrupts pytest, and leaves the scenarios as they are.
    is_done = status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if not is_done and not (status == pytest.ExitCode.INTERRUPTED and collecting.failed):
        lines = [line for line in said.getvalue().splitlines() if line.strip()] or ["pytest printed nothing"]
        if sentence := _named_wrongly(lines):
            raise HarnessError(sentence, remedy="name scenario files, folders of them, or FILE::NAME")
        found = next((line for line in lines if "rror" in line), lines[-1]).removeprefix("ERROR: ")
        found = " ".join(filter(None, (found if not found.startswith(INTERNAL) else "", _raised(lines))))
        raise HarnessError(f"pytest could not collect the scenarios: {found}")
    cases: dict[str, Case] = {}
    broken: list[str] = []
    others = 0
    for item in collecting.items:
        if not isinstance(item, ScenarioItem):
            others += 1
        elif isinstance(item.case, Case):
            cases.setdefault(f"{item.case.file}::{item.case.id}", item.case)
        else:
            errors = item.case.errors if isinstance(item.case, Broken) else (item.case,)
            broken.append(str(errors[0]))
    return Selected(list(cases.values()), broken, others, collecting.kernels, collecting.left_out, collecting.failed)
