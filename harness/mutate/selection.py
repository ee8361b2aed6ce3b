"""The scenarios that pytest would run with the same arguments."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import ending
from harness.errors import HarnessError
from harness.pytest_plugin.distribute import asked_kernels
from harness.pytest_plugin.items import ScenarioItem
from harness.scenario.case import Broken, Case
from harness.scenario.files import shortened


class Selected(NamedTuple):
    """What pytest would run."""

    cases: list[Case]
    broken: list[str]
    """Scenarios that are wrong: sentences."""
    others: int
    """Tests that are no scenarios of a file."""
    kernels: Sequence[str]


class _Collecting:
    """A plugin of pytest that keeps what was collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        self.kernels: Sequence[str] = ()

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
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        lines = [line for line in said.getvalue().splitlines() if line.strip()] or ["pytest printed nothing"]
        if sentence := _named_wrongly(lines):
            raise HarnessError(sentence, remedy="name scenario files, folders of them, or FILE::NAME")
        found = next((line for line in lines if "rror" in line), lines[-1]).removeprefix("ERROR: ")
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
    return Selected(list(cases.values()), broken, others, collecting.kernels)
