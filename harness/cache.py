"""The user's cache folder: what saves time, and can be made again.

A run goes on without it: what cannot be read there is made anew, and what cannot be written there is not kept, which
is reported once. Only kernel images have no other place to be.

A guest may have been compromised, so what guests learned is kept apart, by the release that the host gave the guest to
boot: neither the host's kernel nor a guest with another kernel ever loads a program that a guest compiled.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

NOWHERE = Path(os.devnull, "nft-harness")
"""The cache folder of a user who has no home folder: nothing is found there, and nothing can be written."""

HOST: Final = "host"
GUESTS: Final = "guests"
"""Folders of the cache, with one folder for each kernel release, for what was learned natively and in guests."""
PRELOAD_LIST: Final = f"preload/{zlib.crc32(sys.prefix.encode()):08x}.txt"
"""The list of files that a guest reads at start, see :mod:`harness.vm.preload`: one for each Python environment."""
MAX_FILES: Final = 100
MAX_BYTES: Final = 16 << 20
"""Accepted from one guest: files, and bytes of each."""

_FILE = re.compile(r"(survey\.json|[0-9a-f]{32}\.msgpack)")
_FOLDER = re.compile(rf"({HOST}|{GUESTS})/\d[\w.+~-]*")

REMEDY = "make room there, or set XDG_CACHE_HOME to a folder that you may write to"


def cache_dir() -> Path:
    """The user's cache folder of this program (XDG Base Directory Specification); it may not exist yet."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # "All paths set in these environment variables must be absolute", others are to be ignored.
    if home.is_absolute():
        return home / "nft-harness"
    try:
        return Path.home() / ".cache/nft-harness"
    except RuntimeError:  # neither HOME nor an entry in /etc/passwd: the user of a container
        return NOWHERE


def keep(place: Path, content: bytes) -> bool:
    """Write ``content`` to ``place``, atomically: a concurrent reader finds the old file or the new one.

    Whether that went well; if not, it is reported on standard error, once in each process.
    """
    part = place.with_name(f".{place.name}.part")  # what a killed process leaves is used by the next
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as file:
            try:
                file.truncate(0)
                file.write(content)
                file.flush()
                part.replace(place)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
    except OSError as error:
        _say(str(error.strerror))
        return False
    return True


def accepted_from_guest(release: str, news: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files in ``news`` that a guest which booted kernel ``release`` may add to the cache folder.

    ``news`` maps names relative to the cache folder to contents. Only files of the guest's own kernel, and the list
    of files to preload, are accepted; nothing at all if they exceed :data:`MAX_FILES` or :data:`MAX_BYTES`.
    """
    folder = f"{GUESTS}/{release}"
    own = {name: one for name, one in news.items() if name == PRELOAD_LIST or name.rpartition("/")[0] == folder}
    if len(own) > MAX_FILES or any(len(content) > MAX_BYTES for content in own.values()):
        return {}
    return own


def store(folder: Path, news: Mapping[str, bytes]) -> None:
    """Write the files ``news`` (names relative to ``folder``), by :func:`keep`; names of no known form are ignored."""
    for name, content in news.items():
        place, _, own = name.rpartition("/")
        if name == PRELOAD_LIST or (_FOLDER.fullmatch(place) and _FILE.fullmatch(own)):
            keep(folder / name, content)


def why_not(error: OSError) -> str:
    """Sentence for an error of writing into the cache folder."""
    if cache_dir() == NOWHERE:
        return "there is no home folder, and so no cache folder"
    return f"the cache folder {cache_dir()} can't be written to: {error.strerror}"


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file at ``path``, open for writing by nobody else who does it in this way."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                is_there = path.stat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                is_there = False
            if is_there:  # else the one who had the lock has given it its name
                yield file
                return


@functools.cache
def _say(why: str) -> None:
    consequence = f"what is learned is not kept, and each run takes longer ({REMEDY})"
    print(f"nft-harness: {why_not(OSError(0, why))}; {consequence}", file=sys.stderr)
