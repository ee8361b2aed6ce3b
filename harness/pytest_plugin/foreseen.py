"""Whether a guest has anything to do: none is booted where every scenario is broken already.

Files are read one after the other, until one has a scenario whose rulesets nft does not refuse; the rest is read while
the guest boots. What was read without an error is remembered from one session to the next.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from harness.cache import cache_dir, keep
from harness.model import layers
from harness.pytest_plugin.selection import project, scenario_files
from harness.scenario.case import Broken, Case, LoadedFile
from harness.scenario.files import shortened
from harness.vm.placement import Placement

if TYPE_CHECKING:
    from harness.check.command import Rulesets

LOADED = pytest.StashKey[dict[Path, LoadedFile]]()
"""The files that have been read."""
NAME = "rulesets.msgpack"
MAX_FILES = 4096
"""Files of rulesets that are remembered; beyond that those of earlier sessions are dropped."""

_Stamp = tuple[str, int, int]
"""A file, its time of change in ns, and its size in bytes."""


def read(config: pytest.Config, path: Path) -> LoadedFile:
    """The scenarios of a file."""
    from harness.scenario.load import load_all  # workers are sent the contents of the files

    recording = config.option.nft_record
    return load_all(shortened(path), layers=layers.NAMES, recording=recording, project=project(config))


def header(config: pytest.Config) -> list[str]:
    """A line for pytest's header where no guest is booted for broken scenarios."""
    return ["nft-harness: nothing is booted: every scenario is broken"] if LOADED in config.stash else []


def nothing_to_run(config: pytest.Config, places: Sequence[Placement]) -> bool:
    """Whether all scenarios of the session are broken, or will be for their rulesets in each of the ``places``."""
    from harness.pytest_plugin import kept_frames  # workers are sent frames

    loaded = config.stash.setdefault(LOADED, {})
    files = scenario_files(config).files
    kept_frames.use()
    for path in files:
        loaded[path] = read(config, path)
        if any(isinstance(case, Case) for case in loaded[path].cases):
            return _refused(loaded, files, config, places)
    return bool(files)


def _refused(
    loaded: dict[Path, LoadedFile], paths: Iterable[Path], config: pytest.Config, places: Sequence[Placement]
) -> bool:
    """As :func:`nothing_to_run`, where some of the files ``loaded`` have scenarios; puts the errors into them."""
    chosen = {place.nft for place in places}
    reader = next(iter(chosen))
    known = _Known(str(reader.folder) if reader else "")
    cases = [case for one in loaded.values() for case in one.cases if isinstance(case, Case)]
    if len(chosen) > 1 or any(map(known.has, cases)):
        return False
    from contextlib import closing

    from harness.check.command import Rulesets
    from harness.check.planned import Planned

    with closing(Rulesets(Planned((), natively=False, nft=reader))) as rulesets:
        for path in paths:
            one = loaded.get(path) or read(config, path)
            after = tuple(_broken(case, rulesets, known) for case in one.cases)
            if not all(isinstance(case, Broken) for case in after):
                return False
            loaded[path] = msgspec.structs.replace(one, cases=after)
    return True


def _broken(case: Case | Broken, rulesets: Rulesets, known: _Known) -> Case | Broken:
    """``case``, broken where nft refuses a ruleset of its hosts; of others the ruleset is ``known`` from now on."""
    if isinstance(case, Broken):
        return case
    found = [rulesets.get(files) for files in case.rulesets.values()]
    if errors := [error for one in found if one for error in one.errors]:
        return Broken(file=case.file, name=case.name, id=case.id, marks=case.marks, errors=tuple(errors))
    if all(found):
        known.add(case, (file for one in found if one for file in one.files))
    return case


class _Known:
    """The rulesets in which an nft has found no error, as long as their files stay as they are."""

    def __init__(self, reader: str) -> None:
        self._reader = reader
        self._stored: dict[str, list[_Stamp]] = {}
        with suppress(OSError, msgspec.DecodeError):
            content = (cache_dir() / NAME).read_bytes()
            self._stored = msgspec.msgpack.decode(content, type=dict[str, list[_Stamp]])

    def has(self, case: Case) -> bool:
        """Whether the rulesets of all hosts of ``case`` are among them."""
        stamps = self._stored.get(self._key(case))
        return stamps is not None and stamps == _stamps(Path(name) for name, _, _ in stamps)

    def add(self, case: Case, files: Iterable[Path]) -> None:
        """Remember those of ``case``, which consist of ``files``."""
        self._stored[self._key(case)] = _stamps(files)
        if sum(map(len, self._stored.values())) > MAX_FILES:
            self._stored = {self._key(case): self._stored[self._key(case)]}
        keep(cache_dir() / NAME, msgspec.msgpack.encode(self._stored))

    def _key(self, case: Case) -> str:
        said = [
            (host, [*map(str, one.paths)], dict(one.defines), str(one.project.root), [*map(str, one.project.allowed)])
            for host, one in case.rulesets.items()
        ]
        return hashlib.sha256(repr((self._reader, said)).encode(errors="replace")).hexdigest()


def _stamps(files: Iterable[Path]) -> list[_Stamp]:
    found = []
    for file in files:
        try:
            about = os.stat(file)  # noqa: PTH116 - pathlib is slow
        except OSError:
            return []
        found.append((str(file), about.st_mtime_ns, about.st_size))
    return found
