"""From when on time itself decides about a packet: limits regain tokens, and elements of sets expire.

A limit is a bucket of tokens that begins full and is filled again at its rate (net/netfilter/nft_limit.c). What
it has enough tokens for, it lets by however long the packets before have taken; of what it has not, time decides once
the missing tokens may be back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.batch.messages import Timed
from harness.batch.reached import Statements
from harness.model.observation import Rule, Step
from harness.reading.elements import plain
from harness.reading.limits import Limit, limits_of, recent
from harness.ruleset import listing

if TYPE_CHECKING:
    from harness.ruleset.load import Ruleset

_LIMITS_OF_XT: Final = re.compile(r"(?<!\S)(?:-m|--match) (?:hashlimit|rateest)\b")
_SET: Final = re.compile(r"@(?P<name>[A-Za-z][\w./-]*)")

TICK_S: Final = 0.01
"""Seconds that an element may expire early, as the kernel counts its time in ticks of its clock (``CONFIG_HZ``), of
which it has at least 100 a second."""


def timed(ruleset: Ruleset) -> Timed:
    """What a loaded ruleset has besides its rules that depends on time."""
    from harness.ruleset import state

    timeouts = listing.timeouts(ruleset.listed)
    loaded = state.loaded_timeouts(ruleset.nft, timeouts)
    elements = {name: [*([listing.seconds(usual)] if usual else []), *loaded[name]] for name, usual in timeouts.items()}
    return Timed(
        limits=ruleset.limits,
        elements={name: min(several) for name, several in elements.items() if several},
        loaded=min((seconds for several in loaded.values() for seconds in several), default=None),
    )


class _Dependent(NamedTuple):
    """What a rule has that depends on time."""

    limits: tuple[tuple[str, Limit], ...]
    """Each with a name that is the same for all rules which share its tokens."""
    lasts: float
    """Seconds that the elements which it looks for stay at least."""


class Timing:
    """Follows a packet and those before it through ``rules``; they began when the ruleset was as just loaded."""

    def __init__(self, rules: Iterable[Rule], timed: Timed) -> None:
        self._limits = timed.limits
        self._stays = dict(timed.elements)
        rules = tuple(rules)
        for rule in rules:
            for one, seconds in listing.added(plain(rule.text)):
                name = f"{rule.family} {rule.table} {one}"
                self._stays[name] = min(self._stays.get(name, inf), seconds)
        self._statements = Statements(rules, self._dependent)
        self._tokens: dict[str, float] = {}
        self._certain = inf

    def begin(self) -> None:
        """The next packet is the first of others, and the ruleset as just loaded."""
        self._tokens.clear()
        self._certain = inf

    def certain(self, steps: Sequence[Step], sizes: Sequence[int]) -> float:
        """Seconds from the first packet on within which time decides nothing about the next packets; ``inf`` if it
        never does.

        They are of ``sizes`` bytes and have these ``steps``, together with their answers. What they may have come to
        counts as if they had: more tokens than are thought are left at most.
        """
        if not self._statements.chains:
            return inf
        size = max(sizes, default=0)
        for one in self._statements.reached(steps):
            self._certain = min(self._certain, one.lasts, *(self._taken(*limit, size) for limit in one.limits))
        return self._certain

    def _taken(self, key: str, limit: Limit, size: int) -> float:
        """Seconds after which ``limit`` may have the tokens that a packet lacks; it takes those that are there."""
        cost = size if limit.bytes else 1
        left = self._tokens.get(key, limit.burst)
        if left >= cost:
            self._tokens[key] = left - cost
            return inf
        return (cost - left) * limit.token

    def _dependent(self, rule: Rule) -> Iterator[tuple[str, _Dependent]]:
        text, table = plain(rule.text), f"{rule.family} {rule.table}"
        limits = limits_of(rule, self._limits)
        named = ((found.start(), f"{table} {found['name']}") for found in _SET.finditer(text))
        stays = [(at, self._stays[name]) for at, name in named if name in self._stays]
        if rule.written.startswith("-"):
            stays += ((0, seconds) for seconds in recent(rule))
            stays += ((0, 0.0) for _ in _LIMITS_OF_XT.finditer(rule.written) if not limits)
        if limits or stays:
            first = min([len(one.before) for one in limits] + [at for at, _ in stays])
            lasts = max(min((seconds for _, seconds in stays), default=inf) - TICK_S, 0.0)
            shared = [one.name or one.set for one in limits]
            keys = [
                f"{table} {name}" if name else f"{rule.place} {one.before}"
                for name, one in zip(shared, limits, strict=True)
            ]
            yield text[:first], _Dependent(tuple(zip(keys, limits, strict=True)), lasts)
