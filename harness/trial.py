"""A trial: one scenario measured on one kernel, and judged.

The item of a scenario file and the fixtures of a test in Python both hold one; what the reports read is made of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from harness.errors import BrokenMeasurement, Position, ScenarioError
from harness.judge import Keys, Mismatch, Outcome, describe_loss, describe_step, judge, outcome
from harness.scenario.case import Broken, Case
from harness.text import escape

if TYPE_CHECKING:
    from harness.run import Sight


class Failure(NamedTuple):
    """What the ruleset did and should not have done."""

    text: str
    """Everything that differs, explained."""
    position: Position
    """The first expectation that was not met."""
    summary: str
    """The first difference, on one line."""


@dataclass(kw_only=True)
class Trial:
    """What is known of a scenario, and what became of it so far."""

    nodeid: str
    name: str
    """pytest's name of the scenario or test."""
    path: Path
    line: int
    """Where it begins, from 1."""
    case: Case | Broken | ScenarioError
    colour: bool
    """Whether the reader sees colours."""
    sights: tuple[Sight, ...] = ()
    mismatches: list[tuple[Mismatch, ...]] = field(default_factory=list)
    """Of each of the sights that were judged."""
    failure: Failure | None = None
    seconds: float = 0.0
    """From its lab to its judgement."""


def differing(case: Case, sight: Sight) -> tuple[Mismatch, ...]:
    """Everything in which a packet of ``case`` differs from what is expected of it."""

    def at(keys: Keys) -> Position:
        return case.where(sight.action, *sight.keys, *keys[1:])

    found = judge(sight.expect, sight.observation, sight.packet, at=at, rules=sight.ruleset.rules)
    return tuple(msgspec.structs.replace(one, keys=(*sight.keys, *one.keys[1:])) for one in found)


def failure_of(
    case: Case, sights: Sequence[Sight], found: Sequence[tuple[Mismatch, ...]], *, colour: bool
) -> Failure | None:
    """The failure of a step by the mismatches ``found`` of each of its packets; None when there is none."""
    wrong = [number for number, mismatches in enumerate(found) if mismatches]
    if not wrong:
        return None
    from harness.report.terminal import explain  # expensive to import under emulation, and mostly not needed

    sight, mismatches = sights[wrong[0]], found[wrong[0]]
    text = explain(
        case.name,
        mismatches[0].position,
        sight.summary,
        sight.expect,
        mismatches,
        sight.observation,
        sight.packet,
        rules=sight.ruleset.rules,
        network=case.network,
        others=wrong[1:],
        colour=colour,
    )
    return Failure(text, mismatches[0].position, _summary(mismatches))


def _summary(mismatches: tuple[Mismatch, ...]) -> str:
    first = mismatches[0]
    more = f", and {len(mismatches) - 1} more" if len(mismatches) > 1 else ""
    return escape(f"{first.key}: expected {first.expected}, seen {first.seen}{more}")


def properties(sights: tuple[Sight, ...]) -> Iterator[tuple[str, object]]:
    """What JUnit's readers see of a scenario: verdict, rule, kernel and loss, step by step."""
    outcomes = [decided(sight) for sight in sights]
    steps: Mapping[str, list[str]] = {
        "nft.verdict": [str(one) for one in outcomes if one],
        "nft.rule": [escape(describe_step(step)) for one in outcomes if one for step in one.deciding],
        "nft.kernel": list(dict.fromkeys(sight.observation.kernel for sight in sights)),
        "nft.loss": [describe_loss(sight.observation.loss) for sight in sights],
    }
    yield from ((name, "; ".join(values)) for name, values in steps.items() if values)


def paths(trial: Trial) -> str:
    """The way that each packet took, in a few lines."""
    from harness.report.terminal import outline

    told = (outline(sight.observation, sight.packet, colour=trial.colour) for sight in trial.sights)
    runs = [(text, len(list(same))) for text, same in itertools.groupby(told)]
    return "\n".join(text if count == 1 else f"{text}\n  {count} packets went the same way" for text, count in runs)


def decided(sight: Sight) -> Outcome | None:
    """What the ruleset decided; None when the oracles disagree about that."""
    try:
        return outcome(sight.packet, sight.observation.device)
    except BrokenMeasurement:
        return None
