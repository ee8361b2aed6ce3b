"""What is wrong with a value of a scenario, before its place in the file is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from harness.errors import HarnessError, Position, ScenarioError, together


class Problem(HarnessError):
    """A sentence about the value below ``keys``, e.g. ``("send", "tcp", "dport")``.

    Code that has values but no file raises it; :mod:`harness.scenario.load`, which has the file,
    makes it a :class:`~harness.errors.ScenarioError`.
    """

    def __init__(
        self, sentence: str, *keys: str | int, remedy: str = "", about_key: bool = False, offset: int = 0
    ) -> None:
        super().__init__(sentence, remedy=remedy)
        self.keys = keys
        self.about_key = about_key
        """Whether the last key itself is wrong, not its value."""
        self.offset = offset
        """Where in the value, when it is a text: characters before the place."""

    def below(self, *keys: str | int) -> Problem:
        """The same problem, and those found with it, seen from further out."""
        return together([one._with(*keys, *one.keys) for one in self.each])

    def inside(self, depth: int) -> Problem:
        """The same problem, seen from ``depth`` keys further in."""
        return self._with(*self.keys[depth:])

    def _with(self, *keys: str | int) -> Problem:
        return type(self)(self.sentence, *keys, remedy=self.remedy, about_key=self.about_key, offset=self.offset)

    def at(self, position: Position) -> ScenarioError:
        """The same sentence with its place in a file, the keys before it: ``expect.path[2]: …``."""
        keys = self.keys[:-1] if self.about_key else self.keys
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        return ScenarioError(f"{name}: {self.sentence}" if name else self.sentence, position, remedy=self.remedy)


class Problems:
    """Collects the problems of parts that do not depend on each other, to raise them together."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the :class:`Problem` that the block raises; what follows the block runs."""
        try:
            yield
        except Problem as problem:
            self._found.append(problem)

    def refuse(self) -> None:
        """Raise what was collected, as :func:`harness.errors.together` does; nothing if there is none."""
        if self._found:
            raise together(self._found)


class NothingExpected(Problem):
    """Nothing is expected of a packet: what ``--nft-record`` repairs."""


def unknown(word: str, names: Iterable[str], noun: str, *keys: str | int) -> Problem:
    """``word`` names nothing; the remedy is the nearest of ``names``, or all of them."""
    article = "an" if noun[0] in "aeiou" else "a"
    return Problem(f"'{word}' is not {article} {noun}", *keys, remedy=did_you_mean(word, names))


def nowhere(text: str, hosts: Iterable[str], *keys: str | int) -> Problem:
    """``text`` is neither one of ``hosts`` nor an address; what looks like an address was meant as one."""
    for version, looks in ((4, r"\d+(\.\d+)+(/\d+)?"), (6, r"[\da-fA-F:.%/]*:.*")):
        if re.fullmatch(looks, text):
            return Problem(f"'{text}' is not a valid IPv{version} address", *keys)
    sentence = f"'{text}' is neither a host of the lab nor an address"
    return Problem(sentence, *keys, remedy=did_you_mean(text, hosts))


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """A remedy: the nearest of ``names``, or all of them when none is near."""
    names = list(names)
    if near := nearest(word, names):
        return f"did you mean '{near}'?"
    return f"it can be {one_of(names)}" if names else ""


def nearest(word: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """The nearest of ``names``; "" when none is near, by the ratio ``cutoff`` of :class:`difflib.SequenceMatcher`."""
    import difflib  # only for a mistake: an import costs much in the microVM

    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else ""


def one_of(names: Iterable[str], word: str = "or") -> str:
    """``a, b or c``."""
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last
