"""Which files are scenario files."""

from __future__ import annotations

import ast
import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

FOLDER = "scenarios"
LABS = "labs"
"""In a folder of this name lie labs, which scenario files name, and no scenarios."""
SUFFIXES = (".yaml", ".yml")


FIXTURES = frozenset({"nft_run", "nft_lab"})
"""Of :mod:`harness.fixtures`."""


def is_scenario_file(path: Path) -> bool:
    """Whether pytest collects the file as scenarios: any YAML below a folder ``scenarios``, labs aside."""
    return path.suffix in SUFFIXES and FOLDER in path.parent.parts and path.parent.name != LABS


def scenario_files(arguments: Iterable[str]) -> Iterator[Path]:
    """The scenario files below pytest's arguments, as far as needed to know whether there are any."""
    return filter(is_scenario_file, _files(arguments))


def fixture_users(arguments: Iterable[str], patterns: Collection[str]) -> Iterator[Path]:
    """The Python files in which a function takes one of our fixtures, as far as needed to know whether there are any.

    Looked at are files called as one of ``patterns`` below pytest's arguments, and ``conftest.py`` above them.
    """
    arguments = list(arguments)
    patterns = ("conftest.py", *patterns)
    above = {folder / "conftest.py" for one in arguments for folder in _path(one).parents}
    below = (path for path in _files(arguments) if any(fnmatch(path.name, pattern) for pattern in patterns))
    return (path for path in itertools.chain(filter(Path.is_file, above), below) if _takes_fixture(path))


def _takes_fixture(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        # Most files do not even mention one; a file that does may do so in a text.
        if not any(name in text for name in FIXTURES):
            return False
        return any(isinstance(one, ast.arg) and one.arg in FIXTURES for one in ast.walk(ast.parse(text)))
    except (OSError, ValueError, SyntaxError):  # for pytest to tell
        return False


def _files(arguments: Iterable[str]) -> Iterator[Path]:
    """The files that ``arguments`` name, and those below the folders that they name."""
    for argument in arguments:
        path = _path(argument)
        if path.is_file():
            yield path
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "node_modules")))
            yield from (Path(folder, name) for name in sorted(files))


def _path(argument: str) -> Path:
    return Path(argument.partition("::")[0]).absolute()


def shortened(path: Path) -> Path:
    """Return ``path`` as the user would write it here: relative when it lies below the current folder."""
    return path.relative_to(here) if path.is_relative_to(here := Path.cwd()) else path
