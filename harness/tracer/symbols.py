"""The kernel's functions by address, from ``/proc/kallsyms``.

That has 170,000 lines, which take several seconds to parse in an emulated guest. The kernel's own symbols, nearly all
of them, come first and are sorted by address (scripts/kallsyms.c): they are searched as text. Those of modules and of
BPF programs, a few thousand, follow in no order (kernel/kallsyms.c) and are parsed when one of them is asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple, Self

from harness.linux import modules
from harness.linux.modules import Module

DIGITS: Final = 16
TYPES: Final = b"tTwW"
LAST: Final = (1 << 64) - 1


class Function(NamedTuple):
    """A function of the kernel or of a module; one after another in the order of their addresses."""

    address: int
    place: int
    """Of its line in the text."""


class Symbols:
    """Functions by address; ``text`` is the content of ``/proc/kallsyms`` while ``loaded`` modules were there."""

    def __init__(self, text: bytes, loaded: Sequence[Module] = ()) -> None:
        self._text = text
        self._loaded = tuple(loaded)
        self._names: dict[int, str] = {}
        """Of the addresses that were asked for: the same ones are on most stacks."""
        of_module = text.find(b"\t[")
        self._end = text.rfind(b"\n", 0, of_module) + 1 if of_module >= 0 else len(text)
        """Where the kernel's own symbols end."""
        self._first = next(self._from(0), Function(0, 0)).address
        self._last = next(self._back_from(self._line_before(self._end)), Function(0, 0))
        """Behind it stand thousands of lines of data."""

    @classmethod
    def read(cls) -> Self:
        """Of the running kernel."""
        return cls(Path("/proc/kallsyms").read_bytes(), modules.listed())

    def range(self, name: str) -> tuple[int, int]:
        """Address of a function, and of the one after it or the last; zeros when there is no such function."""
        places = [self._text.find(b" %c %b\n" % (kind, name.encode()), 0, self._end) for kind in TYPES]
        if found := [place - DIGITS for place in places if place >= 0]:
            address = self._address(min(found))
            return address, next((one.address for one in self._from(min(found)) if one.address > address), LAST)
        for number, one in enumerate(self._of_modules):
            if self._name_of_line(one.place) == name:
                later = (after.address for after in self._of_modules[number:] if after.address > one.address)
                return one.address, next(later, LAST)
        return 0, 0

    def know(self, address: int) -> bool:
        """Whether ``address`` is in the kernel itself or in a module that was there, or no module has come or gone."""
        if self._first <= address <= self._last.address:
            return True
        now = modules.listed()
        below = [one for one in now if 0 < one.address <= address]
        return now == self._loaded or (bool(below) and max(below, key=attrgetter("address")) in self._loaded)

    def name(self, address: int) -> str:
        """Name of the function that contains ``address``; "" for an address below the first."""
        name = self._names.get(address)
        if name is None:
            name = self._names[address] = self._name_at(address)
        return name

    def _name_at(self, address: int) -> str:
        if address < self._first:
            return ""
        if address <= self._last.address:
            return self._name_of_line(next(self._back_from(self._line_of(address)), self._last).place)
        if number := bisect_right(self._of_modules, Function(address, len(self._text))):
            return self._name_of_line(max(self._of_modules[number - 1], self._last).place)
        return self._name_of_line(self._last.place)

    @cached_property
    def _of_modules(self) -> list[Function]:
        pattern = re.compile(rb"^([0-9a-f]{16}) [tTwW] ", re.MULTILINE)
        return sorted(Function(int(one[1], 16), one.start()) for one in pattern.finditer(self._text, self._end))

    def _line_of(self, address: int) -> int:
        """Place of the last line of the kernel's own with an address up to ``address``, or of the first line."""
        low, high = 0, self._end
        while True:
            middle = self._text.rfind(b"\n", low, (low + high) // 2) + 1
            if middle <= low:
                middle = self._text.find(b"\n", (low + high) // 2, high) + 1
                if not 0 < middle < high:
                    return low
            if self._address(middle) <= address:
                low = middle
            else:
                high = middle

    def _from(self, place: int) -> Iterator[Function]:
        """The kernel's own functions in the line at ``place`` and after it."""
        while place < self._end:
            if self._text[place + DIGITS + 1] in TYPES:
                yield Function(self._address(place), place)
            place = self._text.find(b"\n", place) + 1 or self._end

    def _back_from(self, place: int) -> Iterator[Function]:
        """The kernel's own functions in the line at ``place`` and before it, the last first."""
        while place >= 0:
            if self._text[place + DIGITS + 1 : place + DIGITS + 2] in TYPES and place < self._end:
                yield Function(self._address(place), place)
            place = self._line_before(place)

    def _line_before(self, place: int) -> int:
        return self._text.rfind(b"\n", 0, place - 1) + 1 if place > 0 else -1

    def _address(self, place: int) -> int:
        return int(self._text[place : place + DIGITS], 16)

    def _name_of_line(self, place: int) -> str:
        line = self._text[place : self._text.find(b"\n", place)]
        return line[DIGITS + 3 :].partition(b"\t")[0].decode()


_running: list[Symbols] = []


def running(address: int = 0) -> Symbols:
    """Those of the running kernel as last read, if they are known to be right for ``address``; else read again.

    Without an address that is so when no module has come or gone since.
    """
    if not _running or not _running[0].know(address):
        _running[:] = [Symbols.read()]
    return _running[0]
