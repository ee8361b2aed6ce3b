"""The project that a scenario file belongs to, and what outside of it the file may name.

Scenario files may come from strangers: they reach nothing outside of their project, unless the
project's pytest settings allow it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

from harness.errors import Position, ScenarioError

ROOT_MARKS: Final = ("pyproject.toml", "pytest.ini", "tox.ini", ".git")
"""What tells the root of a project."""
ALLOW: Final = "nft_allow"
"""Setting of pytest: files and folders outside of the project, seen from its root."""

_SECTIONS: Final = {"pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}


@functools.cache
def root(folder: Path) -> Path:
    """The nearest folder upwards that is a project's root, else ``folder`` itself."""
    return next((one for one in (folder, *folder.parents) if any((one / mark).exists() for mark in ROOT_MARKS)), folder)


def allows(project: Path, file: Path) -> bool:
    """Whether the settings of the project with root ``project`` allow to name ``file``, absolute, outside of it."""
    return any(file.is_relative_to(place) for place in allowed(project))


@functools.cache
def allowed(project: Path) -> tuple[Path, ...]:
    """What the settings of the project with root ``project`` allow to name outside of it."""
    # Read here and not by pytest: nft-harness check runs without pytest, and must say the same.
    found: list[str] = []
    for name, section in _SECTIONS.items():
        if (file := project / name).is_file():
            found += _of_ini(file, section)
    if (file := project / "pyproject.toml").is_file():
        found += _of_toml(file)
    return tuple((project / one).resolve() for one in found)


def _of_ini(file: Path, section: str) -> list[str]:
    import configparser  # only for a scenario that names something outside of its project

    ini = configparser.ConfigParser(interpolation=None)
    try:
        ini.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ScenarioError(f"cannot be read: {str(error).splitlines()[0]}", Position(str(file))) from None
    return [line.strip() for line in ini.get(section, ALLOW, fallback="").splitlines() if line.strip()]


def _of_toml(file: Path) -> list[str]:
    import tomllib

    try:
        settings: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"cannot be read: {error}", Position(str(file))) from None
    for key in ("tool", "pytest", "ini_options", ALLOW):
        settings = settings.get(key, {}) if isinstance(settings, dict) else {}
    return [one for one in settings if isinstance(one, str)] if isinstance(settings, list) else []
