"""The wall clock, which rules with ``meta hour``, ``meta day`` and ``meta time`` read; all namespaces share it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Self

from harness.errors import Unsupported
from harness.vm.port import in_guest


class WallClock:
    """Sets it; at the end it is restored. What the kernel measures by its monotonic clock does not change."""

    def __init__(self) -> None:
        self._ahead: int | None = None
        """How far it was ahead of the monotonic clock before it was set, nanoseconds; None while it is not set."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is not None:
            time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_MONOTONIC) + self._ahead)

    def set(self, moment: str) -> None:
        """Set it to ``moment``, written ``2026-11-27 22:30:00``, in the time zone of the machine.

        Raises :class:`~harness.errors.Unsupported` outside of a microVM, whose clock is nobody else's.
        """
        if not in_guest():
            remedy = "run it in a microVM, with --nft-kernel 6.12 for instance"
            raise Unsupported("the wall clock of this machine is not changed for a scenario", remedy=remedy)
        now = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._ahead = now if self._ahead is None else self._ahead
        time.clock_settime(time.CLOCK_REALTIME, datetime.fromisoformat(moment).timestamp())
