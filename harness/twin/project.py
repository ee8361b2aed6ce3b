"""The project that a twin is: a lab, the rulesets, and what is not as on the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.errors import HarnessError
from harness.model.problem import Problem
from harness.recording import edit
from harness.save import save
from harness.text import escape
from harness.topology.network import Network
from harness.topology.spec import LabSpec
from harness.twin import device, rulesets
from harness.twin.machine import Machine
from harness.twin.surroundings import Surroundings

DEVICE: Final = "device"
TRIED_AT_MOST: Final = 500
"""Parts of a lab that are left out one after the other since they do not fit."""
_LISTS: Final = ("routes", "rules", "dummies")
_SETTINGS: Final = "[pytest]\n# The root of a project of nft-harness: what scenarios may reach.\n"


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as a project."""

    name: str
    kernel: str
    lab: dict[str, Any]
    """As a lab file says it."""
    rulesets: Mapping[str, str]
    """Texts by the end of the file's name, in the order of loading."""
    notes: tuple[str, ...]
    """What is not as on the machine, a sentence each."""

    @property
    def files(self) -> dict[str, str]:
        """The rulesets by the names of their files, in the order of loading."""
        return {f"rulesets/{self.name}.{suffix}": text for suffix, text in self.rulesets.items()}


def of(machine: Machine) -> Twin:
    """The twin of ``machine``.

    Raises :class:`~harness.errors.HarnessError` where no lab can be made of it.
    """
    own = device.of(machine)
    around = Surroundings(machine, own)
    around.place()
    notes = [f"the section {name} could not be read in full" for name in machine.failed] + own.notes
    spec: dict[str, Any] = {
        "hosts": {DEVICE: own.host, **around.hosts},
        "links": around.links,
        "anycast": around.anycast,
    }
    lab = _planned(spec, notes)
    return Twin(
        name=machine.name,
        kernel=machine.kernel,
        lab=lab,
        rulesets=rulesets.of(machine),
        notes=tuple(dict.fromkeys(notes)),
    )


def _planned(spec: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """``spec`` without the parts that do not fit together; each of them is a note."""
    for _ in range(TRIED_AT_MOST):
        try:
            lab = msgspec.convert(spec, LabSpec)
            Network.of(lab)
        except Problem as problem:
            if not _leave_out(spec, problem, notes):
                raise HarnessError(f"no lab can be made of this machine: {problem.sentence}") from None
        except msgspec.ValidationError as error:
            raise HarnessError(f"no lab can be made of this machine: {error}") from None
        else:
            return _without_empty(spec)
    raise HarnessError(f"no lab can be made of this machine: more than {TRIED_AT_MOST} parts of it do not fit together")


def _leave_out(spec: dict[str, Any], problem: Problem, notes: list[str]) -> bool:
    """Take out of ``spec`` what ``problem`` is about; whether there was something."""
    match problem.keys:
        case ("hosts", host, ("routes" | "rules") as key, int(number), *_):
            gone: Any = spec["hosts"][host][key].pop(number)
        case ("hosts", host, "interfaces", interface, int(place), *_):
            gone = spec["hosts"][host]["interfaces"][interface].pop(place)
        case ("hosts", host, "interfaces", interface, *_):
            gone = spec["hosts"][host]["interfaces"][interface]
            if not gone:
                return False
            spec["hosts"][host]["interfaces"][interface] = []
        case ("hosts", host, ("sysctls" | "ports" | "mtu") as key, name, *_):
            gone = f"{name} {spec['hosts'][host][key].pop(name)}"
        case ("hosts", host, ("tunnels" | "vxlans") as key, name, *_) if name in spec["hosts"][host][key]:
            gone = spec["hosts"][host][key].pop(name)
            spec["hosts"][host].setdefault("dummies", []).append(name)
        case ("hosts", host, "gateway", *_):
            gone = spec["hosts"][host].pop("gateway")
        case _:
            return False
    if host == DEVICE:
        text = edit.flow(gone) if isinstance(gone, dict | list) else str(gone)
        notes.append(f"{text} is left out: {problem.sentence}")
    return True


def _without_empty(spec: dict[str, Any]) -> dict[str, Any]:
    hosts = {}
    for name, host in spec["hosts"].items():
        kept = {key: value for key, value in host.items() if value or key == "interfaces"}
        for kind in ("routes", "rules"):
            if kind in kept:
                kept[kind] = [dict(one) for one in kept[kind]]
        hosts[name] = kept
    return {key: value for key, value in (spec | {"hosts": hosts}).items() if value or key == "links"}


# --- files ---------------------------------------------------------------------------------------


def write(twin: Twin, folder: Path) -> list[Path]:
    """Write ``twin`` into ``folder``; the files.

    Raises :class:`~harness.errors.HarnessError` where one exists or cannot be written.
    """
    texts: dict[str, str | bytes] = {
        "pytest.ini": _SETTINGS,
        f"labs/{twin.name}.yaml": "".join(f"{line}\n" for line in lab_lines(twin)),
        **{name: text.encode("utf-8", "surrogateescape") for name, text in twin.files.items()},
    }
    if present := [folder / name for name in texts if name != "pytest.ini" and (folder / name).exists()]:
        raise HarnessError(
            f"{present[0]} already exists",
            remedy="compare with it by --check, remove it, or name another folder with -o",
        )
    if (folder / "pytest.ini").exists():
        del texts["pytest.ini"]
    for name, text in texts.items():
        try:
            save(folder / name, text)
        except OSError as error:
            raise HarnessError(f"{folder / name} can't be written: {error.strerror}") from None
    return [folder / name for name in texts]


def lab_lines(twin: Twin) -> Iterator[str]:
    """The lab file."""
    yield f"# A twin of {twin.name}, Linux {twin.kernel}: {DEVICE} is the machine, others stand where its routes lead."
    yield f"# Its rulesets, in the order of loading: {', '.join(twin.files) or 'none'}"
    if twin.notes:
        yield "#"
        yield "# Not as on the machine:"
        yield from (f"# - {escape(note)}" for note in twin.notes)
    yield "hosts:"
    for name, host in twin.lab["hosts"].items():
        if name == DEVICE:
            yield f"  {name}:"
            yield from _host_lines(host)
        else:
            yield f"  {name}: {edit.flow(host)}"
    for key in ("links", "anycast"):
        if key in twin.lab:
            yield f"{key}:"
            yield from (f"  - {edit.flow(one)}" for one in twin.lab[key])


def _host_lines(host: Mapping[str, Any]) -> Iterator[str]:
    for key, value in host.items():
        if isinstance(value, dict):
            yield f"    {key}:"
            yield from (f"      {edit.key_text(name)}: {edit.flow(one)}" for name, one in value.items())
        elif isinstance(value, list) and key in _LISTS[:2]:
            yield f"    {key}:"
            yield from (f"      - {edit.flow(one)}" for one in value)
        else:
            yield f"    {key}: {edit.flow(value)}"


def ruleset_argument(twin: Twin, folder: Path) -> str:
    """The rulesets as ``init``, ``ask`` and ``diff`` take them."""
    return ",".join(str(folder / name) for name in twin.files)


def sections(host: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of a host of a lab, each with a name: ``interfaces.lan0``, ``routes``."""
    for key, value in host.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", one) for name, one in value.items())
        elif key in _LISTS and isinstance(value, Sequence):
            yield from ((f"{key}: {edit.flow(one)}", one) for one in value)
        else:
            yield key, value
