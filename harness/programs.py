"""Programs that a user names, to be started: whether a shell could."""

from __future__ import annotations

import os
import shutil
from typing import Final

from harness.errors import HarnessError

NOT_EXECUTABLE: Final = 126
"""A shell's exit status for a command that it may not execute."""
NOT_FOUND: Final = 127
"""A shell's exit status for a command that it does not find."""


class NotRunnable(HarnessError):
    """A program that cannot be started."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status
        """A shell's: 127 for one that is not found, 126 for one that may not be executed."""


def refuse_not_runnable(program: str, path: str | None = None) -> None:
    """Raise :class:`NotRunnable` where a shell could not start ``program``, looked for in ``path`` (default: $PATH).

    Source: POSIX.1-2017, XCU 2.8.2, "Exit Status for Commands".
    """
    if shutil.which(program, path=path):
        return
    folders = [""] if "/" in program else (path or os.environ.get("PATH", os.defpath)).split(os.pathsep)
    found = next((one for one in (os.path.join(folder, program) for folder in folders) if os.path.exists(one)), "")  # noqa: PTH110, PTH118
    if found and program:
        why = "is a directory" if os.path.isdir(found) else "is not executable"  # noqa: PTH112
        raise NotRunnable(f"{program}: {why}", NOT_EXECUTABLE)
    raise NotRunnable(f"{program}: command not found" if program else "the command is empty", NOT_FOUND)
