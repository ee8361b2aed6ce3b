"""The folder of kernel images: who may change it, and where.

::

    $XDG_CACHE_HOME/nft-harness/kernels/
        .6.12.lock                held by the one who fetches or removes a 6.12
        .6.12.x7k2m1/             unfinished work, deleted by the next who holds the lock
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.cache import REMEDY, cache_dir, why_not
from harness.errors import Unsupported
from harness.vm.progress import Progress


def folder() -> Path:
    """The folder, which need not be there."""
    return cache_dir() / "kernels"


@contextmanager
def written_to() -> Iterator[None]:
    """Raise :class:`Unsupported` with a sentence where the folder, the only place for an image, can't be written to."""
    try:
        yield
    except OSError as error:
        raise Unsupported(why_not(error), remedy=REMEDY) from None


@contextmanager
def lock(name: str, progress: Progress) -> Iterator[None]:
    """Be the only one who changes the images called ``name``; the kernel frees the lock of a dead process.

    The unfinished work of one that was killed is deleted.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that fetches Linux {name}", None)
            fcntl.flock(file, fcntl.LOCK_EX)
        for left in folder().glob(f".{name}.*"):
            if left.is_dir():
                shutil.rmtree(left)
        yield


@contextmanager
def workplace(name: str) -> Iterator[Path]:
    """A fresh folder on the cache's file system, gone at the end. The caller holds the lock of that ``name``."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder(), ignore_cleanup_errors=True) as work:
        yield Path(work)
