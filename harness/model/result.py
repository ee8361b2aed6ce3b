"""The stored form of what became of a scenario: all that a report needs, and nothing of pytest or the kernel.

A worker makes a :class:`Result` for every scenario, pytest's report carries it to the controller as
JSON, and every report is made from results alone. ``--nft-results`` stores them, one file each;
``nft-harness report`` reads them again.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from harness import untrusted
from harness.bounds import RESULT_BYTES, RESULTS_BYTES, RULESET_BYTES
from harness.errors import HarnessError, Position
from harness.model.mismatch import Mismatch
from harness.model.observation import InChain, Observation, ObservedPacket, Place, Rule, Step, Value, Verdict
from harness.project import Project, find
from harness.save import save

VERSION = 1
"""Of the stored form. It grows when a reader of the version before would misread a file."""

SUFFIX = ".nft-result.json"
LINES = ".jsonl"
"""Suffix of a file with a result on each line."""

OutcomeName = Literal["passed", "failed", "error", "skipped"]
"""``failed``: the ruleset did not do what was expected. ``error``: the scenario or the measurement is
broken. ``skipped``: this kernel cannot do it."""


class LabInterface(Value, frozen=True, kw_only=True):
    """An interface of the lab, as far as a picture shows it."""

    host: str
    name: str
    addresses: tuple[str, ...]
    """With prefix length, e.g. ``10.0.2.1/24``."""
    peer: tuple[str, str]
    """Host and interface at the other end of the link."""


class LabPlan(Value, frozen=True, kw_only=True):
    """The lab, as far as a picture shows it."""

    hosts: tuple[str, ...]
    device: str
    """The host under test."""
    interfaces: tuple[LabInterface, ...]


class Policy(InChain, frozen=True, kw_only=True):
    """The policy of a base chain: what decides when no rule does."""

    hook: str
    verdict: str
    position: Position | None = None
    """Where it is written, or where the chain's hook is if it is not; None when neither was found."""

    @property
    def place(self) -> Place:
        """By which it is known in the ruleset."""
        return self.family, self.table, self.chain, 0


class RulesetPlan(Value, frozen=True, kw_only=True):
    """The ruleset that was loaded."""

    file: str
    """Relative to the folder that pytest was called in, as all positions here, where it lies below that."""
    rules: tuple[Rule, ...]
    """In the order of nft's listing: by table, by chain, in the order of evaluation."""
    policies: tuple[Policy, ...]
    sets: Mapping[str, tuple[str, ...]] = {}
    """What named sets and maps hold, by family, table and name; of a map ``key : value``."""
    texts: Mapping[str, str] = {}
    """The content of each file in which a rule or policy stands, as it was during the run."""

    def is_like(self, other: RulesetPlan) -> bool:
        """Whether it has the same rules, policies and sets as ``other``, whichever texts are known of it."""
        return self is other or (self.rules, self.policies, self.sets) == (other.rules, other.policies, other.sets)

    @property
    def positions(self) -> Iterator[Position]:
        """Where rules and policies stand, as far as known."""
        yield from (rule.position for rule in self.rules if rule.position)
        yield from (policy.position for policy in self.policies if policy.position)


class PacketResult(Value, frozen=True, kw_only=True):
    """What one step of a scenario sent, and what became of it."""

    action: int
    """Number of the step, from 0."""
    summary: str
    """The packet in one line."""
    packet: int
    """Its number in the observation."""
    observation: Observation
    """Without the names of all functions that were armed: they are 1,700, and the same each time."""
    verdict: Verdict | None = None
    """None when no base chain saw the packet, or when nothing could be judged."""
    with_: str = msgspec.field(name="with", default="")
    """For a reject: with what."""
    decided: tuple[Step, ...] = ()
    """The steps that decided."""
    ended: str = ""
    """Where and why the packet's way ended, as a part of a sentence."""
    mismatches: tuple[Mismatch, ...] = ()
    advice: tuple[str, ...] = ()
    """What to do about them, where the cause is known: sentences."""
    notes: tuple[str, ...] = ()
    """Remarks that hold even where all is as expected: sentences."""
    ruleset: RulesetPlan | None = None
    """The ruleset that was in force, where a step has changed it; None for that of the result."""

    @property
    def seen(self) -> ObservedPacket:
        """The packet sent."""
        return next(packet for packet in self.observation.packets if packet.number == self.packet)


