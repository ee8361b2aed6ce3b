"""``--save``: the packet that was asked about, appended to a scenario file with what was seen as its expectation."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import harness
from harness import untrusted
from harness.batch.messages import Seen
from harness.bounds import SCENARIO_BYTES
from harness.errors import HarnessError
from harness.generate import file
from harness.generate.lab import ChosenLab
from harness.model import layers
from harness.project import FILES, Project, find
from harness.recording import expectation
from harness.recording.checking import differing
from harness.recording.edit import Text, UneditableError
from harness.recording.sample import NotRecordableError, Sample
from harness.save import save as write
from harness.scenario import schema
from harness.scenario.case import Case
from harness.scenario.files import is_called_so
from harness.scenario.load import load_all

LONGEST = 150
"""Characters of a scenario's name."""


class NotRecordedError(HarnessError):
    """What was seen cannot be an expectation."""


def save(path: Path, name: str, case: Case, seen: Seen, lab: ChosenLab) -> str:
    """Append ``case`` to the scenario file ``path``, or begin it; what was done, in a sentence.

    Nothing is written that would not be read, or not pass.

    Raises :class:`~harness.errors.HarnessError` where that cannot be done.
    """
    project, before, taken = existing(path)
    rulesets = case.rulesets[case.network.device].paths
    steps = _steps(case, _expected(seen))
    named, lab = _name(name, taken), placed(lab, path)
    if before is None:
        about = ["# Packets that were asked about, and what became of them."]
        text = file.head(rulesets, path, lab, about) + "\n".join(file.entry(named, steps)) + "\n"
        why = _why_not(path, text, named, case, seen, project)
    else:
        names = [_near(one, path) for one in rulesets]
        near: dict[str, Any] = {"ruleset": names if len(names) > 1 else names[0]}
        for keys in ({}, near, {"lab": lab.lab} | near | lab.keys):
            text = _appended(path, before, file.entry(named, steps, keys))
            if not (why := _why_not(path, text, named, case, seen, project)):
                break
    if why:
        raise HarnessError(f"{path} was not written: {why}")
    try:
        write(path, text)
        if before is None:
            put_schema(path.parent)
    except OSError as error:
        raise HarnessError(f"{path} can't be written: {error.strerror}") from None
    return f"{path}: {'begun with' if before is None else 'now has'} the scenario '{named}'"


def put_schema(folder: Path) -> None:
    """Put the JSON Schema that new scenario files in ``folder`` name beside them, in place of an older one.

    A file of that name that is something else stays. Raises :class:`OSError`.
    """
    own = (Path(harness.__file__).parent / file.SCHEMA).read_bytes()
    place = folder / file.SCHEMA
    with suppress(untrusted.Unreadable):
        there = untrusted.read(place, SCENARIO_BYTES)
        if there == own or schema.ID.encode() not in there:
            return
    if place.exists() and not place.is_file():
        return
    write(place, own)


def refuse_name(path: Path) -> Project:
    """The project of the scenario file ``path``.

    Raises :class:`~harness.errors.HarnessError` for a file that pytest would not take for one.
    """
    project = find([path])
    if not is_called_so(path.absolute(), project):
        raise HarnessError(
            f"{path} is not called {' or '.join(project.patterns)}, so pytest would not take it",
            remedy=f"name another file, or set {FILES} in the project's pytest settings",
        )
    return project


def existing(path: Path) -> tuple[Project, str | None, set[str]]:
    """The project of the scenario file ``path``; its text, None where there is no such file yet; its scenarios' names.

    Raises :class:`~harness.errors.HarnessError` for a file to which no scenario can be added: as
    :func:`refuse_name`, and where something is wrong with what is there.
    """
    project = refuse_name(path)
    if not path.exists():
        return project, None, set()
    try:
        content = untrusted.read(path, SCENARIO_BYTES, allowed=project.allows)
    except untrusted.Unreadable as error:
        raise HarnessError(f"{path} {error}") from None
    loaded = load_all(path, layers=layers.NAMES, recording=True, project=project)
    if loaded.errors:
        raise HarnessError(f"no scenario can be added to a file in which something is wrong: {loaded.errors[0]}")
    return project, content.decode(), {one.name for one in loaded.cases}


def _expected(seen: Seen) -> dict[int, Mapping[str, Any]]:
    """What to expect of each step, by its number."""
    found: dict[int, Mapping[str, Any]] = {}
    for number, sent in itertools.groupby(seen.sent, key=lambda one: one.action):
        samples = [Sample(sent=one, rules=seen.rules, where=f"kernel {seen.kernel}") for one in sent]
        try:
            found[number] = expectation.whole(samples)
        except NotRecordableError as refused:
            raise NotRecordedError(f"the scenario was not saved: {refused}") from None
    return found


def _steps(case: Case, expected: Mapping[int, Mapping[str, Any]]) -> list[file.WrittenStep]:
    """The steps of ``case`` as they are written."""
    written = case.places.value
    return [
        file.WrittenStep(kind, what, expected.get(number))
        for number, step in enumerate(written.get("steps") or [{"send": written["send"]}])
        for kind, what in step.items()
    ]


def _near(one: Path, file: Path) -> str:
    """The path of ``one`` as ``file`` names it."""
    return os.path.relpath(one.resolve(), file.absolute().parent.resolve())


def placed(lab: ChosenLab, file: Path) -> ChosenLab:
    """``lab`` as ``file`` names it."""
    if isinstance(lab.lab, str) and Path(lab.lab).is_file():
        return lab._replace(lab=_near(Path(lab.lab), file))
    return lab


def _name(words: str, taken: Collection[str]) -> str:
    """A name that no other scenario of the file has."""
    words = words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
    return next(one for n in itertools.count(1) if (one := f"{words} ({n})" if n > 1 else words) not in taken)


def _appended(path: Path, before: str, lines: Iterator[str]) -> str:
    text = Text(before)
    try:
        text.append(("scenarios",), list(lines))
    except (KeyError, UneditableError):
        remedy = "write an entry a line, as in scenarios:\\n  - name: …, or name another file"
        raise HarnessError(f"{path} has no list of scenarios that can be added to", remedy=remedy) from None
    return text.changed(text.changes())


def _why_not(path: Path, text: str, name: str, case: Case, seen: Seen, project: Project) -> str:
    """What is wrong with the file once it has this ``text``; "" for nothing."""
    loaded = load_all(path, layers=layers.NAMES, recording=True, text=text, project=project)
    if loaded.errors:
        return str(loaded.errors[0])
    own = next(one for one in loaded.cases if one.name == name)
    if not isinstance(own, Case):
        return str(own.errors[0])
    device = case.network.device
    if own.network != case.network or own.rulesets[device].paths != case.rulesets[device].paths:
        return "its lab or ruleset is another one"
    if why := differing(own, seen.sent, seen.rules, seen.kernel):
        return f"its expectation would not hold: {why}"
    return ""
