"""``mutate --save``: a scenario for each packet that distinguishes a survivor; it expects what the ruleset does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from harness.batch import saving
from harness.errors import HarnessError
from harness.generate.lab import ChosenLab
from harness.generate.pool import describe_send
from harness.model.node import LineColumn, Node
from harness.mutate.ruleset import MutatedRuleset
from harness.packets.spec import Send
from harness.pytest_plugin import kept_frames
from harness.scenario import resolve
from harness.scenario.case import Case
from harness.scenario.models.actions import SendAction
from harness.scenario.models.expect import Expect
from harness.topology.spec import LabSpec


def save(file: Path, ruleset: MutatedRuleset, progress: Callable[[str], None]) -> None:
    """Append a scenario to ``file``, or begin it, for each survivor of ``ruleset`` that a packet distinguishes.

    Survivors that the same packet distinguishes have one scenario. Raises :class:`~harness.errors.HarnessError` where
    none can be written.
    """
    if len(ruleset.subject.files.paths) != 1 or ruleset.subject.files.defines:
        raise HarnessError(f"--save writes scenarios of a ruleset that is one file, and {ruleset.subject.name} is not")
    like = ruleset.network_case
    lab = _lab(like)
    done: set[str] = set()
    for mutant in ruleset.survivors():
        witness = ruleset.known(mutant).witness
        if witness is None or repr(witness.sends) in done:
            continue
        done.add(repr(witness.sends))
        case = _case(like, witness.sends)
        (seen,) = ruleset.run_alone(case, kept_frames.prepare(case.sends))
        if seen.error:
            progress(f"not saved: {describe_send(witness.sends[-1])}: {seen.error}")
            continue
        verdicts = [str(one.verdict or "undecided") for one in seen.sent]
        try:
            words = f"{describe_send(witness.sends[-1])}: {verdicts[-1] if verdicts else 'nothing'}"
            progress(saving.save(file, words, case, seen, lab))
        except HarnessError as error:
            progress(f"not saved: {error}")


def _case(like: Case, sends: tuple[dict[str, Any], ...]) -> Case:
    """A scenario of packets in the lab of another."""
    nowhere = LineColumn(1, 1)
    steps = [{"send": send} for send in sends]
    return msgspec.structs.replace(
        like,
        name="packet",
        id="packet",
        marks=(),
        actions=tuple(SendAction(send=msgspec.convert(send, Send), expect=Expect()) for send in sends),
        places=Node.of({"name": "packet", **(steps[0] if len(steps) == 1 else {"steps": steps})}, nowhere),
    )


def _lab(case: Case) -> ChosenLab:
    """The lab of a scenario as its file has it."""
    root = resolve.document(case.file, case.rulesets[case.network.device].project)
    written = {**root.value, **case.places.value}
    lab = written.get("lab")
    if isinstance(lab, dict):
        return ChosenLab(msgspec.convert(lab, LabSpec), dict(written.get("interfaces") or {}), case.network)
    near = case.file.parent / str(lab)
    named = str(near) if near.is_file() else str(lab)
    return ChosenLab(named, dict(written.get("interfaces") or {}), case.network)
