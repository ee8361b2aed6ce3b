"""Waiting for a fact, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.errors import BrokenMeasurement

PAUSE_S = 0.0005
"""Between two looks, seconds; it doubles up to ``LONGEST_PAUSE_S`` while nothing happens."""
LONGEST_PAUSE_S = 0.02


def wait_until(fact: Callable[[], object], deadline_s: float, what: str) -> None:
    """Return as soon as ``fact()`` is true.

    ``what`` finishes the sentence "waited 2 s for …". Raises
    :class:`~harness.errors.BrokenMeasurement` when ``deadline_s`` seconds have passed.
    """
    give_up = time.monotonic() + deadline_s
    pause = PAUSE_S
    while not fact():
        if time.monotonic() >= give_up:
            raise BrokenMeasurement(f"waited {deadline_s:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
