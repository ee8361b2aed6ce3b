"""Names for the hosts of a lab, by which ip-netns(8) and nsenter(1) enter them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from harness.errors import HarnessError, Unsupported
from harness.lab.lab import Lab

FOLDER: Final = Path("/run/netns")
"""Where ip-netns(8) keeps names."""
KEPT: Final = "nft-"
"""What the names of a lab that is left behind begin with."""

CLONE_NEWNS: Final = 0x00020000
# mount(2)
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2

_libc = ctypes.CDLL(None, use_errno=True)


def leave_mounts() -> None:
    """Give this thread, and all it starts, mounts of its own: names made there end with the last of them.

    It has to be the first thing that a process does, before it starts threads.
    """
    _check(_libc.unshare(CLONE_NEWNS), "mounts of our own can't be had")
    _mount(None, "/", MS_REC | MS_PRIVATE)
    FOLDER.mkdir(parents=True, exist_ok=True)  # as ip-netns(8) does, and leaves it
    _mount("tmpfs", str(FOLDER), 0, "tmpfs")


def name(lab: Lab, prefix: str = "") -> list[str]:
    """Name the hosts of ``lab``; the names, in the order of the hosts.

    Raises :class:`~harness.errors.HarnessError` when one is taken.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = {f"{prefix}{host.name}": host for host in lab.hosts.values()}
    for one in names:
        if (FOLDER / one).exists():
            raise HarnessError(f"there is a network namespace {one} already", remedy="nft-harness lab remove")
    for one, host in names.items():
        (FOLDER / one).touch(mode=0o444)
        _mount(f"/proc/self/fd/{host.namespace.fd}", str(FOLDER / one), MS_BIND)
    return list(names)


def remove() -> list[str]:
    """Take away the names that :func:`name` gave to labs left behind, and so the labs; the names."""
    found = sorted(FOLDER.glob(f"{KEPT}*")) if FOLDER.is_dir() else []
    for path in found:
        _libc.umount2(os.fsencode(path), MNT_DETACH)
        path.unlink()
    return [path.name for path in found]


def _mount(source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    arguments = [os.fsencode(one) if one else None for one in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), None), f"{target} can't be mounted")


def _check(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise Unsupported(f"{what}: {reason}", remedy="run as root, or in the microVM")
