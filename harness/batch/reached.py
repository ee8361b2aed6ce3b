"""Which statements of a ruleset packets came to, by the steps of nf_tables' trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from harness.model.observation import Place, Rule, Step
from harness.packets.headers import fields, framed
from harness.recording.chance import excludes

What = TypeVar("What")
ChainKey = tuple[str, str, str]


class Statement(NamedTuple, Generic[What]):
    """A statement that is looked for."""

    number: int
    """The place of its rule in the chain."""
    before: str
    """The text of the rule before it, with the matches that a packet must pass."""
    what: What


class Statements(Generic[What]):
    """Statements of ``rules``, which are in nft's order: those that ``find`` finds in a rule, each with the text of
    the rule before it."""

    def __init__(self, rules: Iterable[Rule], find: Callable[[Rule], Iterable[tuple[str, What]]]) -> None:
        self._numbers: dict[Place, int] = {}
        """Of each rule, its place in its chain."""
        self._statements: dict[ChainKey, list[Statement[What]]] = defaultdict(list)
        counts: dict[ChainKey, int] = defaultdict(int)
        for rule in rules:
            chain = rule.place[:3]
            number = self._numbers[rule.place] = counts[chain]
            counts[chain] += 1
            self._statements[chain] += (Statement(number, before, what) for before, what in find(rule))
        self.chains = {chain for chain, several in self._statements.items() if several}
        """Those with such a statement."""

    def reached(self, steps: Iterable[Step]) -> Iterator[What]:
        """The statements that packets with these ``steps`` may have come to, in order.

        The trace shows no rule that did not match. A statement counts as reached unless its rule comes after the last
        one that is shown of its chain, or a match before it is for certain about other packets. It is given once for
        each time that a packet enters a base chain.
        """
        headers = b""
        given: set[tuple[ChainKey, int]] = set()
        for step in steps if self.chains else ():
            if step.headers:
                headers = step.headers
                given.clear()
            chain = (step.family, step.table, step.chain)
            if chain not in self.chains:
                continue
            last = self._numbers.get((*chain, step.rule.handle)) if step.rule else None
            packet: Mapping[str, str | int] = fields(framed(headers)) if headers else {}
            for at, one in enumerate(self._statements[chain]):
                if (last is not None and one.number > last) or (chain, at) in given:
                    continue
                given.add((chain, at))
                if not (packet and excludes(one.before, packet)):
                    yield one.what
