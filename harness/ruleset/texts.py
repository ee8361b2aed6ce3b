"""The text of rulesets: the files that belong to one, and their tokens, as ``src/scanner.l`` of nftables has them."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from harness.errors import Position
from harness.untrusted import Unreadable, read_text


class UnclearError(Exception):
    """The text cannot be parsed with certainty, so positions would be unreliable."""


class Token(NamedTuple):
    """A word, a sign or the end of a line, where it stands."""

    text: str
    file: Path
    line: int
    column: int


REMEMBERED: Final = 1 << 16
"""Characters of a file up to which its tokens are remembered."""

_TOKEN = re.compile(
    r"(?P<skip>[ \t\r]+|\\\r?\n|\#[^\n]*)"  # a backslash before the end of a line continues it
    r'|(?P<token>\n|[;{}]|"[^"]*"|[^\s;{}"\#\\]+|\\)'
)


class Texts:
    """The files of a ruleset, each read once.

    ``read`` gives the text of a file, or raises :class:`~harness.untrusted.Unreadable`; ``match`` the files for the
    name in an include, in the order in which nft reads them.
    """

    def __init__(self, read: Callable[[Path], str], match: Callable[[str], list[Path]]) -> None:
        self._read = read
        self.match = functools.cache(match)
        self.texts: dict[Path, str] = {}
        """Of those that were read."""

    @classmethod
    def of_files(cls, limit: int, allowed: Callable[[Path], bool] | None) -> Texts:
        """Files of at most ``limit`` bytes, read and matched without nft; only ``allowed`` ones."""
        return cls(lambda file: read_text(file, limit, allowed=allowed), functools.partial(matching, allowed=allowed))

    def text(self, path: Path) -> str:
        """The text of ``path``. Raises :class:`~harness.untrusted.Unreadable`, also for a NUL character.

        C programs take a name, and some the whole text, to end there: it would not mean the same to all.
        """
        if path not in self.texts:
            before, nul, _ = (text := self._read(path)).partition("\0")
            if nul:
                line = before.count("\n") + 1
                raise Unreadable(f"has a NUL character in line {line}", remedy="remove it: a ruleset is text")
            self.texts[path] = text
        return self.texts[path]


def tokens(path: Path, text: str) -> Iterator[Token]:
    """The tokens of the ``text`` of ``path``, without comments, remembered for its other readers.

    Raises :class:`UnclearError` after the last one that is certain.
    """
    if len(text) > REMEMBERED:
        yield from _scan(path, text)
        return
    found, error = _scanned(path, text)
    yield from found
    if error:
        raise UnclearError(error)


@functools.lru_cache(16)
def _scanned(path: Path, text: str) -> tuple[tuple[Token, ...], str]:
    found = []
    try:
        for token in _scan(path, text):
            found.append(token)
    except UnclearError as unclear:
        return tuple(found), str(unclear)
    return tuple(found), ""


def _scan(path: Path, text: str) -> Iterator[Token]:
    line, line_start, place = 1, 0, 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise UnclearError(f"{path}:{line}")
        if found["token"] is not None:
            yield Token(found["token"], path, line, place - line_start + 1)
        if breaks := found[0].count("\n"):
            line += breaks
            line_start = place + found[0].rindex("\n") + 1
        place = found.end()
    yield Token("\n", path, line, 1)


class Include(NamedTuple):
    """An include statement: where it is written, and the name in it, seen from the root of the file system."""

    position: Position
    name: str


def includes(path: Path, texts: Texts, show: Callable[[Path], str]) -> Iterator[Include]:
    """All include statements that nft would read for ``path``, as far as the text can be followed.

    Each is given before the files that it names are read. Raises :class:`~harness.untrusted.Unreadable`.
    """
    pending = [path]
    seen: set[Path] = set()
    while pending:
        file = pending.pop()
        if file in seen:
            continue
        seen.add(file)
        found = tokens(file, texts.text(file))
        with suppress(UnclearError):
            for word, name in itertools.pairwise(found):
                if word.text == "include" and name.text.startswith('"'):
                    include = Include(Position(show(word.file), word.line, word.column), named(path.parent, name.text))
                    yield include
                    pending += texts.match(include.name)


def has_magic(name: str) -> bool:
    """Whether nft takes ``name`` for a pattern of glob(7), which may match no file."""
    return any(character in name for character in "*?[")


def fixed(name: str) -> str:
    """The part of an include's name in front of the first component that is a pattern."""
    return "/".join(itertools.takewhile(lambda one: not has_magic(one), name.split("/"))) or "/"


def matching(name: str, allowed: Callable[[Path], bool] | None = None) -> list[Path]:
    """The files for the name in an include as far as Python's glob finds them, for a look before nft reads them."""
    if allowed is not None and not allowed(Path(os.path.realpath(fixed(name)))):
        return []
    found = sorted(glob.glob(name.replace("[^", "[!")))  # noqa: PTH207 - unlike Path.glob, * leaves out hidden files
    return [Path(one) for one in found if not os.path.isdir(one)]  # noqa: PTH112


def named(folder: Path, text: str) -> str:
    """The name in an include, as seen from the root of the file system."""
    return os.path.join(folder, bare(text))  # noqa: PTH118 - a pattern keeps its ".." and its last "/"


def bare(text: str) -> str:
    """``text`` without quotes."""
    return text[1:-1] if text.startswith('"') else text
