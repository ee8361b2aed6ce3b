"""What a command writes to a file that an option names, or to standard output for ``-``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write ``text`` to ``path``. Raises :class:`~harness.errors.HarnessError` where that cannot be done."""
    from harness.save import save

    if str(path) == "-":
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        save(path, text)
    except OSError as error:
        raise HarnessError(f"{path} can't be written: {error.strerror}") from None
