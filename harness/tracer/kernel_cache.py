"""What is kept between runs: the survey of a kernel, and the compiled program.

Both depend on nothing but the kernel's build and our own sources, and both take seconds to make
under emulation. A guest can read the cache folder but not write to it, so what was learned there
is handed to the host as :meth:`KernelCache.news`.

A guest may have been taken over, so what guests learned is kept apart, by the release that the host gave the guest to
boot: the host's kernel is never given a program that a guest compiled, nor is a guest with another kernel.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from harness.cache import keep
from harness.errors import HarnessError
from harness.tracer import program
from harness.tracer.discover import Survey
from harness.vm import preload
from harness.vm.port import in_guest

HOST, GUESTS = "host", "guests"
"""Folders for what was learned in either."""
MAX_FILES, MAX_BYTES = 100, 16 << 20
"""What is taken from one guest: files, and bytes of each."""

_FILE = re.compile(r"(survey\.json|[0-9a-f]{32}\.msgpack)")
_FOLDER = re.compile(rf"({HOST}|{GUESTS})/\d[\w.+~-]*")


class NotKept(HarnessError):
    """What should have been in the cache folder is not."""


class KernelCache:
    """The cache folder ``folder``, read, and what should be added to it."""

    def __init__(self, folder: Path, *, compiles: bool = True) -> None:
        """With ``compiles`` false, a program that is not in the folder is a :class:`NotKept` instead of compiled."""
        self._folder = folder
        self._compiles = compiles
        self._news: dict[str, bytes] = {}
        self._place = f"{GUESTS if in_guest() else HOST}/{os.uname().release}"
        self._survey_name = f"{self._place}/survey.json"
        self.survey = Survey(self._read(self._survey_name))

    def object(self, values: Mapping[str, int | str]) -> program.Object:
        """bpf/trace.c compiled with the constants ``values``."""
        name = f"{self._place}/{_key(values)}.msgpack"
        with suppress(msgspec.DecodeError):  # not there, or damaged: made anew
            return msgspec.msgpack.decode(self._read(name), type=program.Object)
        if not self._compiles:
            raise NotKept(f"{self._folder / name} is missing or damaged")
        compiled = program.compile_object(values)
        self._news[name] = msgspec.msgpack.encode(compiled)
        return compiled

    def news(self) -> dict[str, bytes]:
        """Files to be added to the cache folder by :func:`store`; names are relative to it."""
        survey = {self._survey_name: self.survey.to_bytes()} if self.survey.learned else {}
        return self._news | survey

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return b""


def of_guest(release: str, news: Mapping[str, bytes]) -> dict[str, bytes]:
    """What is taken of the ``news`` of a guest that was given the kernel ``release``: its own, within bounds."""
    place = f"{GUESTS}/{release}"
    own = {name: one for name, one in news.items() if name == preload.NAME or name.rpartition("/")[0] == place}
    if len(own) > MAX_FILES or any(len(content) > MAX_BYTES for content in own.values()):
        return {}
    return own


def store(folder: Path, news: Mapping[str, bytes]) -> None:
    """Keep the files ``news`` in ``folder``, if it can be written to; see :func:`harness.cache.keep`."""
    for name, content in news.items():
        place, _, own = name.rpartition("/")
        if name == preload.NAME or (_FOLDER.fullmatch(place) and _FILE.fullmatch(own)):
            keep(folder / name, content)


def _key(values: Mapping[str, int | str]) -> str:
    digest = hashlib.sha256(repr(sorted(values.items())).encode())
    for source in (Path(program.__file__), *sorted(path for path in program.SOURCES.rglob("*") if path.is_file())):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]
