"""The kernel's own complaints: warnings, oopses, lockdep's findings and stalls in its log, and its taint.

See printk's format in Documentation/ABI/testing/dev-kmsg, and Documentation/admin-guide/tainted-kernels.rst.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from harness.errors import BrokenMeasurement, HarnessError
from harness.text import lines

LOG: Final = "/dev/kmsg"
TAINTED: Final = "/proc/sys/kernel/tainted"
RECORD: Final = 8192
"""Bytes of the longest record: PRINTK_MESSAGE_MAX and its prefix (kernel/printk/internal.h)."""

_COMPLAINT: Final = re.compile(
    r"^(?:WARNING: |BUG: |kernel BUG at |Oops|general protection fault|stack segment: |UBSAN: |KFENCE: |Kernel panic"
    r"|rcu: INFO: |INFO: rcu_|INFO: (?:possible|inconsistent|suspicious|task .* blocked|trying to register)"
    r"|watchdog: BUG: |Unable to handle kernel|unregister_netdevice: waiting for |DEBUG_LOCKS_WARN_ON"
    r"|=+ ?\[ (?:BUG|INFO))"
)
"""How the first line of a complaint begins: kernel/panic.c, lib/bug.c, kernel/locking/lockdep.c,
kernel/rcu/tree_stall.h, kernel/watchdog.c, mm/kasan/report.c, lib/ubsan.c, net/core/dev.c."""
_TAINTS: Final = {5: "a bad page", 7: "an oops or BUG", 9: "a warning", 14: "a soft lockup", 4: "a machine check"}
"""Bits of the taint that mean that something went wrong; the others are about modules and firmware."""


class KernelLog:
    """What this kernel's log has said since this was made."""

    def __init__(self) -> None:
        self._log = os.open(LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._log, 0, os.SEEK_END)
        self._taint = os.open(TAINTED, os.O_RDONLY | os.O_CLOEXEC)
        self._tainted = self._taints()

    def complaints(self) -> list[str]:
        """Lines of the log since the last call from the first complaint on, and new taint; none if there is neither."""
        found = list(_from_first(self._lines()))
        tainted = self._taints()
        more = [name for bit, name in sorted(_TAINTS.items()) if tainted & ~self._tainted & 1 << bit]
        self._tainted = tainted
        return found + [f"the kernel is tainted by {name}" for name in more]

    def _taints(self) -> int:
        return int(os.pread(self._taint, 32, 0))

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                record = os.read(self._log, RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:  # older records were overwritten before they were read
                continue
            if line := line_of(record):
                yield line


def line_of(record: bytes) -> str:
    """The text of a record of /dev/kmsg; "" for what a program has written there."""
    prefix, _, text = record.partition(b";")
    priority = prefix.split(b",", 1)[0]
    if not priority.isdigit() or int(priority) >> 3:
        return ""
    return text.split(b"\n", 1)[0].decode(errors="replace")


def _from_first(lines: Iterable[str]) -> Iterator[str]:
    complained = False
    for line in lines:
        complained = complained or bool(_COMPLAINT.match(line))
        if complained:
            yield line


_log: KernelLog | None = None
_between: list[str] = []
"""Complaints that came outside of all blocks of :func:`watched`, after the first."""


@contextmanager
def watched() -> Iterator[None]:
    """Raise :class:`BrokenMeasurement` at the end of the block if the kernel has complained within it.

    What the log has said from the complaint on goes to standard error. An error of the block itself is quoted.
    """
    global _log
    if not os.access(LOG, os.R_OK):  # a kernel without printk
        yield
        return
    if _log is None:
        _log = KernelLog()
    _between.extend(_log.complaints())  # of no scenario, such as while a kept lab was removed
    try:
        yield
    except HarnessError as error:
        _refuse(_log.complaints(), f"{error}; ")
        raise
    _refuse(_log.complaints())


def between() -> list[str]:
    """What the kernel complained of outside of all blocks of :func:`watched` since the first, as the log has it."""
    return [*_between, *(_log.complaints() if _log else ())]


def _refuse(complaints: list[str], before: str = "") -> None:
    if complaints:
        print(lines("\n".join(["the kernel's log:", *complaints])), file=sys.stderr)  # pytest shows it with the error
        raise BrokenMeasurement(f"{before}the guest's kernel complained: {complaints[0]}")
