"""Which part of the network stack a kernel function belongs to, and how relevant it is.

All knowledge is in ``layers.txt`` beside this file, with its format.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

UNKNOWN = "Unknown"
"""The layer of a function that no line of the file names."""

CRITICAL, IMPORTANT, OTHER = range(3)
"""Priorities; a function that is not in the file is OTHER."""

_TEXT = Path(__file__).with_name("layers.txt").read_text()

EDITION = f"{zlib.crc32(_TEXT.encode()):08x}"
"""Changes whenever the file does."""


class Classification(NamedTuple):
    """Where a function stands."""

    layer: str
    priority: int


class _Rules:
    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.whole: dict[str, Classification] = {}
        self.starred: dict[str, list[tuple[str, Classification]]] = {}
        """Text before the star → texts after it, longest first."""
        for line in text.splitlines():
            if line.startswith("  "):
                priority, *patterns = line.split()
                place = Classification(self.names[-1], int(priority))
                for pattern in patterns:
                    before, star, after = pattern.partition("*")
                    if star:
                        self.starred.setdefault(before, []).append((after, place))
                    else:
                        self.whole[pattern] = place
            elif line and not line.startswith("#"):
                self.names.append(line.partition(":")[0])
        for afters in self.starred.values():
            afters.sort(key=lambda entry: -len(entry[0]))

    def place(self, name: str) -> Classification:
        if place := self.whole.get(name):
            return place
        for length in range(len(name), -1, -1):
            for after, place in self.starred.get(name[:length], ()):
                if name.endswith(after, length):
                    return place
        return Classification(UNKNOWN, OTHER)


_rules = _Rules(_TEXT)

NAMES: tuple[str, ...] = tuple(_rules.names)
"""All layers but :data:`UNKNOWN`, about in the order in which a packet meets them."""


@cache
def classify(function: str) -> Classification:
    """Layer and priority of a function, by its name with or without compiler suffixes."""
    return _rules.place(function.partition(".")[0].lstrip("_"))


def layer(function: str) -> str:
    """One of :data:`NAMES`, or :data:`UNKNOWN`."""
    return classify(function).layer


def priority(function: str) -> int:
    """CRITICAL, IMPORTANT or OTHER."""
    return classify(function).priority
