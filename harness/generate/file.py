"""The text of a first scenario file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness.generate.lab import ChosenLab
from harness.recording import edit
from harness.text import escape

SCHEMA: Final = "scenario.schema.json"
"""The file beside scenario files that editors check them by."""
MODELINE: Final = f"# yaml-language-server: $schema={SCHEMA}"
"""The first line, by which an editor finds it."""


class ScenarioDraft(NamedTuple):
    """A scenario to be written."""

    name: str
    sends: Sequence[Mapping[str, Any]]
    expected: Mapping[int, Mapping[str, Any]] = {}
    """By the number of the packet; nothing where none is known yet."""
    about: Mapping[int, str | int] = {}
    """The rules and policies that this is about, by where on its way the last packet met them."""


class WrittenStep(NamedTuple):
    """A step to be written."""

    kind: str
    """``send``, ``connect`` and so on."""
    what: Mapping[str, Any]
    expected: Mapping[str, Any] | None = None
    """Nothing where none is known yet."""


def head(rulesets: Sequence[Path], output: Path, lab: ChosenLab, about: Sequence[str] = ()) -> str:
    """All above the scenarios; ``output`` is the file's own place, ``about`` the comment that it begins with."""
    near = [os.path.relpath(one.resolve(), output.absolute().parent.resolve()) for one in rulesets]
    named = ", ".join(one.name for one in rulesets)
    name = lab.lab if isinstance(lab.lab, str) else None
    lines = [MODELINE]
    lines += about or [
        f"# A packet for each rule and policy of {escape(named)}, and what became of it. Read it: this is what",
        "# the ruleset does, which need not be what it should do.",
    ]
    lines.append(f"lab: {name} # {lab.described}" if name else "lab:")
    if not isinstance(lab.lab, str):
        lines += _lab(msgspec.to_builtins(lab.lab))
    if lab.interfaces:
        lines.append(f"interfaces: {edit.flow(dict(lab.interfaces))}")
    lines.append(f"ruleset: {edit.flow(near) if len(near) > 1 else edit.scalar(near[0], in_flow=False)}")
    return "\n".join(lines) + "\n\nscenarios:\n"


def _lab(spec: Mapping[str, Any]) -> Iterator[str]:
    yield "  hosts:"
    yield from (f"    {name}: {edit.flow(host)}" for name, host in spec["hosts"].items())
    yield "  links:"
    yield from (f"    - {edit.flow(link)}" for link in spec["links"])


def body(scenarios: Sequence[ScenarioDraft], comments: Iterable[str]) -> str:
    """The scenarios, and behind them what could not be made."""
    text = "\n".join("\n".join(_lines(one)) + "\n" for one in scenarios)
    if lines := list(comments):
        text += "\n# For these there is no scenario:\n" + "".join(f"#   {' '.join(one.split())}\n" for one in lines)
    return text


def _lines(scenario: ScenarioDraft) -> Iterator[str]:
    return entry(
        scenario.name,
        [WrittenStep("send", send, scenario.expected.get(number)) for number, send in enumerate(scenario.sends)],
    )


def entry(name: str, steps: Sequence[WrittenStep], keys: Mapping[str, Any] = {}) -> Iterator[str]:
    """The lines of a scenario below ``scenarios:``; ``keys`` are those that it has besides its steps."""
    yield f"  - name: {edit.scalar(name, in_flow=False)}"
    yield from (f"    {key}: {edit.flow(value)}" for key, value in keys.items())
    if len(steps) == 1 and steps[0].kind == "send":
        yield f"    send: {edit.flow(dict(steps[0].what))}"
        yield from _expect(steps[0].expected, "    ")
        return
    yield "    steps:"
    for step in steps:
        yield f"      - {step.kind}: {edit.flow(dict(step.what))}"
        yield from _expect(step.expected, "        ")


def _expect(expected: Mapping[str, Any] | None, indent: str) -> Iterator[str]:
    if expected:
        yield f"{indent}expect:"
        yield from edit.mapping(dict(expected), indent + "  ")
