"""Numbers of options, as argparse's and pytest's ``type``: each refuses what it is not for in a sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number from ``least`` to ``most``, both included; None: as large as it likes."""
    among = f"a whole number of {least:,} or more" if most is None else f"a whole number from {least:,} to {most:,}"

    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not {among}") from None
        if found < least or (most is not None and found > most):
            raise argparse.ArgumentTypeError(f"'{text}' is not {among}")
        return found

    return number


MOST_BUFFER_KIB: Final = 1 << 20
"""Size of a ring buffer, KiB; the kernel's limit is 2 GiB."""


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):  # nor is nan, which nothing is less than
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of seconds")
    return found


def percent(text: str) -> float:
    """A percentage, from 0 to 100."""
    try:
        found = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage from 0 to 100") from None
    if not 0 <= found <= 100:  # nor is nan, which nothing is less than
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage from 0 to 100")
    return found
