"""What became of the mutants of rulesets: plain values that reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from harness.errors import Position

Status = Literal["killed", "survived", "equivalent", "unjudged", "not run"]
"""``survived``: no scenario noticed, and some packet distinguishes it from the original, or none was looked for yet;
``equivalent``: probably, as no packet that was tried distinguishes them; ``unjudged``: no scenario could be run under
it."""

STATUSES: Final = ("survived", "equivalent", "unjudged", "not run", "killed")
"""In the order in which they are shown."""


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """A packet that distinguishes a mutant from the original."""

    sends: tuple[dict[str, Any], ...]
    """As ``send`` in a scenario; the last one after those that it needs."""
    summary: str
    difference: str
    """``drop → accept``; of packets with the same verdict what differs besides."""
    details: tuple[tuple[str, str, str], ...] = ()
    """What differs besides the verdict, as it was and as it is."""
    confirmed: str = ""
    """What has confirmed it: ``functions`` or ``tracepoints``; "" where the trace and arrivals alone show it."""


class MutantResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one mutant."""

    operator: str
    what: str
    chain: str
    position: Position | None
    """Of the rule or policy that is shown; None where it was not found in a file."""
    written: str
    """What stands there."""
    texts: tuple[tuple[str, str], ...]
    """What has changed, as it was and as it is, in nft's words; "" for none."""
    status: Status
    killed_by: str = ""
    """The scenario's id, ``FILE::NAME``."""
    why: str = ""
    """What that has noticed."""
    covered_by: tuple[str, ...] = ()
    """The scenarios whose packets came to the changed place."""
    left_open: tuple[str, ...] = ()
    """Those that could not be judged under it."""
    witness: Witness | None = None
    packets: int = 0
    """How many were tried to distinguish it from the original."""

    @property
    def name(self) -> str:
        """Operator and change in a few words."""
        return self.operator if self.what == "deleted" else f"{self.operator}: {self.what}"


class RulesetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the mutants of one ruleset."""

    name: str
    kernel: str
    nft: str
    watched: str
    """What was watched of scenarios that were not sifted: an engine."""
    texts: dict[str, str]
    """The content of each file of it, by the names of positions."""
    scenarios: tuple[str, ...]
    """The ids of those that were run."""
    unused: tuple[str, ...] = ()
    """Scenarios that were not: sentences."""
    mutants: tuple[MutantResult, ...] = ()
    none: int = 0
    """Changes that nft refused, or that load to the same listing."""
    left_out: tuple[str, ...] = ()
    """What was not changed, or not tried: sentences."""
    seconds: float = 0.0
    cached: int = 0
    """Mutants of which all was known from a run before."""

    def count(self, *statuses: str) -> int:
        """How many mutants had one of these statuses."""
        return sum(one.status in statuses for one in self.mutants)

    @property
    def score(self) -> float | None:
        """Percent killed of the mutants that some packet distinguishes from the original; None where there are none."""
        return score([self])


def score(results: Iterable[RulesetResult]) -> float | None:
    """As :attr:`RulesetResult.score`, of several rulesets."""
    several = list(results)
    killed, survived = (sum(one.count(status) for one in several) for status in ("killed", "survived"))
    return 100 * killed / (killed + survived) if killed + survived else None


def shown(results: Sequence[RulesetResult], status: str) -> Iterator[tuple[RulesetResult, MutantResult]]:
    """The mutants with a status, in the order of files and lines."""
    for result in results:
        found = [one for one in result.mutants if one.status == status]
        for one in sorted(found, key=lambda one: (one.position is None, one.position or (), one.chain)):
            yield result, one
