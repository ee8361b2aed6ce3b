"""Which files are scenario files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER = "scenarios"
LABS = "labs"
"""In a folder of this name lie labs, which scenario files name, and no scenarios."""
SUFFIXES = (".yaml", ".yml")


def is_scenario_file(path: Path) -> bool:
    """Whether pytest collects the file as scenarios: any YAML below a folder ``scenarios``, labs aside."""
    return path.suffix in SUFFIXES and FOLDER in path.parent.parts and path.parent.name != LABS


def scenario_files(arguments: Iterable[str]) -> Iterator[Path]:
    """The scenario files below pytest's arguments, as far as needed to know whether there are any."""
    for argument in arguments:
        path = Path(argument.partition("::")[0]).absolute()
        if path.is_file() and is_scenario_file(path):
            yield path
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "node_modules")))
            yield from (file for name in sorted(files) if is_scenario_file(file := Path(folder, name)))


def shortened(path: Path) -> Path:
    """Return ``path`` as the user would write it here: relative when it lies below the current folder."""
    return path.relative_to(here) if path.is_relative_to(here := Path.cwd()) else path
