"""Which files are scenario files."""

from __future__ import annotations

import ast
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from harness import untrusted
from harness.bounds import PYTHON_BYTES, SCENARIO_BYTES
from harness.errors import HarnessError
from harness.project import PATTERNS, Project

LABS = "labs"
"""In a folder of this name lie labs, which scenario files name, and no scenarios."""
SUFFIXES = (".yaml", ".yml")

FIXTURES = frozenset({"nft_run", "nft_lab", "nft_module_lab", "nft_session_lab"})
"""Of :mod:`harness.pytest_plugin.fixtures`."""

_NOT_INTO = (".*", "*.egg", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}")
"""Folders that pytest does not look into, unless its setting ``norecursedirs`` differs."""


_SCENARIOS = re.compile(rb"""^["']?scenarios["']?\s*:""", re.MULTILINE)
_EXPECTATION = re.compile(rb"""\bexpect["']?\s*:""")


class Chosen(NamedTuple):
    """What of some files and folders is taken as scenarios."""

    files: tuple[Path, ...]
    """Scenario files, right or wrong."""
    left_alone: tuple[Path, ...]
    """YAML files that are not scenario files, although they are called like ones or were named."""
    not_named: tuple[Path, ...]
    """Other YAML files, which the setting ``nft_files`` does not name."""


def choose(arguments: Iterable[str], project: Project) -> Chosen:
    """The scenario files among pytest's ``arguments`` and below the folders among them.

    pytest, ``nft-harness check`` and the reports all ask here, one file at a time by :func:`take`.
    """
    taken = {path: take(path, project, named=named) for path, named in _files(arguments)}
    return Chosen(
        tuple(path for path, answer in taken.items() if answer),
        tuple(path for path in taken if taken[path] is False),
        tuple(path for path in taken if taken[path] is None and path.suffix in SUFFIXES),
    )


def rulesets(text: str) -> tuple[Path, ...]:
    """The files of the ruleset that ``text`` names: a file, a folder of .nft files, or several with commas between.

    Raises :class:`~harness.errors.HarnessError` where there is none.
    """
    return tuple(path for one in text.split(",") for path in _of_ruleset(Path(one)))


def _of_ruleset(path: Path) -> Iterator[Path]:
    if path.is_dir():
        found = sorted(path.glob("*.nft"))
        if not found:
            raise HarnessError(f"{path} has no file NAME.nft")
        yield from found
    elif path.is_file():
        yield path
    else:
        remedy = "name a file that nft -f or iptables-restore loads"
        raise HarnessError(f"{path} is neither a file nor a folder", remedy=remedy)


def elsewhere(chosen: Chosen, project: Project) -> tuple[Path, ...]:
    """The YAML files that look like scenario files where the setting ``nft_files``, left unset, does not take them.

    Each other YAML file is read for that.
    """
    return tuple(filter(_looks_like_one, chosen.not_named)) if project.patterns == PATTERNS else ()


def take(path: Path, project: Project, *, named: bool) -> bool | None:
    """Whether ``path`` is taken as a scenario file; None when nothing suggests that it is one.

    Of the YAML files in a folder those are taken that are called as the project's setting ``nft_files`` says; one
    that is ``named`` on the command line is taken anywhere. Either is left alone, which is False, when its
    content says that it is something else: see :mod:`harness.scenario.recognise`. One that is named *and* called so
    is taken whatever is in it.
    """
    called = is_called_so(path, project)
    if path.suffix not in SUFFIXES or not (called or named):
        return None
    if called and named:
        return True
    from harness.scenario.recognise import is_something_else  # its YAML parser is expensive to import under TCG

    return not is_something_else(path, project)


def _looks_like_one(path: Path) -> bool:
    try:
        text = untrusted.read(path, SCENARIO_BYTES)
    except untrusted.Unreadable:
        return False
    return bool(_SCENARIOS.search(text) and _EXPECTATION.search(text))


def is_called_so(path: Path, project: Project) -> bool:
    """Whether the absolute ``path`` is a scenario file by its name, as the project's setting ``nft_files`` says."""
    if path.suffix not in SUFFIXES or path.parent.name == LABS:
        return False
    root = project.root
    if not path.is_relative_to(root):
        path = path.parent.resolve() / path.name
    # The root's own name counts: it may be the folder `scenarios`. What is above it is not the project's to choose.
    place = f"/{path.relative_to(root.parent)}" if path.is_relative_to(root) else str(path)
    return any(_matches(place, path.name, pattern) for pattern in project.patterns)


def _matches(place: str, name: str, pattern: str) -> bool:
    """As pytest's ``python_files``: a pattern without a slash is one of names, and ``*`` matches slashes as well."""
    if "/" not in pattern:
        return fnmatchcase(name, pattern)
    pattern = pattern if pattern.startswith("/") else f"*/{pattern.removeprefix('./')}"
    return fnmatchcase(place, pattern) or ("/**/" in pattern and fnmatchcase(place, pattern.replace("/**/", "/")))


def fixture_users(arguments: Iterable[str], patterns: Collection[str]) -> Iterator[Path]:
    """The Python files in which a function takes one of our fixtures, as far as needed to know whether there are any.

    Looked at are files called as one of ``patterns`` below pytest's arguments, and ``conftest.py`` above them.
    """
    arguments = list(arguments)
    patterns = ("conftest.py", *patterns)
    above = {folder / "conftest.py" for one in arguments for folder in _path(one).parents}
    below = (path for path, _ in _files(arguments) if any(fnmatchcase(path.name, pattern) for pattern in patterns))
    return (path for path in itertools.chain(filter(Path.is_file, above), below) if _takes_fixture(path))


def _takes_fixture(path: Path) -> bool:
    try:
        text = untrusted.read(path, PYTHON_BYTES).decode()
        # Most files do not even mention one; a file that does may do so in a text.
        if not any(name in text for name in FIXTURES):
            return False
        return any(isinstance(one, ast.arg) and one.arg in FIXTURES for one in ast.walk(untrusted.syntax_tree(text)))
    except (untrusted.Unreadable, ValueError, SyntaxError, RecursionError, MemoryError):  # pytest reports it
        return False


def _files(arguments: Iterable[str]) -> Iterator[tuple[Path, bool]]:
    """The files that ``arguments`` name, and those below the folders that they name; whether each is named."""
    for argument in arguments:
        path = _path(argument)
        if not path.is_dir() and path.exists():
            yield path, True
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not any(fnmatchcase(name, one) for one in _NOT_INTO))
            yield from ((Path(folder, name), False) for name in sorted(files))


def _path(argument: str) -> Path:
    return Path(os.path.abspath(argument.partition("::")[0]))  # noqa: PTH100 - `..` goes, symbolic links stay


def shortened(path: Path) -> Path:
    """Return ``path`` as the user would write it here: relative when it lies below the current folder."""
    return path.relative_to(here) if path.is_relative_to(here := Path.cwd()) else path
