"""Names for the hosts of a lab, by which ip-netns(8) and nsenter(1) enter them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from harness.errors import HarnessError, Unsupported
from harness.lab import requests, rtnetlink
from harness.lab.lab import Lab, ask

FOLDER: Final = Path("/run/netns")
"""Where ip-netns(8) keeps names."""
KEPT: Final = "nft-"
"""What the names of a lab that is left behind begin with."""
MARK: Final = "nft-harness lab "
"""What the alias of ``lo`` begins with in a lab that is left behind; the name under which it was left follows."""

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
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
            raise HarnessError(
                f"there is a network namespace {one} already",
                remedy="nft-harness lab remove" if _left(FOLDER / one) else f"ip netns delete {one}, if it is yours",
            )
    with ExitStack() as undo:
        for one, host in names.items():
            ask(host, [requests.alias(rtnetlink.LOOPBACK, MARK + one)])
            (FOLDER / one).touch(mode=0o444, exist_ok=False)
            undo.callback((FOLDER / one).unlink)
            _mount(f"/proc/self/fd/{host.namespace.fd}", str(FOLDER / one), MS_BIND)
            undo.callback(_libc.umount2, os.fsencode(FOLDER / one), MNT_DETACH)
        undo.pop_all()
    return list(names)


def remove(names: Iterable[str] | None = None) -> list[str]:
    """Take away ``names``, or all that :func:`name` gave to labs left behind, and so the labs; the names removed.

    A name alone proves nothing: only a namespace that has our mark for this name is touched.
    """
    paths = sorted(FOLDER.glob(f"{KEPT}*")) if names is None else [FOLDER / one for one in names]
    return [path.name for path in paths if _remove(path)]


def _remove(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _marked(descriptor, path.name):
            return False
        # The very mount that was looked at, whatever stands at the path by now.
        _libc.umount2(os.fsencode(f"/proc/self/fd/{descriptor}"), MNT_DETACH)
    finally:
        os.close(descriptor)
    with suppress(OSError):  # EBUSY: another is mounted there since
        path.unlink()
    return True


def _left(path: Path) -> bool:
    """Whether a lab was left behind under this name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _marked(descriptor, path.name)
    finally:
        os.close(descriptor)


def _marked(descriptor: int, one: str) -> bool:
    """Whether the network namespace behind ``descriptor`` was left under the name ``one``; False for any other file."""

    def there() -> bool:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            return False
        with rtnetlink.RouteSocket() as netlink:
            return netlink.alias(rtnetlink.LOOPBACK) == MARK + one

    # A thread of its own: it ends in that namespace.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="named") as thread:
        return thread.submit(there).result()


def _mount(source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    arguments = [os.fsencode(one) if one else None for one in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), None), f"{target} can't be mounted")


def _check(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise Unsupported(f"{what}: {reason}", remedy="run as root, or in the microVM")
