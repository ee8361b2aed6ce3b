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
from harness.model.fields import Keys
from harness.model.mismatch import Mismatch
from harness.reading.decision import Outcome, outcome
from harness.reading.words import describe_loss, describe_step
from harness.scenario.case import Broken, Case
from harness.scenario.files import shortened
from harness.text import escape

if TYPE_CHECKING:
    from harness.experiment.run import Measurement


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
    measurements: tuple[Measurement, ...] = ()
    mismatches: list[tuple[Mismatch, ...]] = field(default_factory=list)
    """Of each of the measurements."""
    failure: Failure | None = None
    seconds: float = 0.0
    """From its lab to its judgement."""

    def forget(self) -> None:
        """Forget what became of it: pytest keeps its items until the session ends."""
        self.failure, self.measurements, self.mismatches = None, (), []


def differing(case: Case, measurement: Measurement) -> tuple[Mismatch, ...]:
    """Everything in which a packet of ``case`` differs from what is expected of it.

    Raises :class:`~harness.errors.BrokenMeasurement` where it may only do so because the machine was slow.
    """
    from harness.judge.expectations import judge  # the controller judges nothing
    from harness.judge.lateness import refuse_late

    def at(keys: Keys) -> Position:
        return case.where(measurement.action, *measurement.keys, *keys[1:])

    found = judge(
        measurement.expect,
        measurement.observation,
        measurement.packet,
        at=at,
        rules=measurement.ruleset.rules,
        policies=measurement.ruleset.policies,
    )
    if found:
        refuse_late(measurement.evidence, measurement.pace, measurement.ruleset.limits)
    return tuple(msgspec.structs.replace(one, keys=(*measurement.keys, *one.keys[1:])) for one in found)


def failure_of(
    case: Case, measurements: Sequence[Measurement], found: Sequence[tuple[Mismatch, ...]], *, colour: bool
) -> Failure | None:
    """The failure of a step by the mismatches ``found`` of each of its packets; None when there is none."""
    wrong = [number for number, mismatches in enumerate(found) if mismatches]
    if not wrong:
        return None
    from harness.report.terminal import explain  # expensive to import under emulation, and mostly not needed

    measurement, mismatches = measurements[wrong[0]], found[wrong[0]]
    text = explain(
        case.name,
        mismatches[0].position,
        measurement.summary,
        measurement.evidence,
        mismatches,
        others=wrong[1:],
        colour=colour,
    )
    return Failure(text, mismatches[0].position, _summary(mismatches))


def _summary(mismatches: tuple[Mismatch, ...]) -> str:
    first = mismatches[0]
    more = f", and {len(mismatches) - 1} more" if len(mismatches) > 1 else ""
    return escape(f"{first.key}: expected {first.expected}, seen {first.seen}{more}")


def properties(measurements: tuple[Measurement, ...]) -> Iterator[tuple[str, object]]:
    """What JUnit's readers see of a scenario: verdict, rule, kernel and loss, step by step."""
    outcomes = [decided(measurement) for measurement in measurements]
    steps: Mapping[str, list[str]] = {
        "nft.verdict": [str(one) for one in outcomes if one],
        "nft.rule": [escape(describe_step(step)) for one in outcomes if one for step in one.deciding],
        "nft.kernel": list(dict.fromkeys(measurement.observation.kernel for measurement in measurements)),
        "nft.loss": [describe_loss(measurement.observation.loss) for measurement in measurements],
    }
    yield from ((name, "; ".join(values)) for name, values in steps.items() if values)


def paths(trial: Trial) -> str:
    """The way that each packet took, in a few lines."""
    from harness.report.terminal import outline

    outlines = (
        outline(measurement.observation, measurement.packet, colour=trial.colour) for measurement in trial.measurements
    )
    runs = [(text, len(list(same))) for text, same in itertools.groupby(outlines)]
    return "\n".join(text if count == 1 else f"{text}\n  {count} packets went the same way" for text, count in runs)


def notes(trial: Trial) -> Iterator[tuple[str, str]]:
    """Notes on the rulesets, whatever the outcome: file and sentence."""
    if isinstance(trial.case, Case):
        file = str(shortened(trial.case.rulesets[trial.case.network.device].paths[0]))
        yield from ((file, note) for measurement in trial.measurements for note in measurement.notes)


def decided(measurement: Measurement) -> Outcome | None:
    """What the ruleset decided; None when the oracles disagree about that."""
    try:
        return outcome(measurement.packet, measurement.observation.device)
    except BrokenMeasurement:
        return None
