"""Everything wrong with scenario files and their rulesets that shows without a kernel: ``nft-harness check``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from harness.check.functions import unknown
from harness.check.planned import Planned, planned
from harness.check.references import in_rulesets
from harness.errors import ScenarioError, Unsupported
from harness.linux import modules
from harness.model.layers import NAMES
from harness.project import Project, find
from harness.ruleset.files import Read, read_files
from harness.ruleset.nft import Nft
from harness.ruleset.process import LostError, Reach
from harness.scenario.case import Case, Files
from harness.scenario.files import shortened
from harness.scenario.problems import checked
from harness.vm import nft


class Found(NamedTuple):
    """What was read to be checked, and what was found."""

    files: int
    scenarios: int
    left_alone: tuple[Path, ...]
    """YAML files that are not scenario files."""
    errors: tuple[ScenarioError, ...]
    """Each mistake once; in the order of files and lines."""
    warnings: tuple[ScenarioError, ...]
    """What may be a mistake: only the kernel knows."""
    notes: tuple[str, ...]
    """What could not be checked, and why."""


def check(paths: Sequence[Path], *, kernels: Sequence[str] = (), nft_program: str = "") -> Found:
    """Check the scenario files ``paths``, and those below the folders among them, and the rulesets that they name.

    They are planned to run on ``kernels``, with rulesets read by ``nft_program``, see
    :func:`harness.check.planned.planned`. Raises :class:`~harness.errors.ScenarioError` for settings of pytest that
    cannot be read, and :class:`~harness.errors.Unsupported` for a kernel image that is damaged.
    """
    project = find(paths)
    files = checked(paths, layers=NAMES, project=project)
    where = planned(project, kernels, nft_program)
    rulesets = Rulesets(where)
    with closing(rulesets):
        errors = list(in_cases(files.cases, rulesets))
        # Those of files in which each scenario has a mistake of its own are read as well.
        errors += [error for one in files.rulesets if (read := rulesets.get(one)) for error in read.errors]
    warnings = list(unknown(files.cases, where))
    return Found(
        files.files,
        files.scenarios,
        files.left_alone,
        _in_order([*files.errors, *errors], files.errors),
        _in_order(warnings),
        rulesets.notes,
    )


def _in_order(found: Sequence[ScenarioError], first: Sequence[ScenarioError] = ()) -> tuple[ScenarioError, ...]:
    """Each once, by file and line; files in the order in which ``first`` and ``found`` name them."""
    files = list(dict.fromkeys(error.position.file for error in (*first, *found)))
    distinct = {str(error): error for error in found}
    return tuple(sorted(distinct.values(), key=lambda one: (files.index(one.position.file), *one.position[1:])))


class Rulesets:
    """The rulesets that scenarios name, each read once."""

    def __init__(self, where: Planned) -> None:
        self._where = where
        self._notes: dict[str, None] = {}
        self._readers: dict[Project, Nft] = {}
        self._read: dict[tuple[object, ...], Read | None] = {}
        self._ending = ExitStack()
        self._before = nft.current()
        nft.use(where.nft)
        if where.missing:
            self._note(where.missing)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why some of them were not read."""
        return tuple(self._notes)

    def close(self) -> None:
        """End the processes that read."""
        self._ending.close()
        nft.use(self._before)

    def get(self, files: Files) -> Read | None:
        """What is written in ``files``, and what nft refuses of it; None where they could not be read."""
        key = (files.paths, tuple(files.defines.items()), files.project)
        if key not in self._read:
            self._read[key] = self._get(files)
        return self._read[key]

    def _get(self, files: Files) -> Read | None:
        if self._where.missing:
            return None
        if lacking := next((name for name in ("nfnetlink", "nf_tables") if not modules.is_there(name)), None):
            self._note(f"the module {lacking} is not loaded, and nothing is loaded for a check; run modprobe nf_tables")
            return None
        try:
            return read_files(self._reader(files.project), map(shortened, files.paths), files.defines, files.project)
        except (LostError, Unsupported) as error:
            self._note(str(error))
            return None

    def _reader(self, project: Project) -> Nft:
        if project not in self._readers:
            reader = Nft(None, Reach((project.root, *project.allowed)))
            self._readers[project] = self._ending.enter_context(closing(reader))
        return self._readers[project]

    def _note(self, why: str) -> None:
        self._notes[f"rulesets were not checked: {why}"] = None


def in_cases(cases: Iterable[Case], rulesets: Rulesets) -> Iterator[ScenarioError]:
    """What is wrong with the ``rulesets`` of ``cases``, and what these name and the rulesets do not have."""
    for case in cases:
        read = {host: found for host, files in case.rulesets.items() if (found := rulesets.get(files))}
        wrong = [error for one in read.values() for error in one.errors]
        yield from wrong
        if not wrong:
            for step, problem in in_rulesets(case, read):
                yield problem.at(case.where(step, *problem.keys))
