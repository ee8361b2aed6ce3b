"""Files that a guest will read, placed in its initramfs.

Opening a file on the host takes the guest milliseconds: an import is five round trips across the virtual
bus. So a worker in a guest reports which files its process has used, the list is kept, and the next guest
finds these files in its memory when it boots. They are read from the
host at every boot, so an edited file is the edited one in the guest too; a list that is wrong or
missing costs time and nothing else.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.cache import PRELOAD_LIST, cache_dir

MAX_FILES, MAX_FILE_BYTES, MAX_BYTES = 5000, 32 << 20, 256 << 20
"""Of the list, which a guest has written, and of what it names."""


def files() -> list[Path]:
    """The regular files of the list, under their real paths, as far as their number and size stay within bounds."""
    found: list[Path] = []
    room = MAX_BYTES
    for name in _listed()[:MAX_FILES]:
        with suppress(OSError, ValueError):
            about = (path := Path(name).resolve()).stat()
            if stat.S_ISREG(about.st_mode) and about.st_size <= min(MAX_FILE_BYTES, room):
                found.append(path)
                room -= about.st_size
    return found


def news() -> dict[str, bytes]:
    """The list as a process like this one needs it, by its name in the cache folder; nothing when it is so already."""
    listed, used = set(_listed()), set(_in_use())
    return {} if used <= listed else {PRELOAD_LIST: "\n".join(sorted(listed | used)).encode()}


def _listed() -> list[str]:
    try:
        return (cache_dir() / PRELOAD_LIST).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _in_use() -> Iterator[str]:
    # Nothing is asked of the file system: that would take a second or two.
    for module in list(sys.modules.values()):
        yield from filter(None, (getattr(module, "__file__", None), getattr(module, "__cached__", None)))
    for line in Path("/proc/self/maps").read_text().splitlines():
        *_, name = line.split(maxsplit=5)
        if name.startswith("/"):  # the program and its libraries
            yield name
