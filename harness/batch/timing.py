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

from harness.batch.messages import Lasting
from harness.batch.reached import Statements
from harness.model.observation import Rule, Step
from harness.ruleset import listing

if TYPE_CHECKING:
    from harness.ruleset.load import Ruleset

_LIMIT: Final = re.compile(
    r"\blimit rate (?:over )?(?P<rate>\d+)(?: (?P<unit>[kmg]?bytes))?/(?P<per>second|minute|hour|day|week)\b"
    r"(?: burst (?P<burst>\d+) (?P<burst_unit>packets|[kmg]?bytes))?"
)
_NAMED: Final = re.compile(r'\blimit name "?(?P<name>[\w./-]+)')
_OF_XT: Final = re.compile(
    r"--(?:hash)?limit(?:-upto|-above)? (?P<rate>\d+)/(?P<per>s|m|h|d)\w*(?:.*?--(?:hash)?limit-burst (?P<burst>\d+))?"
)
"""As iptables writes limits; of one in bytes no rate is found, and so no time is known."""
_OTHER_XT: Final = re.compile(r"(?<!\S)(?:-m|--match) (?:hashlimit|rateest)\b")
_SECONDS_XT: Final = re.compile(r"(?<!\S)(?:-m|--match) recent\b.*--seconds (?P<seconds>\d+)")
_QUOTED: Final = re.compile(r'\s*\b(?:comment|prefix) "[^"]*"')
_SET: Final = re.compile(r"@(?P<name>[A-Za-z][\w./-]*)")
_STAYS: Final = re.compile(r"\b(?:add|update) @(?P<name>[\w./-]+) \{[^}]*?\btimeout (?P<time>[0-9dhms]+)")
_TIME: Final = re.compile(r"(\d+)(ms|d|h|m|s)")

SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
PERIODS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
BYTES: Final = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20, "gbytes": 1 << 30}
TICK_S: Final = 0.01
"""Seconds that an element may expire early, as the kernel counts its time in ticks of its clock (``CONFIG_HZ``), of
which it has at least 100 a second."""
BURST: Final = 5
"""Packets, where none is written (NFT_LIMIT_PKT_BURST_DEFAULT, XT_HASHLIMIT_BURST)."""


def lasting(ruleset: Ruleset) -> Lasting:
    """What a loaded ruleset has besides its rules that time changes."""
    from harness.ruleset import state

    timeouts = listing.timeouts(ruleset.listed)
    loaded = state.loaded_timeouts(ruleset.nft, timeouts)
    elements = {name: [*([duration(usual)] if usual else []), *loaded[name]] for name, usual in timeouts.items()}
    return Lasting(
        limits=listing.limits(ruleset.listed),
        elements={name: min(several) for name, several in elements.items() if several},
        loaded=min((seconds for several in loaded.values() for seconds in several), default=None),
    )


class Limit(NamedTuple):
    """A limit."""

    key: str
    """The same for all rules that share its tokens."""
    burst: float
    """Tokens that it begins with: packets, or bytes."""
    rate: float
    """Tokens that it gets in a second; 0 if that is not known, and then any time may be long enough."""
    is_in_bytes: bool


class _Timed(NamedTuple):
    """What a rule has that depends on time."""

    limits: tuple[Limit, ...]
    lasts: float
    """Seconds that the elements which it looks for stay at least."""


class Timing:
    """Follows a packet and those before it through ``rules``; they began when the ruleset was as just loaded."""

    def __init__(self, rules: Iterable[Rule], lasting: Lasting) -> None:
        self._lasting = lasting
        self._stays = dict(lasting.elements)
        rules = tuple(rules)
        for rule in rules:
            for found in _STAYS.finditer(_QUOTED.sub("", rule.text)):
                name = f"{rule.family} {rule.table} {found['name']}"
                self._stays[name] = min(self._stays.get(name, inf), duration(found["time"]))
        self._statements = Statements(rules, self._timed)
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
        for timed in self._statements.reached(steps):
            self._certain = min(self._certain, timed.lasts, *(self._taken(limit, size) for limit in timed.limits))
        return self._certain

    def _taken(self, limit: Limit, size: int) -> float:
        """Seconds after which ``limit`` may have the tokens that a packet lacks; it takes those that are there."""
        cost = size if limit.is_in_bytes else 1
        left = self._tokens.get(limit.key, limit.burst)
        if left >= cost:
            self._tokens[limit.key] = left - cost
            return inf
        return (cost - left) / limit.rate if limit.rate else 0.0

    def _timed(self, rule: Rule) -> Iterator[tuple[str, _Timed]]:
        text = _QUOTED.sub("", rule.text)
        table = f"{rule.family} {rule.table}"
        limits: list[tuple[int, Limit]] = []
        for found in _LIMIT.finditer(text):
            limits.append((found.start(), _limit(f"{rule.place} {found.start()}", found)))
        for found in _NAMED.finditer(text):
            key = f"{table} {found['name']}"
            known = _LIMIT.search(self._lasting.limits.get(key, ""))
            limits.append((found.start(), _limit(key, known) if known else Limit(table, 1, 0, is_in_bytes=False)))
        named = ((found.start(), f"{table} {found['name']}") for found in _SET.finditer(text))
        stays = [(at, self._stays[name]) for at, name in named if name in self._stays]
        if rule.written.startswith("-"):
            limits += ((0, one) for one in _of_iptables(rule))
            stays += ((0, float(found["seconds"])) for found in _SECONDS_XT.finditer(rule.written))
        if limits or stays:
            first = min(at for at, _ in (*limits, *stays))
            lasts = max(min((seconds for _, seconds in stays), default=inf) - TICK_S, 0.0)
            yield text[:first], _Timed(tuple(one for _, one in limits), lasts)


def _limit(key: str, found: re.Match[str]) -> Limit:
    rate = int(found["rate"]) * BYTES.get(found["unit"] or "", 1)
    burst = int(found["burst"] or (0 if found["unit"] else BURST)) * BYTES.get(found["burst_unit"] or "", 1)
    # A bucket of bytes has room for what comes in one period as well (nft_limit_init in net/netfilter/nft_limit.c).
    tokens = burst + rate if found["unit"] else burst
    return Limit(key, tokens, rate / PERIODS[found["per"]], bool(found["unit"]))


def _of_iptables(rule: Rule) -> Iterator[Limit]:
    """The limits that nft lists as ``xt match``; it lists others as its own."""
    if "xt match" not in rule.text:
        return
    if found := _OF_XT.search(rule.written):
        yield Limit(str(rule.place), int(found["burst"] or BURST), int(found["rate"]) / SECONDS[found["per"]], False)
    elif _OTHER_XT.search(rule.written):
        yield Limit(str(rule.place), 1, 0, is_in_bytes=False)


def duration(text: str) -> float:
    """Seconds of a time as nft writes it: ``1m30s500ms``."""
    return sum(int(number) * SECONDS[unit] for number, unit in _TIME.findall(text))
