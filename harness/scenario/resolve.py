"""Find what a scenario file names: its lab, its rulesets and the files that its packets come from.

Each must lie in the project of the scenario file, or where the settings of that project allow it.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import UNSET, structs

from harness.errors import Position, ScenarioError, together
from harness.model.fields import RulesetFiles
from harness.model.node import Node
from harness.model.problem import Problem, Problems, did_you_mean, nearest
from harness.nft_syntax import is_name, is_piece
from harness.packets.spec import Payload, Send
from harness.project import ALLOW, EVERYTHING, Project, find
from harness.scenario.case import Files
from harness.scenario.files import LABS as LABS_FOLDER
from harness.scenario.files import SUFFIXES, shortened
from harness.scenario.models.actions import ActionSpec
from harness.scenario.models.file import DefineText, Scenario, ScenarioFile
from harness.scenario.validate import SCENARIO_FILE, check_value, convert
from harness.topology.builtin import LABS, rename
from harness.topology.network import Network
from harness.topology.spec import LabSpec

LAB_FILE: Final = "write hosts: and links: (nft-harness schema --markdown describes them)"
"""Remedy for a file that should hold a lab and is something else."""


def project_of(file: Path) -> Project:
    """The project of ``file``. A test in Python could open anything by itself, such as what it made."""
    return EVERYTHING if file.suffix == ".py" else find([file])


def document(path: Path, project: Project, text: str | None = None, *, needs: str = SCENARIO_FILE) -> Node:
    """The YAML document in ``path``, or that in ``text`` where it is given; ``needs`` is what an empty one lacks."""
    # The YAML parser is a third of this package's imports, and a worker in a guest gets what others have read.
    from harness.scenario.document import parse, read

    return read(path, project, needs=needs) if text is None else parse(text, str(path), needs=needs)


def located(problem: Problem, root: Node, path: Path) -> ScenarioError:
    """``problem``, and those found with it, at their places in the document ``root`` of the file ``path``."""
    return together([one.at(_place(one, root, path)) for one in problem.each])


def _place(problem: Problem, root: Node, path: Path) -> Position:
    node = root.nearest(*problem.keys)
    return Position(str(path), *(node.key if problem.about_key else node.within(problem.offset)))


# --- labs ---------------------------------------------------------------------------------------


def network(
    file: Path,
    project: Project,
    lab: str | LabSpec,
    names: Mapping[str, str],
    loading: frozenset[str] = frozenset(),
) -> Network:
    """The network of ``lab``, which ``file`` names, with interfaces of the device renamed by ``names``.

    ``loading`` are the other hosts that load rulesets. Raises :class:`~harness.model.problem.Problem`, and
    :class:`~harness.errors.ScenarioError` for a mistake in a file that holds the lab.
    """
    if isinstance(lab, LabSpec):
        spec = lab
    elif lab.endswith(SUFFIXES):
        found = _inside(file, project, lab, "a YAML file with hosts: and links:", "lab")
        if found.parent.name != LABS_FOLDER:
            remedy = "elsewhere pytest would take it for a scenario file"
            raise Problem(f"'{lab}' is not in a folder {LABS_FOLDER}", "lab", remedy=remedy)
        spec = lab_in(found, project)
    elif lab not in LABS:
        raise Problem(f"'{lab}' is not a built-in lab", "lab", remedy=_which_lab(file, lab))
    elif not names:
        return _built_in(lab, loading)
    else:
        spec = LABS[lab]
    try:
        spec = rename(spec, names)
    except Problem as problem:
        raise problem.below("interfaces") from None
    try:
        return Network.of(spec, loading)
    except Problem as problem:
        raise problem.below("lab") from None


def _which_lab(file: Path, word: str) -> str:
    """What to write instead of ``word``: its file, if there is one, else a similar name, else all there are."""
    written = (f"{LABS_FOLDER}/{word}{suffix}" for suffix in SUFFIXES)
    with suppress(OSError, ValueError):  # a name too long
        if found := next((one for one in written if (file.resolve().parent / one).is_file()), None):
            return f"did you mean '{found}'?"
    if near := nearest(word, LABS):
        return f"did you mean '{near}'?"
    return f"write {', '.join(LABS)}, or the path of your own: {LABS_FOLDER}/NAME.yaml"


@functools.cache
def _built_in(name: str, loading: frozenset[str]) -> Network:
    return Network.of(LABS[name], loading)


def lab_in(path: Path, project: Project) -> LabSpec:
    """The lab in a file of its own. Raises :class:`~harness.errors.ScenarioError` in that file, with all mistakes."""
    path = shortened(path)
    root = document(path, project, needs=LAB_FILE)
    spec, _, found = convert(root, LabSpec, needs=LAB_FILE)
    if found or spec is None:
        raise located(together(found), root, path)
    try:
        Network.of(spec)
    except Problem as problem:
        raise located(problem, root, path) from None
    return spec


# --- rulesets -----------------------------------------------------------------------------------


def rulesets(file: Path, project: Project, said: ScenarioFile, network: Network | None) -> dict[str, Files]:
    """The rulesets that the hosts load according to ``said``, the device first. Without a network any host will do."""
    defines = {
        name: f"{{ {', '.join(map(str, value))} }}" if isinstance(value, list) else str(value)
        for name, value in said.defines.items()
    }
    problems = Problems()
    for name, value in defines.items():
        with problems.collected():
            if isinstance(words := said.defines[name], str):
                check_value(words, DefineText, ScenarioFile, "defines", name)
            if not is_name(name):
                raise Problem(f"'{name}' is not a valid name of a variable", "defines", name, about_key=True)
            if not is_piece(value):
                remedy = "write one value, or a list of values, as nft -D takes them"
                raise Problem("is not a valid value of a variable", "defines", name, remedy=remedy)
    device = network.device if network else "device"
    found = {}
    with problems.collected():
        found[device] = Files(_ruleset(file, project, said.ruleset, "ruleset"), project, defines)
    for host, texts in said.rulesets.items():
        keys = ("rulesets", host)
        with problems.collected():
            if network and host not in network.hosts:
                remedy = did_you_mean(host, network.hosts)
                raise Problem(f"the lab has no host '{host}'", *keys, remedy=remedy, about_key=True)
            if network and host == device:
                remedy = "name its ruleset in ruleset:"
                raise Problem(f"{host} is under test", *keys, remedy=remedy, about_key=True)
            found[host] = Files(_ruleset(file, project, texts, *keys), project, defines)
    problems.refuse()
    return found


def _ruleset(file: Path, project: Project, texts: RulesetFiles, *keys: str | int) -> tuple[Path, ...]:
    """The files that ``file`` names, absolute; those of a folder in the order of their names."""
    if isinstance(texts, str):
        return tuple(_ruleset_files(file, project, texts, *keys))
    problems = Problems()
    found: list[Path] = []
    for index, text in enumerate(texts):
        with problems.collected():
            found += _ruleset_files(file, project, text, *keys, index)
    problems.refuse()
    return tuple(found)


def _ruleset_files(file: Path, project: Project, text: str, *keys: str | int) -> Iterator[Path]:
    what = "an nft file or a folder of them"
    try:
        folder = file.resolve().parent / text
        within = sorted(folder.glob("*.nft")) if folder.is_dir() else []
    except (OSError, ValueError):  # a name too long, a character that no name has
        within = []
    for found in within:
        yield _inside(file, project, str(found), what, *keys)
    if not within:
        yield _inside(file, project, text, what, *keys)


# --- files of packets ---------------------------------------------------------------------------


def with_files(path: Path, project: Project, scenario: Scenario) -> Scenario:
    """``scenario`` with the names of the files that its steps use made absolute."""
    if scenario.send is not UNSET:
        scenario = structs.replace(scenario, send=_send_with_files(path, project, scenario.send, "send"))
    if scenario.steps is not UNSET:
        steps = [step_with_files(path, project, step, "steps", index) for index, step in enumerate(scenario.steps)]
        scenario = structs.replace(scenario, steps=steps)
    return scenario


def step_with_files(path: Path, project: Project, step: ActionSpec, *keys: str | int) -> ActionSpec:
    """``step``, which stands at ``keys``, with the names of the files that it uses made absolute."""
    if step.send is not UNSET:
        step = structs.replace(step, send=_send_with_files(path, project, step.send, *keys, "send"))
    if step.reload is not UNSET:
        files = _ruleset(path, project, step.reload, *keys, "reload")
        step = structs.replace(step, reload=list(map(str, files)))
    return step


def _send_with_files(path: Path, project: Project, send: Send, *keys: str | int) -> Send:
    what = "a pcap or pcapng file"
    if isinstance(send.pcap, str):
        return structs.replace(send, pcap=str(_inside(path, project, send.pcap, what, *keys, "pcap")))
    if send.pcap is not None:
        file = str(_inside(path, project, send.pcap.file, what, *keys, "pcap", "file"))
        return structs.replace(send, pcap=structs.replace(send.pcap, file=file))
    if isinstance(send.payload, Payload) and send.payload.file is not None:
        file = str(_inside(path, project, send.payload.file, "a file", *keys, "payload", "file"))
        return structs.replace(send, payload=structs.replace(send.payload, file=file))
    return send


def _inside(file: Path, project: Project, text: str, what: str, *keys: str | int) -> Path:
    """The absolute path of what ``file`` calls ``text``: it must exist and lie in the file's project.

    What lies elsewhere, and is allowed to, need not exist: it may exist on another machine.
    """
    folder = file.resolve().parent
    remedy = f"name {what}, relative to the scenario file"
    try:
        found = (folder / text).resolve()
        mode = _mode(found)
    except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle, a character that no name has
        raise Problem("cannot be a path", *keys, remedy=remedy) from None
    if not found.is_relative_to(project.root):
        if not project.allows(found):
            remedy = f"copy it or move it there, or allow it: {ALLOW} in the project's pytest settings"
            raise Problem(f"'{text}' lies outside of the project, {project.root}", *keys, remedy=remedy)
        if not stat.S_ISDIR(mode):
            return found
    if stat.S_ISDIR(mode):
        raise Problem(f"'{text}' is a folder", *keys, remedy=remedy)
    if not stat.S_ISREG(mode):
        raise Problem(f"'{text}' does not exist", *keys, remedy=_near(found, text) or remedy)
    return found


def _mode(path: Path) -> int:
    """What kind of file ``path`` is, 0 for none. Raises :class:`OSError`, also for links in a circle, which
    :meth:`pathlib.Path.resolve` finds until Python 3.12 only."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _near(missing: Path, text: str) -> str:
    """A remedy: the file beside the ``missing`` one whose name is most similar, written as ``text`` is."""

    def is_of_its_kind(one: Path) -> bool:
        return one.suffix == missing.suffix or (one.stem == missing.stem and one.suffix not in SUFFIXES)

    try:
        beside = {one.stem: one for one in sorted(missing.parent.iterdir()) if is_of_its_kind(one) and one.is_file()}
    except OSError:
        return ""
    near = nearest(missing.stem, beside)
    return f"did you mean '{Path(text).parent / beside[near].name}'?" if near else ""
