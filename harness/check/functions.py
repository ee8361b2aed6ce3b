"""The functions that scenarios name, against those that the last run on a kernel found there.

A run knows the modules that were loaded then, so a name that it did not find may be in another module.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from harness.cache import GUESTS, HOST, cache_dir
from harness.check.planned import Planned
from harness.errors import ScenarioError
from harness.model.problem import Problem, one_of
from harness.reading.path import entries, parse_entry
from harness.scenario.case import Case
from harness.scenario.models.expect import Exactly, Expect, PathEntry
from harness.tracer.survey import Memory


class Surveyed(NamedTuple):
    """What the last run on a kernel found."""

    release: str
    functions: frozenset[str]
    """The names of those that take a packet and can be traced."""
    others: tuple[str, ...]
    """Modules of networks that were not loaded then."""

    @classmethod
    def read(cls, release: str, place: str, modules: Path) -> Self | None:
        """The survey of the kernel ``release`` in the folder ``place`` of the cache, whose modules are below
        ``modules``; None where there is none."""
        try:
            stored = (cache_dir() / place / release / "survey.json").read_bytes()
            parts = msgspec.json.decode(stored, type=Memory).parts
            listed = (modules / "lib/modules" / release / "modules.dep").read_text().splitlines()
        except (OSError, msgspec.DecodeError):
            return None
        functions = frozenset(one.name for part in parts.values() for one in part.functions or ())
        files = [Path(line.partition(":")[0]) for line in listed]
        names = [file.name.partition(".")[0].replace("-", "_") for file in files if "net" in file.parts]
        return cls(release, functions, tuple(name for name in names if name not in parts)) if functions else None

    def lacks(self, name: str) -> bool:
        """Whether the kernel has no function ``name``, as far as that can be known."""
        if name in self.functions:
            return False
        family = _family(name)
        if any(other.replace("_", "").startswith(family) for other in self.others):  # it may be in one of these
            return bool(_close(name, (one for one in self.functions if _family(one) == family)))
        return True

    def near(self, name: str) -> list[str]:
        """Names that ``name`` may be a typo of, the closest first."""
        return _close(name, self.functions)


def _close(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, sorted(known), 3, 0.8)


def _family(name: str) -> str:
    """The first word of a function's name, which often is that of its module."""
    return name.lstrip("_").partition("_")[0]


def surveys(where: Planned) -> list[Surveyed]:
    """What is known of the kernels that are planned."""
    found = [Surveyed.read(image.release, GUESTS, image.modules) for image in where.images]
    if where.natively:
        found.append(Surveyed.read(os.uname().release, HOST, Path("/")))
    return [one for one in found if one]


def unknown(cases: Iterable[Case], where: Planned) -> Iterator[ScenarioError]:
    """The functions in ``path`` and ``never`` of ``cases`` that one of the kernels lacks."""
    known = surveys(where)
    for case in cases if known else ():
        for number, action in enumerate(case.actions):
            for keys, expect in action.entries:
                for problem in _in_expect(expect, known):
                    problem = problem.below(*keys)
                    yield problem.at(case.where(number, *problem.keys))


def _in_expect(expect: Expect, known: Iterable[Surveyed]) -> Iterator[Problem]:
    inner = ("path", "exactly") if isinstance(expect.path, Exactly) else ("path",)
    for below, path in ((inner, entries(expect.path)), (("never",), expect.never or ())):
        for index, entry in enumerate(path):
            for problem in _in_entry(entry, known):
                yield problem.below(*below, index)


def _in_entry(entry: PathEntry, known: Iterable[Surveyed]) -> Iterator[Problem]:
    names, detail = parse_entry(entry)
    lacking = [one for one in known if all(map(one.lacks, names))]
    if not lacking or detail.optional:
        return
    near = dict.fromkeys(found for name in names for found in lacking[0].near(name))
    yield Problem(
        f"Linux {one_of([one.release for one in lacking], 'and')} has no function {one_of(names)} that takes a packet "
        "and can be traced",
        remedy=f"did you mean {one_of(near)}?" if near else "nft-harness discover lists them",
    )
