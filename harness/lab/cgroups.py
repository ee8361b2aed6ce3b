"""Cgroups (version 2) that rules match, and that programs of a scenario are in. See cgroups(7), cgroup_namespaces(7).

They are those of a microVM, which has no others: a program there is in the one that a scenario names, by its path from
the root, as on the machine that the ruleset is made for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from harness.errors import HarnessError, Unsupported
from harness.vm.port import in_guest

ROOT: Final = "/sys/fs/cgroup"


class Cgroups:
    """Makes cgroups; those that it has made are removed at the end."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path in reversed(self._made):
            with suppress(OSError):  # the guest ends with its worker
                os.rmdir(path)  # noqa: PTH106 - pathlib is slow to import in a guest

    def make(self, paths: Iterable[str]) -> None:
        """Make the cgroups ``paths`` and those above them, where they are not there.

        Raises :class:`~harness.errors.Unsupported` outside of a microVM and where the kernel has no cgroups, and
        :class:`~harness.errors.HarnessError` for a path that has the name of one of the kernel's files.
        """
        for path in paths:
            if not in_guest():
                remedy = "run it in a microVM, with --nft-kernel 6.12 for instance"
                raise Unsupported("the cgroups of this machine are not changed for a scenario", remedy=remedy)
            place = ROOT
            for name in path.split("/"):
                place = f"{place}/{name}"
                try:
                    os.mkdir(place)  # noqa: PTH102
                except FileExistsError:
                    if os.path.isdir(place):  # noqa: PTH112
                        continue
                    remedy = "files of the kernel have such names"
                    raise HarnessError(f"'{path}' cannot be a cgroup", remedy=remedy) from None
                except OSError as refused:
                    sentence = f"this kernel made no cgroup '{path}': {refused.strerror}"
                    raise Unsupported(sentence, remedy="it needs CONFIG_CGROUPS and CONFIG_SOCK_CGROUP_DATA") from None
                self._made.append(place)

    @contextmanager
    def within(self, path: str | None) -> Iterator[None]:
        """Move this process to the cgroup ``path``: a socket is in that of its creator, for good.

        See cgroup_sk_alloc() in kernel/cgroup/cgroup.c.
        """
        if path is None:
            yield
            return
        self.make([path])
        before = _own()
        try:
            _move(f"{ROOT}/{path}")
            yield
        finally:
            _move(ROOT + before)


def _own() -> str:
    """This process's cgroup, in the form of /proc/PID/cgroup: ``/`` for the root."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:  # noqa: PTH123
        return next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "/")


def _move(folder: str) -> None:
    with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(os.getpid()))
