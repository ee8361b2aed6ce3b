"""What a guest learned of its kernel, which it cannot write into the cache folder: it travels through a port.

A guest may have been taken over, so what it sends is kept for guests of its kernel only (:mod:`harness.cache`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from harness.cache import accepted_from_guest, cache_dir, store
from harness.errors import HarnessError
from harness.vm.port import port

PORT = "learned"
"""Its output, for :func:`harness.vm.microvm.run`, is a file of the host."""
DONE = "learned"
"""Argument of a template's program where a guest has sent that before: it does not ask for it again."""


def send(news: Mapping[str, bytes]) -> None:
    """Send files of the cache folder, by their names in it, from a guest to its host."""
    port(PORT).write_bytes(msgspec.msgpack.encode(news))


def keep(descriptor: int, release: str) -> None:
    """Keep what a guest with the kernel ``release`` has sent into the file ``descriptor``.

    Raises :class:`~harness.errors.HarnessError` when that cannot be read, as of a guest that ended before it sent.
    """
    try:
        news = msgspec.msgpack.decode(os.pread(descriptor, os.fstat(descriptor).st_size, 0), type=dict[str, bytes])
    except msgspec.DecodeError as error:
        raise HarnessError(f"the guest sent unreadable data: {error}") from None
    store(cache_dir(), accepted_from_guest(release, news))
