"""A scenario that stands in no file: the case of a lab, a ruleset and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import together
from harness.generate.lab import ChosenLab
from harness.model.node import LineColumn, Node
from harness.packets.spec import Send
from harness.project import find
from harness.scenario import resolve
from harness.scenario.case import Broken, Case
from harness.scenario.load import load_all
from harness.scenario.models.actions import SendAction
from harness.scenario.models.expect import Expect
from harness.topology.spec import LabSpec


def case(
    lab: ChosenLab, rulesets: Sequence[Path], source: str, steps: Sequence[Node], files: Iterable[Path] = ()
) -> Case:
    """The scenario of ``steps``, whose positions are in ``source``; the project allows ``files`` as well.

    Raises :class:`~harness.errors.ScenarioError` at the place of what is wrong.
    """
    project = find(rulesets)
    named = [*rulesets, *files, *([Path(lab.lab)] if isinstance(lab.lab, str) else [])]
    project = msgspec.structs.replace(project, allowed=(*project.allowed, *(one.resolve() for one in named)))
    root = document(lab.keys, [one.resolve() for one in rulesets], source, steps)
    loaded = load_all(Path(source), recording=True, document=root, project=project)
    if loaded.errors:
        raise together(loaded.errors)
    (found,) = loaded.cases
    if isinstance(found, Broken):
        raise together(found.errors)
    return found


def document(lab: Mapping[str, Any], ruleset: Sequence[Path], name: str, steps: Sequence[Node]) -> Node:
    """A scenario file with the one scenario ``name``, in the lab that the keys ``lab`` describe."""
    nowhere = LineColumn(0, 0)
    root = Node.of({**lab, "ruleset": [str(one) for one in ruleset]}, nowhere)
    scenario = Node.of({"name": name}, nowhere)
    if len(steps) == 1 and "send" in steps[0].children:
        scenario.put("send", nowhere, steps[0].children["send"])
    else:
        listed = Node([], nowhere)
        for number, step in enumerate(steps):
            listed.put(number, step.place, step)
        scenario.put("steps", nowhere, listed)
    scenarios = Node([], nowhere)
    scenarios.put(0, nowhere, scenario)
    root.put("scenarios", nowhere, scenarios)
    return root


def like(case: Case, sends: Sequence[Mapping[str, Any]]) -> Case:
    """A scenario of packets, each written as ``send``, in the lab and with the rulesets of ``case``.

    Raises :class:`msgspec.ValidationError` for what is no packet.
    """
    nowhere = LineColumn(1, 1)
    steps = [{"send": send} for send in sends]
    return msgspec.structs.replace(
        case,
        name="packet",
        id="packet",
        marks=(),
        actions=tuple(SendAction(send=msgspec.convert(send, Send), expect=Expect()) for send in sends),
        places=Node.of({"name": "packet", **(steps[0] if len(steps) == 1 else {"steps": steps})}, nowhere),
    )


def lab_of(case: Case) -> ChosenLab:
    """The lab of a scenario as its file has it."""
    root = resolve.document(case.file, case.rulesets[case.network.device].project)
    written = {**root.value, **case.places.value}
    lab = written.get("lab")
    if isinstance(lab, dict):
        return ChosenLab(msgspec.convert(lab, LabSpec), dict(written.get("interfaces") or {}), case.network)
    near = case.file.parent / str(lab)
    named = str(near) if near.is_file() else str(lab)
    return ChosenLab(named, dict(written.get("interfaces") or {}), case.network)
