"""Temporary folders that do not outlive a killed process for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_YOUNG_S: Final = 60.0
"""Age in seconds below which a folder is left alone: its process may be about to lock it."""


@contextmanager
def folder(kind: str) -> Iterator[Path]:
    """A new folder for temporary files, removed at the end.

    Removes those of the same ``kind`` that processes of this user have left which were killed: a live one holds a lock
    on its folder, see flock(2).
    """
    prefix = f"nft-harness-{kind}-"
    _remove_left(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        lock = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield Path(name).resolve()
        finally:
            os.close(lock)


def _remove_left(prefix: str) -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            opened = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(opened)
                if found.st_uid == os.geteuid() and time.time() - found.st_ctime > _YOUNG_S:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(opened)
