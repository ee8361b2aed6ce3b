"""The project of a session of pytest, and its scenario files; each is found once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.project import ALLOW, FILES, Project, find, of_settings
from harness.scenario.files import Chosen, choose, elsewhere, shortened
from harness.text import escape

_PROJECT = pytest.StashKey[Project]()
_CHOSEN = pytest.StashKey[Chosen]()


def project(config: pytest.Config) -> Project:
    """The project of the session, by the folder in which pytest was called.

    Where pytest reads the same settings file, or is given one by ``-c``, its own word counts: it knows ``-o``.
    Raises :class:`pytest.UsageError` for settings that cannot be read.
    """
    if _PROJECT not in config.stash:
        config.stash[_PROJECT] = _project(config)
    return config.stash[_PROJECT]


def use(config: pytest.Config, found: Project) -> None:
    """Have ``found`` be the project of the session."""
    config.stash[_PROJECT] = found


def scenario_files(config: pytest.Config) -> Chosen:
    """The scenario files below pytest's arguments."""
    if _CHOSEN not in config.stash:
        config.stash[_CHOSEN] = choose(config.args, project(config))
    return config.stash[_CHOSEN]


def header(config: pytest.Config) -> list[str]:
    """Lines for pytest's header about YAML files that are not taken, if there are any; all of them with ``-v``."""
    chosen = scenario_files(config)
    return [
        escape(f"nft-harness: {text}: {_names(paths, all_of_them=config.option.verbose > 0)}")
        for paths, text in (
            (chosen.left_alone, "skipped: not scenario files"),
            (
                elsewhere(chosen, project(config)),
                f"not taken, for they are not below a folder scenarios (name them, or set {FILES})",
            ),
        )
        if paths
    ]


def _names(paths: Sequence[Path], *, all_of_them: bool) -> str:
    shown = paths if all_of_them else paths[:3]
    more = [f"and {len(paths) - len(shown)} more (-v lists them)"] if len(shown) < len(paths) else []
    return ", ".join([*(str(shortened(path)) for path in shown), *more])


def _project(config: pytest.Config) -> Project:
    paths = [Path(argument.partition("::")[0]) for argument in config.args]
    try:
        found = find(paths, config.invocation_params.dir)
    except HarnessError as error:
        raise pytest.UsageError(f"nft-harness: {error}") from None
    explicit = config.option.inifilename or config.option.rootdir
    if config.inipath and (explicit or config.inipath == found.settings):
        values = {name: config.getini(name) for name in (ALLOW, FILES)}
        return of_settings(config.inipath, values, config.rootpath)
    return Project(root=config.rootpath.resolve()) if explicit else found
