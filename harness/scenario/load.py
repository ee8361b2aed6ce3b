"""From a scenario file to cases that can be run, each value knowing its place in the file."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
from msgspec import UNSET, structs

from harness.errors import Position, ScenarioError
from harness.model.node import Node
from harness.model.problem import NothingExpected, Problem, did_you_mean, nearest
from harness.nft_syntax import is_name, is_piece
from harness.packets.spec import Payload, Send
from harness.project import ALLOW, EVERYTHING, FILES, Project, find
from harness.scenario.case import Broken, Case, Files, LoadedFile
from harness.scenario.check import actions, check, check_step, to_be_recorded
from harness.scenario.files import LABS as LABS_FOLDER
from harness.scenario.files import SUFFIXES, choose, shortened
from harness.scenario.flow import speakers, speaking
from harness.scenario.models.file import Action, Scenario, ScenarioFile
from harness.scenario.parameters import expand, without_consequences
from harness.scenario.validate import convert
from harness.topology.builtin import LABS, rename
from harness.topology.network import Network
from harness.topology.spec import LabSpec


def load(path: Path, *, layers: Collection[str] | None = None) -> tuple[Case | Broken, ...]:
    """The scenarios of a file, in its order. A broken one does not stop the others.

    ``layers`` are the names that ``expect: layers`` may use; None lets any pass.

    Raises :class:`~harness.errors.ScenarioError`, the first one, when the file as a whole is wrong.
    """
    loaded = load_all(path, layers=layers)
    if loaded.errors:
        raise loaded.errors[0]
    return loaded.cases


class Checked(NamedTuple):
    """What was read to be checked, and what was found."""

    files: int
    scenarios: int
    left_alone: tuple[Path, ...]
    """YAML files that are no scenario files."""
    errors: tuple[ScenarioError, ...]
    """In the order of the files and of their lines."""


def problems(path: Path, *, layers: Collection[str] | None = None) -> tuple[ScenarioError, ...]:
    """Everything wrong with a file, or with all scenario files below a folder, in the order of the lines."""
    return checked([path], layers=layers).errors


def checked(paths: Iterable[Path], *, layers: Collection[str] | None = None) -> Checked:
    """Look for everything wrong with the files ``paths``, and with the scenario files below the folders among them.

    Raises :class:`~harness.errors.ScenarioError` for settings of pytest that cannot be read.
    """
    paths = list(paths)
    project = find(paths)
    found = [_checked(path, layers, project) for path in paths]
    return Checked(
        sum(one.files for one in found),
        sum(one.scenarios for one in found),
        tuple(path for one in found for path in one.left_alone),
        tuple(error for one in found for error in one.errors),
    )


def _checked(path: Path, layers: Collection[str] | None, project: Project) -> Checked:
    chosen = choose([str(path)], project)
    if path.is_dir() and not chosen.files:
        patterns = " ".join(project.patterns)
        error = ScenarioError(f"has no scenario file, which is one called {patterns}", Position(str(path)))
        error.remedy = f"name the file, or set {FILES} in the project's pytest settings"
        return Checked(0, 0, chosen.left_alone, (error,))
    errors: list[ScenarioError] = []
    scenarios = 0
    # A file that is named is meant, whatever it is called and whatever is in it.
    files = [shortened(file) for file in chosen.files] if path.is_dir() else [path]
    for file in files:
        loaded = load_all(file, layers=layers, project=project)
        scenarios += len(loaded.cases)
        found = [*loaded.errors, *(error for case in loaded.cases if isinstance(case, Broken) for error in case.errors)]
        told = {str(error): error for error in found}  # one mistake may be in many scenarios made from one
        errors += sorted(told.values(), key=lambda error: error.position)
    return Checked(len(files), scenarios, chosen.left_alone if path.is_dir() else (), tuple(errors))


def _read(path: Path, project: Project, text: str | None = None) -> Node:
    # Its YAML parser is a third of this package's imports, and a worker in a guest is handed what others read.
    from harness.scenario.document import parse, read

    return read(path, project) if text is None else parse(text, str(path))


def load_all(
    path: Path,
    *,
    layers: Collection[str] | None = None,
    recording: bool = False,
    text: str | None = None,
    project: Project | None = None,
) -> LoadedFile:
    """The scenarios of a file and what is wrong with the file, without raising either.

    When ``recording``, packets may be without expectation: that is then an empty one. ``text`` stands for
    what is in the file. ``project`` is the one that the file belongs to; None looks for it.
    """
    try:
        project = project or _project(path)
        root = _read(path, project, text)
    except ScenarioError as error:
        return LoadedFile(cases=(), errors=(error,))
    root, found = expand(root)
    file, rest, more = convert(root, ScenarioFile)
    found = without_consequences([*found, *more])
    whole = [problem for problem in found if not _is_in_scenario(problem)]
    elsewhere: list[ScenarioError] = []  # in the file of the lab
    stage: Setup | None = None
    if file is not None and not whole:
        network: Network | None = None
        try:
            network = _network(path, project, file.lab, file.interfaces, frozenset(file.rulesets))
        except Problem as problem:
            whole.append(problem)
        except ScenarioError as error:
            elsewhere.append(error)
        try:  # a wrong lab does not hide a wrong ruleset
            rulesets = _rulesets(path, project, file, network)
            stage = Setup(file, network, rulesets, project, layers, recording) if network else None
        except Problem as problem:
            whole.append(problem)
    # What is left of the list has lost its wrong entries, so the indices are those of `rest`.
    scenarios = dict(zip(rest.children["scenarios"].children, file.scenarios, strict=True)) if file is not None else {}
    cases = _cases(path, root.children.get("scenarios"), scenarios, list(filter(_is_in_scenario, found)), stage)
    return LoadedFile(cases=tuple(cases), errors=(*(_located(problem, root, path) for problem in whole), *elsewhere))


def load_lab(path: Path) -> Network:
    """The lab of a scenario file, or of a file that holds a lab.

    Raises :class:`~harness.errors.ScenarioError` when it is wrong; the scenarios do not matter.
    """
    project = find([path])
    root = _read(path, project)
    if "hosts" in root.children:
        return Network.of(_lab(path, project))
    file, _, found = convert(_lab_only(root), _LabOnly)
    try:
        if found or file is None:
            raise found[0]
        return _network(path, project, file.lab, file.interfaces)
    except Problem as problem:
        raise _located(problem, root, path) from None


def set_up(document: Node, path: Path, *, layers: Collection[str] | None = None) -> Setup:
    """Lab and rulesets as ``document`` says, in the words of a scenario file; ``path`` is where it is written.

    Raises :class:`~harness.errors.ScenarioError`, the first one.
    """
    document.put("scenarios", document.place, Node.of([{"name": path.name}], document.place))
    file, _, found = convert(document, ScenarioFile)
    try:
        if found or file is None:
            raise found[0]
        return Setup.of(path, file, layers, _project(path))
    except Problem as problem:
        raise _located(problem, document, path) from None


def case_of(document: Node, path: Path, *, setup: Setup, name: str) -> Case:
    """The one step that ``document`` says, as a scenario called ``name``; ``path`` is where it is written.

    Raises :class:`~harness.errors.ScenarioError`, the first one.
    """
    action, _, found = convert(document, Action)
    try:
        if action is not None and action.send is not UNSET:
            action = structs.replace(action, send=_send_with_files(path, setup.project, action.send, "send"))
    except Problem as problem:
        found.append(problem)
    found = found or list(check_step(action, setup.network, setup.layers) if action else ())
    if found or action is None:
        raise _located(found[0], document, path)
    return Case(
        file=path,
        name=name,
        id=name,
        marks=(),
        network=setup.network,
        rulesets=setup.rulesets,
        actions=(action,),
        places=document,
    )


class _LabOnly(msgspec.Struct, frozen=True):
    """What of a scenario file makes its lab."""

    lab: str | LabSpec = "router"
    interfaces: dict[str, str] = {}


def _lab_only(root: Node) -> Node:
    for key in [key for key in root.children if key not in ("lab", "interfaces")]:
        root = root.without(key)
    return root


class Setup(NamedTuple):
    """What the scenarios of a file have in common."""

    file: ScenarioFile
    network: Network
    rulesets: Mapping[str, Files]
    project: Project
    layers: Collection[str] | None
    recording: bool = False

    @classmethod
    def of(
        cls,
        path: Path,
        file: ScenarioFile,
        layers: Collection[str] | None,
        project: Project,
        network: Network | None = None,
    ) -> Self:
        """The stage that ``file`` says, with the lab planned already or not."""
        network = network or _network(path, project, file.lab, file.interfaces, frozenset(file.rulesets))
        return cls(file, network, _rulesets(path, project, file, network), project, layers)


def _cases(
    path: Path,
    nodes: Node | None,
    scenarios: Mapping[str | int, Scenario],
    found: Sequence[Problem],
    stage: Setup | None,
) -> Iterator[Case | Broken]:
    """The scenarios in the order of the file; without a stage, only those that are wrong themselves."""
    names: dict[str, int] = {}
    ids: set[str] = set()
    for index, node in nodes.children.items() if nodes is not None and isinstance(nodes.value, list) else ():
        wrong = [problem.inside(2) for problem in found if problem.keys[1] == index]
        scenario = scenarios.get(index)
        elsewhere: list[ScenarioError] = []
        own = stage
        if stage is not None and scenario is not None and not wrong:
            try:
                own = _own(path, scenario, stage)
                scenario = _with_files(path, stage.project, scenario)
                found_here = check(scenario, own.network, own.layers)
                wrong += (one for one in found_here if not (own.recording and isinstance(one, NothingExpected)))
            except Problem as problem:
                wrong.append(problem)
            except ScenarioError as error:
                elsewhere.append(error)
        name = node.children["name"].value if "name" in node.children else None
        if not isinstance(name, str):
            name = f"scenario {len(ids) + 1}"
        elif name in names:
            wrong.append(Problem(f"the scenario in line {names[name]} has the same name", "name"))
        names.setdefault(name, node.place.line)
        marks = tuple(scenario.marks) if scenario is not None else ()
        identifier = _identifier(name, ids)
        if wrong or elsewhere:
            errors = (*(_located(problem, node, path) for problem in wrong), *elsewhere)
            yield Broken(file=path, name=name, id=identifier, marks=marks, errors=errors)
        elif own is not None and scenario is not None:
            steps = actions(scenario)
            yield Case(
                file=path,
                name=name,
                id=identifier,
                marks=marks,
                network=speaking(speakers(steps, own.network), own.network),
                rulesets=own.rulesets,
                actions=to_be_recorded(steps) if own.recording else steps,
                places=node,
                may_miss=tuple(scenario.may_miss),
            )


def _own(path: Path, scenario: Scenario, stage: Setup) -> Setup:
    """The stage of ``scenario``: that of the file, but for what the scenario says itself."""
    own = {key: said for key in ("lab", "interfaces", "ruleset") if (said := getattr(scenario, key)) is not UNSET}
    if not own:
        return stage
    if "lab" in own:
        own = {"interfaces": {}, "rulesets": {}} | own
    network = None if {"lab", "interfaces"} & own.keys() else stage.network
    made = Setup.of(path, structs.replace(stage.file, **own), stage.layers, stage.project, network)
    return made._replace(recording=stage.recording)


def _with_files(path: Path, project: Project, scenario: Scenario) -> Scenario:
    """``scenario`` with the names of the files that its packets come from absolute."""
    if scenario.send is not UNSET:
        scenario = structs.replace(scenario, send=_send_with_files(path, project, scenario.send, "send"))
    if scenario.steps is not UNSET:
        steps = [
            step
            if step.send is UNSET
            else structs.replace(step, send=_send_with_files(path, project, step.send, "steps", index, "send"))
            for index, step in enumerate(scenario.steps)
        ]
        scenario = structs.replace(scenario, steps=steps)
    return scenario


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


def _is_in_scenario(problem: Problem) -> bool:
    return len(problem.keys) > 1 and problem.keys[0] == "scenarios"


def _located(problem: Problem, root: Node, path: Path) -> ScenarioError:
    node = root.nearest(*problem.keys)
    return problem.at(Position(str(path), *(node.key if problem.about_key else node.within(problem.offset))))


def _identifier(name: str, taken: set[str]) -> str:
    """``name`` without what a shell, ``-k`` or a test id would choke on; different from all before."""
    word = re.sub(r"[^\w.+]+", "-", name).strip("-") or "scenario"
    identifier = next(one for n in itertools.count(1) if (one := f"{word}-{n}" if n > 1 else word) not in taken)
    taken.add(identifier)
    return identifier


def _network(
    file: Path,
    project: Project,
    lab: str | LabSpec,
    names: Mapping[str, str],
    loading: frozenset[str] = frozenset(),
) -> Network:
    if isinstance(lab, LabSpec):
        spec = lab
    elif lab.endswith(SUFFIXES):
        found = _inside(file, project, lab, "a YAML file with hosts: and links:", "lab")
        if found.parent.name != LABS_FOLDER:
            raise Problem(
                f"'{lab}' is not in a folder {LABS_FOLDER}", "lab", remedy="else pytest took it for scenarios"
            )
        spec = _lab(found, project)
    elif lab not in LABS:
        raise Problem(f"'{lab}' is no built-in lab", "lab", remedy=_which_lab(file, lab))
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
    """What to write instead of ``word``: its file, if there is one, else a name that is near, else all there is."""
    written = (f"{LABS_FOLDER}/{word}{suffix}" for suffix in SUFFIXES)
    with suppress(OSError, ValueError):  # a name too long
        if found := next((one for one in written if (file.resolve().parent / one).is_file()), None):
            return f"did you mean '{found}'?"
    if near := nearest(word, LABS):
        return f"did you mean '{near}'?"
    return f"it can be {', '.join(LABS)}, or the file of your own: {LABS_FOLDER}/NAME.yaml"


@functools.cache
def _built_in(name: str, loading: frozenset[str]) -> Network:
    return Network.of(LABS[name], loading)


def _lab(path: Path, project: Project) -> LabSpec:
    """The lab in a file of its own. Raises :class:`~harness.errors.ScenarioError` in that file."""
    root = _read(path, project)
    spec, _, found = convert(root, LabSpec)
    if found or spec is None:
        raise _located(found[0], root, path)
    try:
        Network.of(spec)
    except Problem as problem:
        raise _located(problem, root, path) from None
    return spec


def _rulesets(file: Path, project: Project, said: ScenarioFile, network: Network | None) -> dict[str, Files]:
    """What ``file`` says that the hosts load, the device first. Without a network any host will do."""
    defines = {
        name: f"{{ {', '.join(map(str, value))} }}" if isinstance(value, list) else str(value)
        for name, value in said.defines.items()
    }
    for name, value in defines.items():
        if not is_name(name):
            raise Problem(f"'{name}' is no name of a variable", "defines", name, about_key=True)
        if not is_piece(value):
            remedy = "write one value, or a list of values, as nft -D takes them"
            raise Problem("is no value of a variable", "defines", name, remedy=remedy)
    device = network.device if network else "device"
    found = {device: Files(_ruleset(file, project, said.ruleset, "ruleset"), project, defines)}
    for host, texts in said.rulesets.items():
        keys = ("rulesets", host)
        if network and host not in network.hosts:
            remedy = did_you_mean(host, network.hosts)
            raise Problem(f"'{host}' is no host of the lab", *keys, remedy=remedy, about_key=True)
        if network and host == device:
            remedy = "name its ruleset in ruleset:"
            raise Problem(f"{host} is the host under test", *keys, remedy=remedy, about_key=True)
        found[host] = Files(_ruleset(file, project, texts, *keys), project, defines)
    return found


def _ruleset(file: Path, project: Project, texts: str | list[str], *keys: str) -> tuple[Path, ...]:
    """The files that ``file`` names, absolute, a folder's in the order of their names."""
    if isinstance(texts, str):
        return tuple(_ruleset_files(file, project, texts, *keys))
    return tuple(
        found for index, text in enumerate(texts) for found in _ruleset_files(file, project, text, *keys, index)
    )


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


