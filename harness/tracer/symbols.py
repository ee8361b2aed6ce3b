"""The kernel's functions by address, from ``/proc/kallsyms``."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_FUNCTION = re.compile(rb"^([0-9a-f]{16}) [tTwW] ([^\t\n]+)(\t?)", re.MULTILINE)


class Symbols:
    """Functions by address; ``text`` is the content of ``/proc/kallsyms`` while ``modules`` were loaded.

    There are 60,000: they are kept as a few large objects, since a template takes them to the disk.
    """

    def __init__(self, text: bytes, modules: Sequence[str] = ()) -> None:
        self._modules = list(modules)
        found = sorted((int(one[1], 16), one.start(2), not one[3]) for one in _FUNCTION.finditer(text))
        self._addresses = array("Q", (address for address, _, _ in found))
        names = [text[start : text.find(b"\n", start)].partition(b"\t")[0] for _, start, _ in found]
        self._ends = array("I", [0])
        for name in names:
            self._ends.append(self._ends[-1] + len(name))
        self._names = b"".join(names)
        own = [address for address, _, is_own in found if is_own] or [0]
        self._first, self._last = own[0], own[-1]

    @classmethod
    def read(cls) -> Self:
        """Of the running kernel."""
        return cls(Path("/proc/kallsyms").read_bytes(), _modules())

    def range(self, name: str) -> tuple[int, int]:
        """Address of a function, and of the one after it; zeros when there is no such function."""
        for index in range(len(self._addresses) - 1):
            if self._name(index) == name:
                return self._addresses[index], self._addresses[index + 1]
        return 0, 0

    def know(self, address: int) -> bool:
        """Whether ``address`` is in the kernel itself, or no module has come or gone since."""
        return self._first <= address <= self._last or self._modules == _modules()

    def name(self, address: int) -> str:
        """Name of the function that contains ``address``; "" for an address below the first."""
        index = bisect_right(self._addresses, address) - 1
        return self._name(index) if index >= 0 else ""

    def _name(self, index: int) -> str:
        return self._names[self._ends[index] : self._ends[index + 1]].decode()


def _modules() -> list[str]:
    """The kernel's modules, those that are built in included."""
    return [path.name for path in Path("/sys/module").iterdir()]
