"""Scenarios that no stored result is of: their job vanished, or never was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness import project
from harness.errors import Position, ScenarioError
from harness.model.layers import NAMES
from harness.model.result import Result
from harness.scenario.case import Broken
from harness.scenario.files import choose, shortened
from harness.scenario.load import load_all
from harness.scenario.problems import without_scenarios

REASON = "not run: no stored result is of this scenario"


def missing(results: Iterable[Result], paths: Sequence[Path], kernels: Sequence[str] = ()) -> list[Result]:
    """An error for each scenario of the files and folders ``paths`` that has no result, on each of ``kernels``.

    A kernel is the beginning of a release, as ``6.12``; default: all that ``results`` name. Names of files are
    compared as pytest writes them where its root folder is the current one. Tests in Python are not looked for.

    Raises :class:`~harness.errors.ScenarioError` for settings of pytest that cannot be read, and for a path that is not
    there or holds no scenarios.
    """
    there = {(test, one.kernel) for one in results for test in (one.id, _without_turn(one.id))}
    releases = sorted({kernel for _, kernel in there if kernel})
    found: list[Result] = []
    planned = list(_scenarios(paths))
    for kernel in kernels or releases or ("",):
        begins = re.compile(re.escape(kernel) + r"(?!\d)")
        # A run that broke before it had a kernel has a result without one.
        tested = {test for test, release in there if not release or begins.match(release)}
        release = next(filter(begins.match, releases), kernel)
        found += [
            Result(id=test, name=name, position=position, outcome="error", message=REASON, kernel=release)
            for test, name, position in planned
            if test not in tested
        ]
    return found


def _scenarios(paths: Sequence[Path]) -> Iterator[tuple[str, str, Position]]:
    """Node id, name and place of each scenario."""
    settings = project.find(paths)
    for named in paths:
        if not named.exists():
            raise ScenarioError("cannot be read: no such file or directory", Position(str(named)))
        if not choose([str(named)], settings).files:
            wrong = ScenarioError("is not a scenario file", Position(str(named)), remedy="name a YAML file or a folder")
            raise without_scenarios(named, settings) if named.is_dir() else wrong
    for path in choose(map(str, paths), settings).files:
        file = shortened(path)
        loaded = load_all(file, layers=NAMES, project=settings)
        for number, error in enumerate(loaded.errors):
            name = f"file-{number}" if number else "file"
            yield f"{file}::{name}", name, error.position
        for case in loaded.cases:
            place = case.position if isinstance(case, Broken) else Position(str(file), *case.places.place)
            yield f"{file}::{case.id}", case.name, place


def _without_turn(test: str) -> str:
    """The node id of a scenario that was repeated, without the number of the turn."""
    return re.sub(r"\[\d+\]$", "", test)
