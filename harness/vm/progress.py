"""Progress of long operations, reported to a callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Progress = Callable[[str, float | None], None]
"""Called with the step ("downloading Linux 6.12.107") and its percentage, None where there is none."""


def silent(step: str, percent: float | None) -> None:
    """Show nothing."""


@contextmanager
def shown(stream: TextIO) -> Iterator[Progress]:
    """Give a :data:`Progress` that writes to ``stream``.

    A terminal gets one line per step with a running percentage, anything else (a log of a CI
    machine) one plain line per step.
    """
    terminal = stream.isatty()
    current = ""

    def show(step: str, percent: float | None) -> None:
        nonlocal current
        if terminal:
            if current and step != current:
                stream.write("\n")
            stream.write(f"\r\x1b[K{step}" + ("" if percent is None else f": {percent:.0f} %"))
        elif step != current:
            stream.write(f"{step}\n")
        current = step
        stream.flush()

    try:
        yield show
    finally:
        if terminal and current:
            stream.write("\n")
