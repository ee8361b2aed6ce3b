"""Everything wrong with scenario files, found without running them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from harness.errors import Position, ScenarioError
from harness.project import FILES, Project, find
from harness.scenario.case import Broken, Case, Files
from harness.scenario.files import choose, shortened
from harness.scenario.load import load_all


class Checked(NamedTuple):
    """What was read to be checked, and what was found."""

    files: int
    scenarios: int
    left_alone: tuple[Path, ...]
    """YAML files that are not scenario files."""
    errors: tuple[ScenarioError, ...]
    """In the order of the files and of their lines."""
    cases: tuple[Case, ...] = ()
    """The scenarios in which nothing is wrong."""
    rulesets: tuple[Files, ...] = ()
    """Those that the files name for the hosts of their labs."""


def problems(path: Path, *, layers: Collection[str] | None = None) -> tuple[ScenarioError, ...]:
    """Everything wrong with a file, or with all scenario files below a folder, in the order of the lines."""
    return checked([path], layers=layers).errors


def checked(paths: Iterable[Path], *, layers: Collection[str] | None = None, project: Project | None = None) -> Checked:
    """Look for everything wrong with the files ``paths``, and with the scenario files below the folders among them.

    ``project`` is theirs; None looks for it. Raises :class:`~harness.errors.ScenarioError` for settings of pytest that
    cannot be read.
    """
    paths = list(paths)
    project = project or find(paths)
    found = [_checked(path, layers, project) for path in paths]
    return Checked(
        sum(one.files for one in found),
        sum(one.scenarios for one in found),
        tuple(path for one in found for path in one.left_alone),
        tuple(error for one in found for error in one.errors),
        tuple(case for one in found for case in one.cases),
        tuple(files for one in found for files in one.rulesets),
    )


def without_scenarios(folder: Path, project: Project) -> ScenarioError:
    """What is wrong with a folder without a scenario file."""
    patterns = " ".join(project.patterns)
    error = ScenarioError(f"has no scenario file, that is, none that matches {patterns}", Position(str(folder)))
    error.remedy = f"name the file, or set {FILES} in the project's pytest settings"
    return error


def _checked(path: Path, layers: Collection[str] | None, project: Project) -> Checked:
    chosen = choose([str(path)], project)
    if path.is_dir() and not chosen.files:
        return Checked(0, 0, chosen.left_alone, (without_scenarios(path, project),))
    errors: list[ScenarioError] = []
    cases: list[Case] = []
    rulesets: list[Files] = []
    scenarios = 0
    # A file that is named is checked, whatever its name and content.
    files = [shortened(file) for file in chosen.files] if path.is_dir() else [path]
    for file in files:
        loaded = load_all(file, layers=layers, project=project)
        scenarios += len(loaded.cases)
        rulesets += loaded.rulesets
        cases += [case for case in loaded.cases if isinstance(case, Case)]
        found = [*loaded.errors, *(error for case in loaded.cases if isinstance(case, Broken) for error in case.errors)]
        distinct = {str(error): error for error in found}  # one mistake may be in many scenarios made from one
        errors += sorted(distinct.values(), key=lambda error: error.position)
    left_alone = chosen.left_alone if path.is_dir() else ()
    return Checked(len(files), scenarios, left_alone, tuple(errors), tuple(cases), tuple(rulesets))
