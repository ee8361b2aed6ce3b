"""The results of a run, in a temporary file: reports are made of them one at a time.

In memory a result takes some 100 KB, and a run may have ten thousand.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import msgspec

from harness.errors import HarnessError
from harness.model.result import Result, RulesetPlan, order, read


def load(paths: Iterable[Path]) -> StoredResults:
    """Read stored results from files and folders, in the order of their scenario files.

    Raises :class:`~harness.errors.HarnessError` for a file that is none, for a folder without any, and for a full disk.
    """
    results = StoredResults(read(paths))
    results.sort()
    return results


class _Place(NamedTuple):
    """Where a result stands in the file."""

    order: tuple[str, int, str]
    start: int
    length: int
    ruleset: int | None
    """The number of its ruleset; None where it has none."""
    rulesets: tuple[int | None, ...]
    """The same of each of its packets."""


class StoredResults(Sequence[Result]):
    """Results that are kept on disk; in memory is where they stand, and each ruleset once.

    The file has no name, so nothing is left of it, however the process ends.
    """

    def __init__(self, results: Iterable[Result] = ()) -> None:
        """Raises :class:`~harness.errors.HarnessError` as :meth:`add` does."""
        self._file = tempfile.TemporaryFile(prefix="nft-harness-")  # noqa: SIM115 - as long as the object
        self._end = 0
        self._places: list[_Place] = []
        self._rulesets: list[RulesetPlan] = []
        self._numbers: dict[bytes, int] = {}
        """Of the rulesets, by their content."""
        for one in results:
            self.add(one)

    def add(self, result: Result) -> None:
        """Keep ``result`` behind the others.

        Raises :class:`~harness.errors.HarnessError` where the disk is full; the others are still there.
        """
        sent = tuple(msgspec.structs.replace(one, ruleset=None) for one in result.sent)
        data = msgspec.msgpack.encode(msgspec.structs.replace(result, ruleset=None, sent=sent))
        self._write(data)
        rulesets = tuple(self._number(one.ruleset) for one in result.sent)
        self._places.append(
            _Place(
                order(result),
                self._end,
                len(data),
                self._number(result.ruleset),
                rulesets if any(one is not None for one in rulesets) else (),
            )
        )
        self._end += len(data)

    def sort(self) -> None:
        """Have them in the order of their scenario files, one kernel after the other."""
        self._places.sort(key=lambda place: place.order)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        if isinstance(index, slice):
            return list(map(self._read, self._places[index]))
        return self._read(self._places[index])

    def __iter__(self) -> Iterator[Result]:
        return map(self._read, self._places)

    def _number(self, ruleset: RulesetPlan | None) -> int | None:
        if ruleset is None:
            return None
        content = hashlib.sha256(msgspec.msgpack.encode(ruleset)).digest()
        if (number := self._numbers.get(content)) is None:
            number = len(self._rulesets)
            self._rulesets.append(ruleset)
            self._numbers[content] = number  # last: memory may run out before
        return number

    def _write(self, data: bytes) -> None:
        left, at = memoryview(data), self._end
        try:
            while left:
                written = os.pwrite(self._file.fileno(), left, at)
                left, at = left[written:], at + written
        except OSError as error:
            raise HarnessError(
                f"results can't be kept in {tempfile.gettempdir()}: {error.strerror}",
                remedy="make room there, or name another folder by TMPDIR",
            ) from None

    def _read(self, place: _Place) -> Result:
        result = msgspec.msgpack.decode(os.pread(self._file.fileno(), place.length, place.start), type=Result)
        if place.ruleset is None:
            return result
        sent = result.sent
        if place.rulesets:
            sent = tuple(
                one if number is None else msgspec.structs.replace(one, ruleset=self._rulesets[number])
                for one, number in zip(sent, place.rulesets, strict=True)
            )
        return msgspec.structs.replace(result, ruleset=self._rulesets[place.ruleset], sent=sent)
