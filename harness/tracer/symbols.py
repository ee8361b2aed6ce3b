"""The kernel's functions by address, from ``/proc/kallsyms``."""

from __future__ import annotations

from bisect import bisect_right


class Symbols:
    """Functions by address; ``text`` is the content of ``/proc/kallsyms``."""

    def __init__(self, text: str) -> None:
        functions = sorted(
            (int(line[:16], 16), line[19:].partition("\t")[0]) for line in text.splitlines() if line[17] in "tTwW"
        )
        self._addresses = [address for address, _ in functions]
        self._names = [name for _, name in functions]

    def range(self, name: str) -> tuple[int, int]:
        """Address of a function, and of the one after it; zeros when there is no such function."""
        try:
            index = self._names.index(name)
        except ValueError:
            return 0, 0
        return self._addresses[index], self._addresses[index + 1]

    def name(self, address: int) -> str:
        """Name of the function that contains ``address``; "" for an address below the first."""
        index = bisect_right(self._addresses, address) - 1
        return self._names[index] if index >= 0 else ""
