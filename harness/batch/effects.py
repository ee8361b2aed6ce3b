"""What a ruleset does with each of many packets, on the kernel that measures: one lab, and the same state for each."""

from __future__ import annotations

import pickle
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from harness.batch.messages import Effect, Effects, Listed, Loaded, Place
from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.model.observation import Connection, Delivery, Drop, Observation, ObservedPacket, Step, Verdict
from harness.model.result import PacketResult
from harness.packets.frames import Frame
from harness.packets.headers import fields, summarise
from harness.reading.decision import Outcome, arrivals, decisive, outcome
from harness.reading.rules import bare
from harness.recording import chance
from harness.recording.sample import NotRecordableError, Sample
from harness.ruleset import conntrack, state

if TYPE_CHECKING:
    from harness.experiment.run import Experiment
    from harness.ruleset.load import Ruleset
    from harness.scenario.case import Files
    from harness.topology.network import Network
    from harness.tracer.base import BaseTracer

IN_ONE_LAB: Final = 250
"""Packets, each of which opens a socket that is open as long as the lab is there."""
REMEMBERS: Final = re.compile(r"\b(?:limit rate|quota|numgen inc|ct count|last|add @|update @|delete @|flow add)")
"""Statements by which a ruleset remembers packets; connections are forgotten in any case."""
_CHANGED: Final = re.compile(r"\b(?:add|update|delete) @([\w./-]+)")
_OF_CONNECTION: Final = re.compile(
    r"\b(?:ct (?:mark|helper|label|zone|timeout|expectation)|notrack|[sd]nat|masquerade|redirect)\b"
)
_LOG: Final = re.compile(r'\blog\b(?: prefix "[^"]*"| group \d+| level \w+)*')

ICMP: Final = {
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv6/icmp/ratelimit": "0",
}
"""Settings of the kernel by which the answer to a packet does not depend on those before; older kernels lack some."""


def effects(
    side: bytes, packets: Sequence[Sequence[Sequence[Frame]]], tracer: BaseTracer
) -> Iterator[Loaded | Effects]:
    """Load the ruleset of ``side``, and send each of ``packets`` as if it were the first.

    Raises :class:`~harness.errors.HarnessError` for a lab or ruleset that cannot be had.
    """
    network, files = pickle.loads(side)
    with ExitStack() as stack:
        stage: Experiment | None = _opened(stack, network, files, tracer)
        assert stage is not None
        yield Loaded(kernel=tracer.kernel, rules=stage.ruleset.rules, policies=stage.ruleset.policies)
        for number, steps in enumerate(packets, 1):
            if stage is None:
                stage = _opened(stack, network, files, tracer)
            try:
                seen = tuple(effect for frames in steps for effect in _sent(stage, frames))
                yield Effects(seen=seen)
                fresh = _taken_back(stage, seen)
            except HarnessError as error:
                yield Effects(error=str(error).splitlines()[0])
                fresh = False
            if not fresh or number % IN_ONE_LAB == 0:
                stack.close()
                stage = None


def _opened(stack: ExitStack, network: Network, files: Files, tracer: BaseTracer) -> Experiment:
    from harness.experiment.run import Experiment

    stage = stack.enter_context(Experiment.open(network, {network.device: files}, tracer))
    for name, value in ICMP.items():
        with suppress(OSError, HarnessError):
            stage.device.namespace.sysctl({name: value})
    stage.arm(())
    return stage


def _sent(stage: Experiment, frames: Sequence[Frame]) -> Iterator[Effect]:
    for frame, observation in zip(frames, stage.inject(frames), strict=True):
        yield _effect(stage, frame, observation, decisive(observation))


def _taken_back(stage: Experiment, seen: Sequence[Effect]) -> bool:
    """Whether the state of the device is again what it was before the packets."""
    try:
        if any(one.verdict != "drop" for one in seen):  # a connection is confirmed behind the last hook
            conntrack.flush(stage.device)
    except Unsupported:
        return False
    keys = {place for one in seen for place in one.met}
    chains = {place[:3] for place in keys}
    remembers = any(
        REMEMBERS.search(bare(rule.text))
        for rule in stage.ruleset.rules
        if (rule.family, rule.table, rule.chain) in chains
    )
    return stage.renew() if remembers else True


# --- one packet ---------------------------------------------------------------------------------


