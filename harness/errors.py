"""The ways a run can end badly, kept apart from the first line to the exit code.

::

    HarnessError            a sentence for the user; never shown as a traceback
    ├── ScenarioError       what the user wrote is wrong: file:line:col, sentence, remedy
    ├── Unsupported         this machine or kernel cannot do it: reason, remedy
    └── BrokenMeasurement   something could not be observed, so nothing can be concluded

A ruleset that does not do what was expected is no exception but data: see
:mod:`harness.judge`.
"""

from __future__ import annotations

import copyreg
import errno
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Self, TypeVar

from harness.text import escape

NO_MEMORY = "this process may not have more memory"
MORE_MEMORY = "raise its limit (ulimit -v) or that of its cgroup, or free some"
"""The sentence for memory that cannot be had, and the remedy."""
SHORTAGES = {
    errno.ENOMEM: (NO_MEMORY, MORE_MEMORY),
    errno.ENOBUFS: ("the kernel has no room for what was asked of it", "raise net.core.rmem_max and wmem_max"),
    errno.EMFILE: ("this process may not open more files", "raise its limit: ulimit -n 1024"),
    errno.ENFILE: ("all processes together may not open more files", "raise fs.file-max"),
    errno.ENOSPC: ("no space left on device", ""),
}
"""By what the kernel says: a sentence and a remedy."""
_PRINTED = {
    errno.ENOMEM: re.compile(
        r"MemoryError|(?i:out of memory|memory allocation failure|cannot allocate memory)|bad_alloc"
        r"|failed to map segment from shared object|cannot map zero-fill pages"  # ld.so(8)
    ),
    errno.EMFILE: re.compile(r"Too many open files(?! in system)"),
    errno.ENFILE: re.compile(r"Too many open files in system"),
}
"""What programs print that have too little of something."""
_NO_FRAME = re.compile("returned NULL without setting an exception|error return without exception set")
"""What Python 3.11 says where it gets no memory to call a function, or in its evaluation loop (Python/ceval.c)."""
KILLED = "as the kernel ends a process when memory is short"
"""Why a process was killed that nobody here has killed."""


class Position(NamedTuple):
    """A place in a text file; ``line`` and ``column`` count from 1, 0 means "the whole file"."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        numbers = [str(n) for n in (self.line, self.column) if n]
        return ":".join([self.file, *numbers])


class HarnessError(Exception):
    """A sentence for the user and, where there is one, what to do about it; as text it is one line, escaped."""

    def __init__(self, sentence: str, *, remedy: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.others: tuple[Self, ...] = ()
        """Further mistakes in the same place, found with this one."""

    @property
    def each(self) -> tuple[Self, ...]:
        """This mistake and the others found with it, each a sentence of its own."""
        return (self, *self.others)

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is unpickled by calling its class with its args; these classes take more arguments than that.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return escape(f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence)


def shortage(error: BaseException) -> HarnessError | None:
    """What this machine has too little of, where that is what ``error`` says: no fault of a program's."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or (isinstance(error, SystemError) and _NO_FRAME.search(str(error))):
        number = errno.ENOMEM
    found = SHORTAGES.get(number or 0)
    if found is None:
        return None
    file = error.filename if isinstance(error, OSError) else None
    return HarnessError(f"{file}: {found[0]}" if file else found[0], remedy=found[1])


def shortage_in(printed: str) -> HarnessError | None:
    """The same where that is what a program has ``printed`` before it failed."""
    number = next((number for number, pattern in _PRINTED.items() if pattern.search(printed)), None)
    return HarnessError(SHORTAGES[number][0], remedy=SHORTAGES[number][1]) if number else None


class ScenarioError(HarnessError):
    """The scenario, its lab or its ruleset is wrong at ``position``."""

    def __init__(self, sentence: str, position: Position, *, remedy: str = "") -> None:
        super().__init__(sentence, remedy=remedy)
        self.position = position

    def __str__(self) -> str:
        return f"{escape(str(self.position))}: {super().__str__()}"


class Unsupported(HarnessError):
    """This machine or its kernel lacks what was asked for."""


def short_of(error: Unsupported) -> BrokenMeasurement | None:
    """The other error where this machine refused only because it had too little of something: it says nothing about
    what the machine can do."""
    found = shortage(error.__context__) if error.__context__ else None
    return BrokenMeasurement(f"{error.sentence}: {found.sentence}", remedy=found.remedy) if found else None


class BrokenMeasurement(HarnessError):
    """Events were lost, or two oracles disagree: neither passed nor failed."""


_E = TypeVar("_E", bound=HarnessError)


def together(errors: Iterable[_E]) -> _E:
    """The first of ``errors``, which are one or more, with the others as :attr:`HarnessError.others`."""
    first, *more = [one for error in errors for one in apart(error)]
    first.others = tuple(more)
    return first


def apart(error: _E) -> tuple[_E, ...]:
    """``error`` and the others found with it, each by itself."""
    found = error.each
    error.others = ()
    return found
