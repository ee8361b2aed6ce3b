"""Opening and reading of untrusted files: scenario files, labs, rulesets, captures, results.

Each is opened here and nowhere else. Only a regular file is opened: to open a FIFO waits for its other end, a
device may do anything, and neither has a size. What counts is the file that is really opened, behind all symbolic
links, and the same descriptor is then read. What is made of the content goes through :func:`boundary`.
"""

from __future__ import annotations

import ast
import lzma
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from harness.errors import HarnessError

_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


class Malformed(HarnessError):
    """Content that is not what it should be."""


PIECE: Final = 1 << 16
"""Bytes that are read at once of a file beyond its size: it has grown, or its file system reports none, as /proc."""

_UNEXPECTED: Final = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError),
    *(RecursionError, StopIteration, TypeError, ValueError, struct.error, zlib.error, lzma.LZMAError),
)
"""What code raises that is given a value it was not written for."""


@contextmanager
def boundary(sentence: str, *, remedy: str = "") -> Iterator[None]:
    """Within, untrusted content is parsed: whatever exception it provokes becomes :class:`Malformed`.

    ``sentence`` says what is wrong with the content as a whole. Errors that are sentences pass.
    """
    try:
        yield
    except _UNEXPECTED as error:
        raise Malformed(sentence, remedy=remedy) from error


def syntax_tree(text: str, mode: str = "exec") -> ast.AST:
    """The syntax tree of Python source, which is never run; what Python would warn of is not printed.

    Raises what :func:`ast.parse` does: :class:`SyntaxError`, :class:`ValueError`, :class:`MemoryError` and
    :class:`RecursionError`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode=mode)


class Unreadable(HarnessError):
    """A file that is not read; the sentence lacks its subject, which is the file: ``cannot be read: is a FIFO``."""


class TooLarge(Unreadable):
    """A file that has more bytes than it may have."""


def read(path: Path, limit: int, *, allowed: Callable[[Path], bool] | None = None) -> bytes:
    """The content of the regular file ``path``, of ``limit`` bytes at most.

    ``allowed`` is asked for the path of the file that was really opened, absolute and without symbolic links;
    None allows any. Raises :class:`Unreadable`.
    """
    with opened(path, limit, allowed=allowed) as file:
        try:
            data = _content(file, limit + 1)
        except OSError as error:
            raise Unreadable(_reason(error)) from None
    if len(data) > limit:
        raise _too_large(limit)
    return data


def _content(file: BinaryIO, most: int) -> bytes:
    """What ``file`` holds, up to ``most`` bytes; ``read(most)`` would allocate all of them, however few there are."""
    parts = [file.read(min(os.fstat(file.fileno()).st_size, most))]
    most -= len(parts[0])
    while part := file.read(min(most, PIECE)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)  # of a single one no copy is made


def read_lines(path: Path, limit: int, whole: int) -> Iterator[bytes]:
    """The lines of the regular file ``path``, each of ``limit`` bytes at most and ``whole`` together; in memory is one.

    Raises :class:`Unreadable`.
    """
    with opened(path, whole) as file:
        try:
            while line := file.readline(limit + 1):
                if len(line) > limit:
                    raise TooLarge(f"has a line that {_too_large(limit)}")
                yield line
        except OSError as error:
            raise Unreadable(_reason(error)) from None


def read_text(path: Path, limit: int, *, allowed: Callable[[Path], bool] | None = None) -> str:
    """The same as text; bytes that are not UTF-8 become surrogates, which :func:`os.fsencode` turns back."""
    return read(path, limit, allowed=allowed).decode(errors="surrogateescape")


def opened(path: Path, limit: int, *, allowed: Callable[[Path], bool] | None = None) -> BinaryIO:
    """The regular file ``path``, open for reading; the same as :func:`read` otherwise.

    A descriptor of kind ``O_PATH`` (open(2)) names a file without opening it. What it is and where it lies is
    asked of that descriptor, and then the same file is opened by it, so that nobody can exchange it in between.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(_reason(error)) from None
    except ValueError:  # a NUL character, or half of one of UTF-16
        raise Unreadable("has a name that no file can have") from None
    try:
        about = os.fstat(place)
        if not stat.S_ISREG(about.st_mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(about.st_mode)), "no file")
            raise Unreadable(f"cannot be read: is {kind}")
        if about.st_size > limit:
            raise _too_large(limit)
        link = f"/proc/self/fd/{place}"
        if allowed is not None and not allowed(real := Path(os.readlink(link))):  # noqa: PTH115 - it is the kernel's
            raise Unreadable(f"is a symbolic link to {real}, outside of the project")
        return os.fdopen(os.open(link, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise Unreadable(_reason(error)) from None
    finally:
        os.close(place)


def _too_large(limit: int) -> TooLarge:
    size = next(
        (f"{limit >> bits} {unit}" for bits, unit in ((20, "MiB"), (10, "KiB")) if limit >> bits), f"{limit} bytes"
    )
    return TooLarge(f"is larger than {size}")


def _reason(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