def _effect(stage: Experiment, frame: Frame, observation: Observation, packet: ObservedPacket) -> Effect:
    device, ruleset = observation.device, stage.ruleset
    seen = outcome(packet, device)
    steps = [step for step in packet.steps if step.host == device]
    _refuse_unlisted(steps)
    sample = Sample(
        sent=PacketResult(action=0, summary=frame.summary, packet=packet.number, observation=observation),
        rules=ruleset.rules,
        where="",
    )
    drawn = chance.random_fields(sample)
    arrived = [_frame(one, drawn) for one in packet.deliveries if one.frame]
    taken_in = [device] if device in arrivals(packet) else []
    marks = [step.mark for step in steps]
    return Effect(
        verdict=str(seen),
        decided=tuple(map(_place, seen.deciding)),
        met=tuple(_place(step) for step in steps if step.kind != "return"),
        arrived=tuple(dict.fromkeys([*arrived, *taken_in])),
        answers=tuple(dict.fromkeys(_frame(one, drawn) for one in observation.replies)),
        mark=marks[-1] if marks else 0,
        logs=tuple(found[0] for step in steps if step.rule for found in _LOG.finditer(step.rule.text)),
        elements=_elements(ruleset, steps),
        connections=_tracked(stage, drawn) if seen.verdict is Verdict.ACCEPT and _tells(ruleset) else (),
        ended="" if arrived else _ended(packet.drop, device, seen),
        by_chance=_chance(sample),
    )


def _refuse_unlisted(steps: Iterable[Step]) -> None:
    if any(step.kind == "rule" and step.rule is None for step in steps):
        raise BrokenMeasurement("a rule decided that is not in the ruleset's listing")


def _ended(drop: Drop | None, device: str, seen: Outcome) -> str:
    """Where and why the kernel of ``device`` dropped what the ruleset accepted; "" where it did not."""
    if drop is None or drop.host != device or not str(seen).startswith("accept"):
        return ""
    return f"{drop.function}: {drop.reason}"


def _place(step: Step) -> Place:
    return step.family, step.table, step.chain, step.rule.handle if step.rule else 0


def _frame(one: Delivery, drawn: frozenset[str]) -> str:
    """What arrived, without what chance has drawn and without lengths of what the kernel quotes."""
    found = fields(one.frame)
    if drawn:
        ports = {name: "*" if name in drawn else found.get(name, "") for name in ("sport", "dport")}
        ends = f"{found.get('src')}:{ports['sport']} → {found.get('dst')}:{ports['dport']} {found.get('protocol')}"
    else:
        ends = summarise(one.frame)
    more = [f"{name} {found[name]}" for name in ("ttl", "tos", "mss", "vlan") if found.get(name)]
    return f"{one.host} {one.device}: {', '.join([ends, *more])}"


def _elements(ruleset: Ruleset, steps: Sequence[Step]) -> Mapping[str, tuple[str, ...]]:
    names = {
        f"{step.family} {step.table} {name}"
        for step in steps
        if step.rule
        for name in _CHANGED.findall(bare(step.rule.text))
    }
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(names):
        with suppress(state.MissingError):
            found |= {key: tuple(sorted(held)) for key, held in state.elements(ruleset.nft, [name]).items()}
    return found


def _tells(ruleset: Ruleset) -> bool:
    """Whether a rule may change of a connection what no packet shows."""
    return any(_OF_CONNECTION.search(bare(rule.text)) for rule in ruleset.rules)


def _tracked(stage: Experiment, drawn: frozenset[str]) -> tuple[str, ...]:
    """The connections of the device in words; nothing where this kernel does not list them."""
    if drawn:
        return ()
    with suppress(Unsupported):
        return tuple(sorted(map(_connection, conntrack.connections(stage.device))))
    return ()


def _connection(one: Connection) -> str:
    ways = " / ".join(f"{way.src}:{way.sport} → {way.dst}:{way.dport}" for way in (one.original, one.reply))
    status = ", ".join(name for name in one.status if name not in ("DYING",))
    more = [f"mark {one.mark}"] * bool(one.mark) + [f"zone {one.zone}"] * bool(one.zone)
    more += [f"helper {one.helper}"] * bool(one.helper)
    return " ".join([f"protocol {one.protocol}", ways, one.state, status, *more])


def _chance(sample: Sample) -> str:
    try:
        chance.refuse(sample)
    except NotRecordableError as refused:
        return str(refused)
    return ""


# --- nft --optimize -----------------------------------------------------------------------------


def optimized(side: bytes) -> Listed:
    """What ``nft --optimize`` makes of the ruleset of ``side``, as nft lists it after that.

    Raises :class:`~harness.errors.HarnessError` where nft refuses it.
    """
    from harness.ruleset.hosts import built

    network, files = pickle.loads(side)
    with built(network, {network.device: files}) as (lab, loaded):
        device = lab.hosts[network.device]
        names = [str(path) for path in files.paths]
        tables = "".join(f"delete table {family} {name}\n" for family, name in loaded[network.device].tables)
        loaded[network.device].nft.run(tables)
        for name in names:
            device.namespace.call(_nft, "--optimize", "--file", name)
        # The session's own nft lists sets without their elements.
        return Listed(listing=device.namespace.call(_nft, "--stateless", "list", "ruleset"))


def _nft(*arguments: str) -> str:
    """What nft prints on ``arguments``. Raises :class:`~harness.errors.HarnessError` where it refuses them."""
    ran = subprocess.run(["nft", *arguments], capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"])[0]
        raise HarnessError(f"nft {arguments[0]} refuses what nft takes: {said}")
    return ran.stdout
