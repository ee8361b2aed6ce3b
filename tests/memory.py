"""A cgroup with little memory: who needs more there loses a process to the kernel's out-of-memory killer.

By version 1 or 2, whichever has the memory controller; below the cgroup of this process where that is possible. See
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness.wait import wait_until

GONE_S = 20.0
"""From the end of a command to the end of all that it started."""


class MemoryCgroup:
    """A cgroup whose processes have ``mib`` MiB together, without swap."""

    def __init__(self, folder: Path, mib: int) -> None:
        self.folder = folder
        is_first = (folder / "memory.limit_in_bytes").exists()
        limit, swap = (
            ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", mib << 20))
            if is_first
            else ("memory.max", ("memory.swap.max", 0))
        )
        (folder / limit).write_text(str(mib << 20))
        with suppress(OSError):  # a kernel that does not account for swap
            (folder / swap[0]).write_text(str(swap[1]))
        self._events = folder / ("memory.oom_control" if is_first else "memory.events")

    @property
    def kills(self) -> int:
        """Processes that the kernel has killed here."""
        return int(dict(line.split() for line in self._events.read_text().splitlines())["oom_kill"])

    @property
    def processes(self) -> list[int]:
        """Those that are here; where there is none, nothing that was started here is left, nor a namespace of it."""
        return [int(one) for one in (self.folder / "cgroup.procs").read_text().split()]

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` and all that it starts here."""
        return subprocess.run(
            ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder), *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )


@contextmanager
def with_memory(mib: int) -> Iterator[MemoryCgroup]:
    """A cgroup that has ``mib`` MiB; skips the test where none can be made, and fails it where a process is left."""
    try:
        folder = _parent() / f"nft-harness-{os.getpid()}"
        folder.mkdir()
    except (OSError, LookupError) as error:
        pytest.skip(f"this machine lets no cgroup have a limit of memory: {error}")
    try:
        cgroup = MemoryCgroup(folder, mib)
        yield cgroup
        wait_until(lambda: not cgroup.processes, GONE_S, f"{[*map(_named, cgroup.processes)]} to end")
    finally:
        for pid in map(int, (folder / "cgroup.procs").read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        wait_until(lambda: _is_removed(folder), GONE_S, "the cgroup to be empty")


def _named(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    return "one that has ended"


def _is_removed(folder: Path) -> bool:
    with suppress(OSError):  # EBUSY: a process of it has not ended yet
        folder.rmdir()
    return not folder.exists()


def _parent() -> Path:
    """The folder of a cgroup below which others with a limit of memory can be made."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _, place, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(place + own["memory"])
    for place in (Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"):
        # A cgroup with processes has no controller for those below, except the root (no internal processes).
        for folder in (place / own[""].lstrip("/"), place):
            with suppress(OSError):
                (folder / "cgroup.subtree_control").write_text("+memory")
                return folder
    raise LookupError("no mounted hierarchy has the memory controller")
