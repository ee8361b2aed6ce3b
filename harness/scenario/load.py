"""From a scenario file to cases that can be run, each value knowing its place in the file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec
from msgspec import UNSET, structs

from harness.errors import ScenarioError, apart, together
from harness.model.node import Node
from harness.model.problem import NothingExpected, Problem
from harness.project import Project, find
from harness.scenario import resolve
from harness.scenario.case import Broken, Case, Files, LoadedFile
from harness.scenario.check import actions, check, check_step, to_be_recorded
from harness.scenario.flow import speakers, speaking
from harness.scenario.models.actions import ActionSpec
from harness.scenario.models.file import Scenario, ScenarioFile
from harness.scenario.parameters import expand, without_consequences
from harness.scenario.resolve import located
from harness.scenario.validate import convert
from harness.topology.network import Network
from harness.topology.spec import LabSpec

_KEYS: Final = frozenset(ScenarioFile.__struct_fields__)
_OF_LAB: Final = frozenset({"lab", "interfaces"})
_OF_RULESETS: Final = frozenset({"ruleset", "rulesets", "defines"})
"""Keys of a file."""


def load(path: Path, *, layers: Collection[str] | None = None) -> tuple[Case | Broken, ...]:
    """The scenarios of a file, in its order. A broken one does not stop the others.

    ``layers`` are the names that ``expect: layers`` may use; None allows any.

    Raises :class:`~harness.errors.ScenarioError`, all of them together, when the file as a whole is wrong.
    """
    loaded = load_all(path, layers=layers)
    if loaded.errors:
        raise together(loaded.errors)
    return loaded.cases


def load_all(
    path: Path,
    *,
    layers: Collection[str] | None = None,
    recording: bool = False,
    text: str | None = None,
    document: Node | None = None,
    project: Project | None = None,
) -> LoadedFile:
    """The scenarios of a file and what is wrong with the file, without raising either.

    When ``recording``, packets without an expectation get an empty one. ``text`` is read instead of the
    file's content, and ``document`` is that content, read already. ``project`` is the one that the file belongs to;
    None looks for it.
    """
    try:
        project = project or resolve.project_of(path)
        root = document or resolve.document(path, project, text)
    except ScenarioError as error:
        return LoadedFile(cases=(), errors=(error,))
    root, found = expand(root)
    file, rest, more = convert(root, ScenarioFile)
    found = without_consequences([*found, *more])
    whole = [problem for problem in found if not _is_in_scenario(problem)]
    wrong = {problem.keys[0] for problem in whole if problem.keys} | ({"ruleset"} - rest.children.keys())
    network, rulesets, further, elsewhere = _shared(path, project, file or _without_scenarios(rest), wrong)
    whole += further
    setup: Setup | None = None
    if file is not None and network is not None and not whole:
        setup = Setup(file, network, rulesets, project, layers, recording)
    # What is left of the list has lost its wrong entries, so the indices are those of `rest`.
    scenarios = dict(zip(rest.children["scenarios"].children, file.scenarios, strict=True)) if file is not None else {}
    cases = _cases(path, _entries(root, scenarios, found), setup)
    return LoadedFile(
        cases=tuple(cases),
        errors=(*(located(problem, root, path) for problem in whole), *elsewhere),
        # With a key that means nothing, perhaps misspelt, variables may be missing.
        rulesets=() if wrong - _KEYS else tuple(rulesets.values()),
    )


def _without_scenarios(rest: Node) -> ScenarioFile | None:
    """What is left of a file that cannot be read as a whole, with others in place of its scenarios and a missing
    ruleset.

    None where that cannot be read either.
    """
    if not isinstance(rest.value, dict):
        return None
    rest = rest.without("scenarios")
    rest.put("scenarios", rest.place, Node.of([{"name": "none"}], rest.place))
    if "ruleset" not in rest.children:
        rest.put("ruleset", rest.place, Node.of("none.nft", rest.place))
    return convert(rest, ScenarioFile)[0]


def _shared(
    path: Path, project: Project, file: ScenarioFile | None, wrong: set[str | int]
) -> tuple[Network | None, Mapping[str, Files], list[Problem], list[ScenarioError]]:
    """Lab and rulesets of ``file`` as far as they do not depend on the ``wrong`` keys, and what is wrong with them.

    The last are mistakes in the file of the lab.
    """
    network: Network | None = None
    rulesets: Mapping[str, Files] = {}
    found: list[Problem] = []
    elsewhere: list[ScenarioError] = []
    if file is not None and wrong.isdisjoint(_OF_LAB):
        try:
            network = resolve.network(path, project, file.lab, file.interfaces, frozenset(file.rulesets))
        except Problem as problem:
            found += apart(problem)
        except ScenarioError as error:
            elsewhere += apart(error)
    if file is not None and wrong.isdisjoint(_OF_RULESETS):
        try:
            rulesets = resolve.rulesets(path, project, file, network)
        except Problem as problem:
            found += apart(problem)
    return network, rulesets, found, elsewhere


def load_lab(path: Path) -> Network:
    """The lab of a scenario file, or of a file that holds a lab.

    Raises :class:`~harness.errors.ScenarioError` when it is wrong; scenarios are not looked at.
    """
    project = find([path])
    root = resolve.document(path, project, needs=resolve.LAB_FILE)
    if not {"lab", "scenarios"} & root.children.keys():
        return Network.of(resolve.lab_in(path, project))
    file, _, found = convert(_lab_only(root), _LabOnly)
    try:
        if found or file is None:
            raise together(found)
        return resolve.network(path, project, file.lab, file.interfaces)
    except Problem as problem:
        raise located(problem, root, path) from None


def set_up(document: Node, path: Path, *, layers: Collection[str] | None = None) -> Setup:
    """Lab and rulesets as ``document``, written in ``path``, describes them with the keys of a scenario file.

    Raises :class:`~harness.errors.ScenarioError`, all of them together.
    """
    document.put("scenarios", document.place, Node.of([{"name": path.name}], document.place))
    file, _, found = convert(document, ScenarioFile)
    try:
        if found or file is None:
            raise together(found)
        return Setup.of(path, file, layers, resolve.project_of(path))
    except Problem as problem:
        raise located(problem, document, path) from None


def case_of(document: Node, path: Path, *, setup: Setup, name: str) -> Case:
    """The single step in ``document`` as a scenario called ``name``; ``path`` is where it is written.

    Raises :class:`~harness.errors.ScenarioError`, all of them together.
    """
    step, _, found = convert(document, ActionSpec)
    try:
        if found or step is None:
            raise together(found)
        step = resolve.step_with_files(path, setup.project, step)
        if found := list(check_step(step, setup.network, setup.layers)):
            raise together(found)
        action = step.action
    except Problem as problem:
        raise located(problem, document, path) from None
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
    """The keys of a scenario file that make its lab."""

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
        """The setup that ``file`` describes; ``network`` is its lab, where that is planned already."""
        network = network or resolve.network(path, project, file.lab, file.interfaces, frozenset(file.rulesets))
        return cls(file, network, resolve.rulesets(path, project, file, network), project, layers)


class _Entry(NamedTuple):
    """An entry of the list of scenarios."""

    node: Node
    scenario: Scenario | None
    """None when it cannot be read as one."""
    problems: Sequence[Problem]
    """Mistakes found in it so far, with keys below the entry."""


def _entries(root: Node, scenarios: Mapping[str | int, Scenario], found: Sequence[Problem]) -> Iterator[_Entry]:
    """The entries of the list of scenarios in ``root``; ``scenarios`` are those that can be read, by their index."""
    nodes = root.children.get("scenarios")
    if nodes is not None and isinstance(nodes.value, list):
        for index, node in nodes.children.items():
            problems = [one.inside(2) for one in found if _is_in_scenario(one) and one.keys[1] == index]
            yield _Entry(node, scenarios.get(index), problems)


def _cases(path: Path, entries: Iterator[_Entry], setup: Setup | None) -> Iterator[Case | Broken]:
    """The scenarios in the order of the file; without a setup, only those that are wrong themselves."""
    lines: dict[str, int] = {}
    ids: set[str] = set()
    for node, scenario, problems in entries:
        errors: list[ScenarioError] = []
        own, scenario, found = _checked(path, scenario, setup, problems, errors)
        name = node.children["name"].value if "name" in node.children else None
        if not isinstance(name, str):
            name = f"scenario {len(ids) + 1}"
        elif name in lines:
            found.append(Problem(f"the scenario in line {lines[name]} has the same name", "name"))
        lines.setdefault(name, node.place.line)
        marks = tuple(scenario.marks) if scenario is not None else ()
        identifier = _identifier(name, ids)
        if found or errors:
            errors = [*(located(problem, node, path) for problem in found), *errors]
            yield Broken(file=path, name=name, id=identifier, marks=marks, errors=tuple(errors))
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


def _checked(
    path: Path,
    scenario: Scenario | None,
    setup: Setup | None,
    problems: Sequence[Problem],
    errors: list[ScenarioError],
) -> tuple[Setup | None, Scenario | None, list[Problem]]:
    """The setup of ``scenario``, the scenario with the files that it names, and what is wrong with it.

    Mistakes in other files than ``path`` are added to ``errors``.
    """
    found = list(problems)
    if setup is None or scenario is None or found:
        return setup, scenario, found
    try:
        setup = _own(path, scenario, setup)
        scenario = resolve.with_files(path, setup.project, scenario)
        for problem in check(scenario, setup.network, setup.layers):
            if not (setup.recording and isinstance(problem, NothingExpected)):
                found.append(problem)
    except Problem as problem:
        found += apart(problem)
    except ScenarioError as error:
        errors += apart(error)
    return setup, scenario, found


def _own(path: Path, scenario: Scenario, setup: Setup) -> Setup:
    """The setup of ``scenario``: that of the file, except for what the scenario sets itself."""
    own = {key: said for key in ("lab", "interfaces", "ruleset") if (said := getattr(scenario, key)) is not UNSET}
    if not own:
        return setup
    if "lab" in own:
        own = {"interfaces": {}, "rulesets": {}} | own
    network = None if {"lab", "interfaces"} & own.keys() else setup.network
    made = Setup.of(path, structs.replace(setup.file, **own), setup.layers, setup.project, network)
    return made._replace(recording=setup.recording)


def _is_in_scenario(problem: Problem) -> bool:
    return len(problem.keys) > 1 and problem.keys[0] == "scenarios"


def _identifier(name: str, taken: set[str]) -> str:
    """``name`` as one word that is safe in a shell, in ``-k`` and in a test id; unlike all those ``taken``."""
    word = re.sub(r"[^\w.+]+", "-", name).strip("-") or "scenario"
    identifier = next(one for n in itertools.count(1) if (one := f"{word}-{n}" if n > 1 else word) not in taken)
    taken.add(identifier)
    return identifier
