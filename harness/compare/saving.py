"""``diff --save``: a scenario for each change, with what the new ruleset does with its packet as expectation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.batch import drafts, saving
from harness.batch.session import BatchSession
from harness.compare.changes import Change
from harness.compare.sides import Side
from harness.errors import BrokenMeasurement, HarnessError
from harness.generate.lab import ChosenLab
from harness.generate.pool import describe_send
from harness.model.node import LineColumn, Node
from harness.pytest_plugin import kept_frames

SOURCE = "packet"


def refuse(file: Path, new: Side) -> None:
    """Raise :class:`~harness.errors.HarnessError` where no scenario can be added to ``file``, or where scenarios cannot
    name the ruleset ``new``."""
    saving.existing(file)
    if len(new.files.paths) != 1 or new.is_made:
        raise HarnessError(f"--save writes scenarios of a ruleset that is one file, and {new.name} is not")


def save(
    file: Path,
    changes: Sequence[Change],
    new: Side,
    lab: ChosenLab,
    session: BatchSession,
    progress: Callable[[str], None],
) -> None:
    """Append a scenario to ``file``, or begin it, for each of ``changes`` that is not accepted; ``progress`` says what
    was done, and why a packet has no scenario.

    Raises :class:`~harness.errors.HarnessError` where none can be written.
    """
    for change in changes:
        if change.accepted:
            continue
        nowhere = LineColumn(1, 1)
        steps = [Node.of({"send": send}, nowhere) for send in change.witness.sends]
        case = drafts.case(lab, new.files.paths, SOURCE, steps)
        (seen,) = session.run([case], kept_frames.prepare(case.sends))
        if seen.error:
            raise (BrokenMeasurement if seen.is_broken else HarnessError)(seen.error)
        words = f"{describe_send(change.witness.sends[-1])}: {change.witness.new.verdict}"
        progress(saving.save(file, words, case, seen, lab))
