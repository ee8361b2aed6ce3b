"""Waiting for a fact, or for a moment that a scenario states; never for a time that should do."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.errors import BrokenMeasurement

PAUSE_S = 0.0005
"""Between two looks, seconds; it doubles up to ``LONGEST_PAUSE_S`` while nothing happens."""
LONGEST_PAUSE_S = 0.02


class TimedOut(BrokenMeasurement):
    """The deadline of :func:`wait_until` has passed."""


def wait_until(fact: Callable[[], object], deadline_s: float, what: str) -> None:
    """Return as soon as ``fact()`` is true.

    ``what`` finishes the sentence "timed out after 2 s waiting for …". Raises :class:`TimedOut` when ``deadline_s``
    seconds have passed.
    """
    give_up = time.monotonic() + deadline_s
    pause = PAUSE_S
    while not fact():
        if time.monotonic() >= give_up:
            raise TimedOut(f"timed out after {deadline_s:g} s waiting for {what}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def wait_for_turn(moment: float, meanwhile: Callable[[], object]) -> None:
    """Return at ``moment``, by :func:`time.monotonic`, or at once if that has passed.

    ``meanwhile`` is called at least once, and again and again.
    """
    meanwhile()
    while (left := moment - time.monotonic()) > 0:
        time.sleep(min(left, LONGEST_PAUSE_S))
        meanwhile()
