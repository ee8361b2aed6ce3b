"""The lines of a trace as they are printed, live or read again."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from harness.text import colour, lines
from harness.trace.lines import DROP, Line, grouped

_VERDICT = re.compile(r"\[(?P<verdict>[A-Z]+)[^\]]*\]")
_COLOURS = {"ACCEPT": "green", "DROP": "red", "REJECT": "red"}


def show(
    entries: Iterable[Line],
    finished: list[str],
    *,
    as_json: bool = False,
    by_packet: bool = False,
    coloured: bool = False,
) -> None:
    """Print ``entries``, as an object each or as lines, packet by packet or in the order of time.

    ``finished`` names packets that no line will be about any more; what was read of it is taken out.
    """
    if as_json:
        for line in entries:
            print(msgspec.json.encode(line).decode())
            finished.clear()
    elif by_packet:
        for text in grouped(entries, finished):
            print(_coloured(lines(text)) if coloured else lines(text))
    else:
        for line in entries:
            print(_coloured(lines(str(line))) if coloured else lines(str(line)))
            finished.clear()


def _coloured(text: str) -> str:
    """``text``, a line and its stack, with the verdict in colour; a line about a drop as a whole."""
    first, newline, rest = text.partition("\n")
    if first.partition("]")[2].split()[:1] == [DROP]:
        return colour("red", first) + newline + rest

    def verdict(found: re.Match[str]) -> str:
        name = _COLOURS.get(found["verdict"])
        return colour(name, found[0]) if name else found[0]

    return _VERDICT.sub(verdict, first) + newline + rest
