"""What is wrong with a value of a scenario, before its place in the file is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from harness.errors import HarnessError, Position, ScenarioError


class Problem(HarnessError):
    """A sentence about the value below ``keys``, e.g. ``("send", "tcp", "dport")``.

    Code that has values but no file raises it; :mod:`harness.scenario.load`, which has the file,
    makes it a :class:`~harness.errors.ScenarioError`.
    """

    def __init__(self, sentence: str, *keys: str | int, remedy: str = "") -> None:
        super().__init__(sentence, remedy=remedy)
        self.keys = keys

    def at(self, position: Position) -> ScenarioError:
        """The same sentence with its place."""
        return ScenarioError(self.sentence, position, remedy=self.remedy)


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(word: str, names: Iterable[str], otherwise: str = "") -> str:
    """A remedy: the nearest of ``names``, or ``otherwise`` when none is near."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean '{by_lower[near[0]]}'?" if near else otherwise