class Result(Value, frozen=True, kw_only=True):
    """What became of one scenario on one kernel."""

    version: int = VERSION
    id: str
    """pytest's node id, e.g. ``scenarios/edge.yaml::HTTPS-reaches-the-web-server``."""
    name: str
    """As written in the scenario file."""
    position: Position
    """Where the scenario begins."""
    outcome: OutcomeName
    where: Position | None = None
    """What to look at: the expectation that was not met, or the mistake; None when that is not known."""
    message: str = ""
    """The failure text, the error or the reason of a skip; no colours."""
    kernel: str = ""
    """``uname -r`` where the scenario ran or was to run; "" when that is not known."""
    engine: str = ""
    """How functions were traced, e.g. ``kprobe.multi``."""
    nft: str = ""
    """Version of the nft that read the rulesets, e.g. ``1.1.3``; "" when none was read."""
    sent: tuple[PacketResult, ...] = ()
    """One for each step that expects something, in order."""
    ruleset: RulesetPlan | None = None
    """The one that the first packet met."""
    lab: LabPlan | None = None
    seconds: float = 0.0
    """How long the scenario took, from its lab to its judgement."""

    def by_ruleset(self) -> Iterator[tuple[RulesetPlan, list[PacketResult]]]:
        """Each ruleset that was in force, and the packets that met it; those that are equal are one."""
        if self.ruleset is None:
            return
        found: list[tuple[RulesetPlan, list[PacketResult]]] = [(self.ruleset, [])]
        for one in self.sent:
            plan = one.ruleset or self.ruleset
            packets = next((packets for other, packets in found if other.is_like(plan)), None)
            if packets is None:
                packets = []
                found.append((plan, packets))
            packets.append(one)
        yield from found


def encode(result: Result) -> bytes:
    """Return ``result`` as JSON."""
    return msgspec.json.encode(result)


class _Version(msgspec.Struct):
    version: int