def _project(file: Path) -> Project:
    """The project of ``file``. A test in Python could open anything by itself, such as what it made."""
    return EVERYTHING if file.suffix == ".py" else find([file])


def _inside(file: Path, project: Project, text: str, what: str, *keys: str | int) -> Path:
    """What ``file`` calls ``text``, absolute: it must exist and lie in the file's project.

    What lies elsewhere, and is allowed to, need not exist: another machine may have it.
    """
    folder = file.resolve().parent
    remedy = f"name {what}, seen from the scenario file"
    try:
        found = (folder / text).resolve()
        is_file, is_folder = found.is_file(), found.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle, a character that no name has
        raise Problem("leads nowhere", *keys, remedy=remedy) from None
    if not found.is_relative_to(project.root):
        if not project.allows(found):
            remedy = f"copy it or move it there, or allow it: {ALLOW} in the project's pytest settings"
            raise Problem(f"'{text}' lies outside of the project, {project.root}", *keys, remedy=remedy)
        if not is_folder:
            return found
    if is_folder:
        raise Problem(f"'{text}' is a folder", *keys, remedy=remedy)
    if not is_file:
        raise Problem(f"'{text}' does not exist", *keys, remedy=_near(found, text) or remedy)
    return found


def _near(missing: Path, text: str) -> str:
    """A remedy: the file beside the ``missing`` one whose name is nearest, as ``text`` would have it."""

    def is_of_its_kind(one: Path) -> bool:
        return one.suffix == missing.suffix or (one.stem == missing.stem and one.suffix not in SUFFIXES)

    try:
        beside = {one.stem: one for one in sorted(missing.parent.iterdir()) if is_of_its_kind(one) and one.is_file()}
    except OSError:
        return ""
    near = nearest(missing.stem, beside)
    return f"did you mean '{Path(text).parent / beside[near].name}'?" if near else ""
