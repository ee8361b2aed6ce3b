"""Names for the hosts of a lab, with which ip-netns(8) and nsenter(1) enter them."""

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
"""Prefix of the names of a kept lab."""
MARK: Final = "nft-harness lab "
"""Prefix of the alias of ``lo`` in a kept lab; the name under which it was kept follows."""

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
# mount(2)
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2

_libc = ctypes.CDLL(None, use_errno=True)


def leave_mounts() -> None:
    """Move this thread, and all it starts, to a new mount namespace: names created there end with it.

    Call it before the process starts threads.
    """
    _check(_libc.unshare(CLONE_NEWNS), "a mount namespace can't be created")
    _mount(None, "/", MS_REC | MS_PRIVATE)
    FOLDER.mkdir(parents=True, exist_ok=True)  # as ip-netns(8) does
    _mount("tmpfs", str(FOLDER), 0, "tmpfs")


def name(lab: Lab, prefix: str = "") -> list[str]:
    """Name the hosts of ``lab``. Returns the names, in the order of the hosts.

    Raises :class:`~harness.errors.HarnessError` when one is in use.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = {f"{prefix}{host.name}": host for host in lab.hosts.values()}
    for one in names:
        if (FOLDER / one).exists():
            raise HarnessError(
                f"network namespace {one} exists already",
                remedy="nft-harness lab remove"
                if _left(FOLDER / one)
                else f"ip netns delete {one}, if it belongs to you",
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
    """Remove ``names``, or those of all kept labs, and with them the labs. Returns the names removed.

    Only a namespace that carries the mark for its name is touched.
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
        # The mount that was checked, not what is at the path by now.
        _libc.umount2(os.fsencode(f"/proc/self/fd/{descriptor}"), MNT_DETACH)
    finally:
        os.close(descriptor)
    with suppress(OSError):  # EBUSY: another is mounted there since
        path.unlink()
    return True


def _left(path: Path) -> bool:
    """Whether a lab was kept under this name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _marked(descriptor, path.name)
    finally:
        os.close(descriptor)


def _marked(descriptor: int, one: str) -> bool:
    """Whether the network namespace ``descriptor`` was kept under the name ``one``; False for any other file."""

    def there() -> bool:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            return False
        with rtnetlink.RouteSocket() as netlink:
            return netlink.alias(rtnetlink.LOOPBACK) == MARK + one

    # In a thread of its own, which ends in that namespace.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="named") as thread:
        return thread.submit(there).result()


def _mount(source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    arguments = [os.fsencode(one) if one else None for one in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), None), f"{target} can't be mounted")


def _check(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise Unsupported(f"{what}: {reason}", remedy="run as root, or in the microVM")
