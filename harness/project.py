"""The project that scenario files belong to: its root, and what its pytest settings say about them.

Scenario files are untrusted: they reach nothing outside of their project, unless the project's pytest
settings allow it. Settings are those of the folder in which a command was called, or of one above it; a settings
file further down, which a pull request may bring beside its scenarios, is data and counts for nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from harness import untrusted
from harness.bounds import SETTINGS_BYTES
from harness.errors import Position, ScenarioError

ALLOW: Final = "nft_allow"
"""Setting of pytest: files and folders outside of the project, relative to the settings file."""
FILES: Final = "nft_files"
"""Setting of pytest: patterns of the names of scenario files."""

KERNEL: Final = "nft_kernel"
"""Setting of pytest: kernels to run on, as ``--nft-kernel``."""
PROGRAM: Final = "nft_program"
"""Setting of pytest: the nft that reads rulesets, as ``--nft-program``."""

PATTERNS: Final = ("scenarios/*.yaml", "scenarios/*.yml")
"""Without the setting: YAML files below a folder ``scenarios``, at any depth."""

_ROOTS: Final = ("pyproject.toml", "setup.py", ".git")
"""What marks the root of a project whose settings say nothing about pytest."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project, as a session of pytest or a command sees it."""

    root: Path
    """Without symbolic links."""
    settings: Path | None = None
    """The file whose settings count; None when there is none."""
    allowed: tuple[Path, ...] = ()
    """Files and folders outside of ``root`` that scenarios may name, without symbolic links."""
    patterns: tuple[str, ...] = PATTERNS
    kernels: tuple[str, ...] = ()
    """What scenarios run on; empty where the settings do not say."""
    nft_program: str = ""
    """The nft that reads rulesets; "" where the settings do not say."""

    def allows(self, file: Path) -> bool:
        """Whether scenarios may name ``file``, which is absolute and without symbolic links."""
        return any(file.is_relative_to(place) for place in (self.root, *self.allowed))


EVERYTHING: Final = Project(root=Path("/"))
"""The reach of a test in Python, which could open any file by itself."""


def find(paths: Iterable[Path] = (), here: Path | None = None) -> Project:
    """The project of ``paths``, for a command called in the folder ``here`` (default: the current one).

    It is the nearest settings file at ``here`` or above whose folder holds the ``paths``, else the outermost
    one above the paths. Where there is none it is the nearest folder that looks like the root of a project,
    else ``here``, else the folder of the paths.

    Raises :class:`~harness.errors.ScenarioError` for a settings file that cannot be read.
    """
    here = _absolute(here or Path.cwd())
    folders = [path if path.is_dir() else path.parent for path in map(_absolute, paths)] or [here]
    below = Path(os.path.commonpath(folders))
    places = [folder for folder in (here, *here.parents) if below.is_relative_to(folder)]
    places += [folder for folder in (*reversed(below.parents), below) if folder not in places]
    for folder in places:
        if (found := _settings(folder)) is not None:
            return found
    near = next((one for one in (below, *below.parents) if any((one / mark).exists() for mark in _ROOTS)), None)
    return Project(root=(near or (here if below.is_relative_to(here) else below)).resolve())


def of_settings(file: Path, values: Mapping[str, Any], root: Path | None = None) -> Project:
    """The project with ``values`` of a settings ``file``, as pytest reads them."""
    return Project(
        root=(root or file.parent).resolve(),
        settings=file,
        allowed=tuple((file.parent / one).resolve() for one in _list(values.get(ALLOW, ()))),
        patterns=tuple(_list(values[FILES])) if FILES in values else PATTERNS,
        kernels=tuple(_list(values.get(KERNEL, ()))),
        nft_program=str(values.get(PROGRAM, "")),
    )


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - `..` goes, symbolic links stay, as in pytest


def _list(value: object) -> list[str]:
    """pytest's types ``args`` and ``paths``."""
    return shlex.split(value) if isinstance(value, str) else [str(one) for one in value]  # type: ignore[attr-defined]


def _settings(folder: Path) -> Project | None:
    """The project with root ``folder``; None when no file there has settings of pytest."""
    for name, section in _FILES:
        if (file := folder / name).is_file():
            values = (_of_toml if name.endswith(".toml") else _of_ini)(file, section)
            if values is not None or name in _ALWAYS:
                return of_settings(file, values or {})
    return None


# In pytest's order; the tables of a TOML file from the more to the less particular.
_FILES: Final[tuple[tuple[str, str], ...]] = (
    ("pytest.toml", "pytest"),
    (".pytest.toml", "pytest"),
    ("pytest.ini", "pytest"),
    (".pytest.ini", "pytest"),
    ("pyproject.toml", "tool.pytest.ini_options tool.pytest"),
    ("tox.ini", "pytest"),
    ("setup.cfg", "tool:pytest"),
)
_ALWAYS: Final = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini")
"""They count without a section as well."""


def _of_ini(file: Path, section: str) -> Mapping[str, Any] | None:
    import configparser

    def read(text: str) -> configparser.ConfigParser:
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_string(text)
        return ini

    ini: configparser.ConfigParser = _parsed(file, read, configparser.Error)
    return dict(ini[section]) if ini.has_section(section) else None


def _of_toml(file: Path, tables: str) -> Mapping[str, Any] | None:
    import tomllib

    settings = _parsed(file, tomllib.loads, tomllib.TOMLDecodeError)
    for table in tables.split():
        found: Any = settings
        for key in table.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return None


def _parsed(file: Path, parse: Callable[[str], Any], error: type[Exception]) -> Any:
    try:
        return parse(untrusted.read(file, SETTINGS_BYTES).decode())
    except untrusted.Unreadable as unreadable:
        raise ScenarioError(unreadable.sentence, Position(str(file))) from None
    except (error, UnicodeDecodeError, RecursionError) as wrong:
        raise ScenarioError(f"cannot be read: {(str(wrong).splitlines() or [''])[0]}", Position(str(file))) from None
