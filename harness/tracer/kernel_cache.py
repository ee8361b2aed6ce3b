"""What is kept between runs: the survey of a kernel, and the compiled program.

Both depend only on the kernel's build and on the sources of the tracer, and both take seconds to make
under emulation. A guest can read the cache folder but not write to it: it sends what it learned to the
host, as :meth:`KernelCache.news`, and the host decides what to keep (:func:`harness.cache.accepted_from_guest`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from harness.cache import GUESTS, HOST
from harness.errors import HarnessError
from harness.tracer import program
from harness.tracer.survey import Survey
from harness.vm.port import in_guest


class NotKept(HarnessError):
    """Something expected in the cache folder is missing."""


class KernelCache:
    """Reads the cache folder, and collects what should be added to it."""

    def __init__(self, folder: Path, *, compiles: bool = True) -> None:
        """With ``compiles`` false, a program missing in ``folder`` raises :class:`NotKept` and is not compiled."""
        self._folder = folder
        self._compiles = compiles
        self._news: dict[str, bytes] = {}
        self._place = f"{GUESTS if in_guest() else HOST}/{os.uname().release}"
        self._survey_name = f"{self._place}/survey.json"
        self.survey = Survey(self._read(self._survey_name))

    def object(self, values: Mapping[str, int | str]) -> program.Object:
        """The program compiled with the constants ``values``, from the cache folder or by BCC."""
        name = f"{self._place}/{_key(values)}.msgpack"
        with suppress(msgspec.DecodeError):  # not there, or damaged: made anew
            return msgspec.msgpack.decode(self._read(name), type=program.Object)
        if not self._compiles:
            raise NotKept(f"{self._folder / name} is missing or damaged")
        compiled = program.compile_object(values)
        self._news[name] = msgspec.msgpack.encode(compiled)
        return compiled

    def news(self) -> dict[str, bytes]:
        """Files to add to the cache folder by :func:`harness.cache.store`; names are relative to it."""
        survey = {self._survey_name: self.survey.to_bytes()} if self.survey.learned else {}
        return self._news | survey

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return b""


def _key(values: Mapping[str, int | str]) -> str:
    digest = hashlib.sha256(repr(sorted(values.items())).encode())
    for source in (Path(program.__file__), *sorted(path for path in program.SOURCES.rglob("*") if path.is_file())):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]
