"""The sides of a comparison: rulesets as files, folders and lists, or those of a revision."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, permutations
from pathlib import Path
from typing import Final, NamedTuple

from harness.errors import HarnessError
from harness.project import find
from harness.scenario.case import Case, Files
from harness.scenario.files import rulesets, shortened
from harness.scenario.load import load_all
from harness.text import last_sentence

ORDERS_AT_MOST: Final = 5
"""Orders in which tables are loaded, beside the one given."""
GIT_S: Final = 60


class Side(NamedTuple):
    """A ruleset."""

    name: str
    files: Files
    is_made: bool = False
    """Whether its files are made for the comparison, and gone after that."""
    given: tuple[Path, ...] = ()
    """Its files as they were named on the command line, for errors; empty where they were not."""


def of(text: str) -> Side:
    """The ruleset that ``text`` names: a file, a folder of .nft files, or several of them with commas between.

    Raises :class:`~harness.errors.HarnessError` where there is none.
    """
    given = rulesets(text)
    paths = tuple(path.resolve() for path in given)
    return Side(text, Files(paths, find(paths)), given=given)


def orders(side: Side) -> list[Side]:
    """``side`` with its files loaded in other orders.

    Raises :class:`~harness.errors.HarnessError` where there is only one.
    """
    if len(side.files.paths) < 2:
        raise HarnessError("--permute needs several files", remedy="name them with commas between, or a folder")
    found = []
    for paths in islice(permutations(side.files.paths), 1, 1 + ORDERS_AT_MOST):
        name = ",".join(one.name for one in paths)
        found.append(Side(name, Files(paths, side.files.project, side.files.defines)))
    return found


def at_revision(revision: str, named: Iterable[str], folder: Path) -> list[tuple[Side, Side]]:
    """Pairs of a ruleset at ``revision``, which is unpacked into ``folder``, and as it is now.

    The rulesets are those ``named``, else all that scenario files of this project name.

    Raises :class:`~harness.errors.HarnessError` where git has no such revision, and for a ruleset that it lacks.
    """
    root = Path(_git("rev-parse", "--show-toplevel").decode().strip())
    try:
        commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    except HarnessError:
        remedy = "write a branch, tag or commit that git log shows; in CI fetch it before"
        raise HarnessError(f"git has no revision {revision}", remedy=remedy) from None
    _unpack(_git("-C", str(root), "archive", commit), folder)
    now = [of(one) for one in named] or list(_of_scenarios())
    found = []
    for side in now:
        before = tuple(folder / path.relative_to(root) for path in side.files.paths if path.is_relative_to(root))
        if len(before) < len(side.files.paths):
            raise HarnessError(f"{side.name} lies outside of the repository {root}")
        if missing := [one for one in before if not one.is_file()]:
            if list(named):
                raise HarnessError(f"{missing[0].relative_to(folder)} does not exist in {revision}")
            continue
        files = Files(before, find(before, folder), side.files.defines)
        old = Side(f"{side.name} at {revision}", files, is_made=True)
        found.append((old, side))
    if not found:
        raise HarnessError(f"no ruleset exists both in {revision} and now")
    return found


def _unpack(content: bytes, folder: Path) -> None:
    """Write the files of an archive of git's below ``folder``; links are left out, as they may lead elsewhere."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = Path(member.name)
            if not member.isfile() or path.is_absolute() or ".." in path.parts:
                continue
            if (found := archive.extractfile(member)) is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(found.read())


def _of_scenarios() -> Iterator[Side]:
    """The rulesets that scenario files below this folder name, each once."""
    from harness.scenario.files import choose

    project = find([])
    seen: set[tuple[Path, ...]] = set()
    for path in choose([str(Path())], project).files:
        with suppress(HarnessError):
            for case in load_all(shortened(path), project=project).cases:
                files = case.rulesets[case.network.device] if isinstance(case, Case) else None
                if files is not None and files.paths not in seen:
                    seen.add(files.paths)
                    yield Side(",".join(str(shortened(one)) for one in files.paths), files)


def _git(*arguments: str) -> bytes:
    try:
        ran = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=GIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"git could not be run: {error}") from None
    if ran.returncode:
        said = last_sentence(ran.stderr.decode(errors="replace"))
        raise HarnessError(f"git {arguments[0]}: {said.removeprefix('fatal: ')}")
    return ran.stdout