def decode(text: bytes, source: str = "result") -> Result:
    """Return what :func:`encode` made.

    Raises :class:`~harness.errors.HarnessError`, naming ``source``, for anything else.
    """
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            raise HarnessError(
                f"{source} is a stored result of version {version}, and this nft-harness reads version {VERSION}",
                remedy="run the scenarios again",
            )
        result = msgspec.json.decode(text, type=Result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HarnessError(f"{source} is not a stored result: {error}", remedy="run the scenarios again") from None
    if wrong := _unsound(result):
        raise HarnessError(f"{source} is not a stored result: {wrong}", remedy="run the scenarios again")
    return result


def _unsound(result: Result) -> str:
    """What in a result contradicts the rest of it; "" for one that a run may have made."""
    for number, sent in enumerate(result.sent, 1):
        if wrong := _unsound_step(number, sent):
            return wrong
    if result.lab and (wrong := _unsound_lab(result.lab)):
        return wrong
    places = [result.position, *([result.where] if result.where else [])]
    places += [place for plan, _ in result.by_ruleset() for place in plan.positions]
    if not all(0 <= number < 1 << 31 for place in places for number in place[1:]):
        return "a position has an impossible line number"
    return ""


def _unsound_step(number: int, sent: PacketResult) -> str:
    numbers = [packet.number for packet in sent.observation.packets]
    if sent.packet not in numbers:
        return f"step {number} is about packet {sent.packet}, which it does not have"
    if len(set(numbers)) < len(numbers):
        return f"step {number} has two packets with the same number"
    if sent.action < 0:
        return f"step {number} has the number {sent.action}"
    for packet in sent.observation.packets:
        parts = (packet.hops, packet.steps, packet.deliveries)
        times = [packet.born, *(one.time for part in parts for one in part)]
        if not all(0 <= time < 1 << 62 for time in times):
            return f"packet {packet.number} of step {number} has an impossible time"
    return ""


def _unsound_lab(lab: LabPlan) -> str:
    hosts = set(lab.hosts)
    if lab.device not in hosts:
        return f"the lab has no host '{lab.device}', which is the device under test"
    if len(hosts) < len(lab.hosts):
        return "the lab has two hosts with the same name"
    for one in lab.interfaces:
        if one.host not in hosts or one.peer[0] not in hosts:
            return f"an interface of the lab leads from '{one.host}' to '{one.peer[0]}', not both of which it has"
    return ""


def with_texts(result: Result, folder: Path, known: dict[str, str | None], project: Project | None = None) -> Result:
    """Return ``result`` with the content of its ruleset's files, read from ``folder``.

    ``known`` holds what was read before. A file that cannot be read any more is left out, and so is one outside of
    ``project``, by default that of ``folder``: the names come from where the scenario ran.
    """
    if result.ruleset is None:
        return result
    project = project or find([], folder)
    texts = {}
    positions = (position.file for plan, _ in result.by_ruleset() for position in plan.positions)
    for name in dict.fromkeys((result.ruleset.file, *(one for one in positions if one != result.position.file))):
        if name not in known:
            known[name] = _text(folder / name, project)
        if (text := known[name]) is not None:
            texts[name] = text
    return msgspec.structs.replace(result, ruleset=msgspec.structs.replace(result.ruleset, texts=texts))


def _text(file: Path, project: Project) -> str | None:
    """The content of a file that a result names; None where it cannot be read, or lies outside of ``project``."""
    try:
        return untrusted.read(file, RULESET_BYTES, allowed=project.allows).decode(errors="replace")
    except untrusted.Unreadable:
        return None


def store(results: Iterable[Result], folder: Path) -> None:
    """Write every result to a file of its own below ``folder``, which is made if need be.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for result in results:
            save(folder / f"{file_stem(result)}{SUFFIX}", encode(result))
    except OSError as error:
        raise HarnessError(f"results can't be stored in {folder}: {error.strerror}") from None


def file_stem(result: Result) -> str:
    """A readable name for files of ``result``: the same in every run, and no other result's."""
    whole = f"{result.id}-{result.kernel}"
    readable = re.sub(r"[^\w.-]+", "-", whole, flags=re.ASCII).strip("-.")
    return f"{readable[:180]}-{zlib.crc32(whole.encode()):08x}"


def read(paths: Iterable[Path]) -> Iterator[Result]:
    """Read stored results from files and folders.

    Raises :class:`~harness.errors.HarnessError` for a file that is none, and when there is nothing.
    """
    for path in paths:
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not files:
            raise HarnessError(f"{path} holds no stored results (*{SUFFIX})", remedy="pytest --nft-results makes them")
        for file in files:
            try:
                if file.suffix == LINES:
                    for number, line in enumerate(untrusted.read_lines(file, RESULT_BYTES, RESULTS_BYTES), 1):
                        yield decode(line, f"{file}:{number}")
                else:
                    yield decode(untrusted.read(file, RESULT_BYTES), str(file))
            except untrusted.Unreadable as error:
                raise HarnessError(f"{file} {error}") from None


def changed(results: Iterable[Result], folder: Path) -> list[str]:
    """Return the rulesets' files that are not what they were in the run, by their names relative to ``folder``.

    Only files of the project of ``folder`` are looked into: others are unknown, and not reported as changed.
    """
    project = find([], folder)
    texts = {item: None for result in results if result.ruleset for item in result.ruleset.texts.items()}
    inside = [(name, text) for name, text in texts if _may_lie_in(project, folder, name)]
    return list(dict.fromkeys(name for name, text in inside if _text(folder / name, project) != text))


def _may_lie_in(project: Project, folder: Path, name: str) -> bool:
    try:
        return project.allows((folder / name).resolve())
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, links in a circle
        return False


def order(result: Result) -> tuple[str, int, str]:
    """Key that sorts results as their scenarios stand in their files, one kernel after the other."""
    return result.position.file, result.position.line, result.kernel
