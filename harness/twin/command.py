"""The command ``nft-harness twin``, top to bottom."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from harness import untrusted
from harness.bounds import RULESET_BYTES, SCENARIO_BYTES
from harness.errors import HarnessError
from harness.project import Project
from harness.recording import edit
from harness.scenario.document import parse
from harness.text import escape
from harness.twin import collect, machine, project, rulesets
from harness.twin.anonymize import Anonymizer
from harness.twin.machine import Machine
from harness.twin.project import Twin

Print = Callable[[str], None]


class TwinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    destination: str = ""
    """As ssh takes it; "" for this machine."""
    file: Path | None = None
    """The output of the script, in place of a machine."""
    output: Path | None = None
    check: Path | None = None
    """The folder of a twin that the machine is compared with."""
    anonymize: bool = False


def run(request: TwinRequest, show: Print, note: Print) -> bool:
    """Make or compare a twin; whether the machine is as its twin says.

    Raises :class:`~harness.errors.HarnessError` where that cannot be done.
    """
    found = _read(request)
    twin = project.of(found)
    if request.check:
        differences = list(_differences(twin, request.check))
        for line in differences:
            show(line)
        if not differences:
            note(f"{twin.name} is as {request.check} says")
        return not differences
    folder = request.output or Path(twin.name)
    files = project.write(twin, folder)
    for one in twin.notes:
        note(f"not as on the machine: {escape(one)}")
    for path in files:
        note(f"{path}")
    if twin.rulesets:
        named = f"--lab {folder}/labs/{twin.name}.yaml {project.ruleset_argument(twin, folder)}"
        note(f"ask it: nft-harness ask {named} '{_other(twin)} > device tcp dport 22'")
    else:
        note(f"{twin.name} has no ruleset loaded")
    return True


def _read(request: TwinRequest) -> Machine:
    if request.file and request.destination:
        raise HarnessError("--from and a machine exclude each other", remedy="give one")
    if request.file:
        text, named = collect.from_file(request.file), str(request.file)
    elif request.destination:
        text, named = collect.by_ssh(request.destination), escape(request.destination)
    else:
        text, named = collect.here(), "this machine"
    if request.anonymize:
        text = Anonymizer(text).text()
    with untrusted.boundary(f"{named} could not be understood", remedy="run the script there again"):
        try:
            return machine.read(text)
        except HarnessError as error:
            raise HarnessError(f"{named}: {error.sentence}", remedy=error.remedy) from None


def _other(twin: Twin) -> str:
    names = [name for name in twin.lab["hosts"] if name != project.DEVICE and not name.startswith("switch")]
    return next((name for name in names if name.startswith("internet")), names[0] if names else project.DEVICE)


def _differences(twin: Twin, folder: Path) -> Iterator[str]:
    """How the machine differs from the twin that is stored in ``folder``, a line each."""
    lab = f"labs/{twin.name}.yaml"
    stored = parse(_text(folder, lab, SCENARIO_BYTES), str(folder / lab)).value
    before = dict(project.sections(stored["hosts"].get(project.DEVICE, {}) if isinstance(stored, dict) else {}))
    after = dict(project.sections(twin.lab["hosts"][project.DEVICE]))
    for name in dict.fromkeys((*before, *after)):
        old, new = (edit.flow(one[name]) if name in one else None for one in (before, after))
        if old == new:
            continue
        if old is None:
            yield f"{escape(name)}: new" + (f", {escape(new)}" if new and new not in name else "")
        elif new is None:
            yield f"{escape(name)}: gone"
        else:
            yield f"{escape(name)}: {escape(old)} → {escape(new)}"
    for name in dict.fromkeys((*twin.files, *_stored(twin, folder))):
        text = _text(folder, name, RULESET_BYTES) if (folder / name).is_file() else ""
        yield from _changed(text, twin.files.get(name, ""), name)


def _text(folder: Path, name: str, limit: int) -> str:
    """The text of a file of the stored twin; what lies elsewhere is not read."""
    path = folder / name
    try:
        return untrusted.read_text(path, limit, allowed=Project(root=folder.resolve()).allows)
    except untrusted.Unreadable as reason:
        raise HarnessError(f"{path} {reason.sentence}", remedy="name the folder of a twin of this machine") from None


def _stored(twin: Twin, folder: Path) -> Iterator[str]:
    """The files of rulesets that the stored twin has."""
    names = (f"rulesets/{twin.name}.{suffix}" for suffix in rulesets.SUFFIXES.values())
    return (name for name in names if (folder / name).is_file())


def _changed(before: str, now: str, name: str) -> Iterator[str]:
    """The lines in which the file ``name``, stored as ``before``, differs from what is loaded ``now``."""
    old, new = ([line.expandtabs(4) for line in rulesets.comparable(text)] for text in (before, now))
    lines = difflib.unified_diff(old, new, f"{name} stored", f"{name} loaded", n=1, lineterm="")
    yield from map(escape, lines)
