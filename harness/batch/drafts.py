"""A scenario that stands in no file: the case of a lab, a ruleset and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.generate.lab import ChosenLab
from harness.model.node import LineColumn, Node
from harness.project import find
from harness.scenario.case import Broken, Case
from harness.scenario.load import load_all


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
        raise loaded.errors[0]
    (found,) = loaded.cases
    if isinstance(found, Broken):
        raise found.errors[0]
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
