"""What a ruleset does with each of many packets, on the kernel that measures: one lab, and the same state for each."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from harness.batch.messages import Effect, Effects, Listed, Loaded
from harness.batch.remembered import State
from harness.errors import BrokenMeasurement, HarnessError
from harness.lab import neighbours
from harness.model.observation import Connection, Delivery, Drop, Observation, ObservedPacket, Place, Step, Verdict
from harness.model.result import PacketResult
from harness.packets.frames import Frame
from harness.packets.headers import fields, summarise
from harness.reading.decision import FINAL, Outcome, arrivals, decisive, outcome
from harness.recording import chance
from harness.recording.sample import NotRecordableError, Sample
from harness.ruleset import state

if TYPE_CHECKING:
    from harness.batch.stage import Stage
    from harness.scenario.case import Files
    from harness.topology.network import Network
    from harness.tracer.base import BaseTracer

Packet = Sequence[Sequence[Frame]]
"""A packet with those before it: steps of one or more frames."""

TOGETHER: Final = 32
"""Packets in one recording."""
_LOG: Final = re.compile(r'\blog\b(?: prefix "[^"]*"| group \d+| level \w+)*')

ICMP: Final = {
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv6/icmp/ratelimit": "0",
    "net/ipv4/conf/all/send_redirects": "0",
}
"""Settings of the kernel by which the answer to a packet does not depend on those before; older kernels lack some."""
OF_INTERFACE: Final = {"net/ipv4/conf/{}/send_redirects": "0"}
"""The same, of each interface: redirects have a rate limit that cannot be lifted (ip_rt_send_redirect in route.c)."""


def effects(
    side: bytes, packets: Sequence[Packet], tracer: Callable[[], BaseTracer] | None
) -> Iterator[Loaded | Effects]:
    """Load the ruleset of ``side``, and send each of ``packets`` as if it were the first.

    Without a ``tracer`` they are sifted, see :mod:`harness.batch.sift`.

    Raises :class:`~harness.errors.HarnessError` for a lab or ruleset that cannot be had.
    """
    network, files = pickle.loads(side)
    with _Stages(network, files, tracer) as stages:
        stage = stages.current().stage
        loaded = stage.ruleset
        yield Loaded(
            kernel=os.uname().release, rules=loaded.rules, policies=loaded.policies, whole=stage.watches_functions
        )
        for first in range(0, len(packets), TOGETHER):
            yield from measured(stages, packets[first : first + TOGETHER])


class Stages(Protocol):
    """Labs with the same ruleset, one at a time."""

    def current(self) -> Measuring:
        """The lab, as if no packet had been sent there."""

    def leave(self) -> None:
        """Take the lab away."""


class _Stages:
    """A lab with its ruleset, and another one when that has come into a state that cannot be taken back."""

    def __init__(self, network: Network, files: Files, tracer: Callable[[], BaseTracer] | None) -> None:
        self._sides = network, files, tracer
        self._stack = ExitStack()
        self._current: Measuring | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Take the lab away."""
        self._current = None
        self._stack.close()

    def current(self) -> Measuring:
        """The lab, as if no packet had been sent there."""
        if self._current is None:
            self._current = Measuring(opened(self._stack, *self._sides))
        return self._current


def opened(stack: ExitStack, network: Network, files: Files, tracer: Callable[[], BaseTracer] | None) -> Stage:
    """A lab for packets of which each is to be as if it were the first; it ends with ``stack``."""
    stage: Stage
    if tracer is None:
        from harness.batch.sift import SiftStage

        stage = stack.enter_context(SiftStage.open(network, files))
    else:
        from harness.experiment.run import Experiment

        stage = armed = stack.enter_context(Experiment.open(network, {network.device: files}, tracer()))
        armed.arm(())
    of_interfaces = {key.format(name): one for name in stage.device.interfaces for key, one in OF_INTERFACE.items()}
    for name, value in (ICMP | of_interfaces).items():
        with suppress(OSError, HarnessError):
            stage.device.namespace.sysctl({name: value})
    neighbours.hold(stage.device)
    return stage


def measured(stages: Stages, packets: Sequence[Packet]) -> Iterator[Effects]:
    """The effects of each of ``packets``: in one recording, and what is not clear from that alone."""
    found: dict[int, Effects] = {}
    todo = deque([range(len(packets))])
    while todo:
        numbers = todo.popleft()
        measuring = stages.current()
        try:
            seen = measuring.measure([packets[number] for number in numbers])
        except HarnessError as error:
            stages.leave()
            if len(numbers) > 1:
                todo.extendleft(reversed([range(number, number + 1) for number in numbers]))
            else:
                found[numbers[0]] = Effects(error=str(error).splitlines()[0])
            continue
        if not measuring.is_fresh:
            stages.leave()
        if rest := numbers[len(seen) :]:
            todo.appendleft(rest)
        for number, one in zip(numbers, seen, strict=False):
            if one.error and len(numbers) > 1:
                todo.append(range(number, number + 1))
            else:
                found[number] = one
    yield from (found[number] for number in range(len(packets)))


class _Left(NamedTuple):
    """What a step left behind, and where chains decided."""

    hooks: tuple[str, ...]
    came: tuple[Place, ...]
    elements: Mapping[str, tuple[str, ...]]
    connections: tuple[Connection, ...]


class Measuring:
    """Measures packets in one lab."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.is_fresh = True
        """Whether the state is that of the ruleset just loaded."""
        self._state = State(stage)
        self._is_drawn = chance.decides(stage.ruleset.rules)
        self._may_be_refused = chance.may_refuse(stage.ruleset.rules)

    def follow(self) -> None:
        """Know the stage's ruleset, which is another one and as just loaded."""
        self.is_fresh = True
        self._state.follow()
        self._is_drawn = chance.decides(self.stage.ruleset.rules)
        self._may_be_refused = chance.may_refuse(self.stage.ruleset.rules)

    def measure(self, packets: Sequence[Packet]) -> list[Effects]:
        """The effects of the first of ``packets``: as many as could be sent from a fresh state, at least of one.

        One whose events cannot be told from those of others, or contradict each other, has an error. Raises
        :class:`~harness.errors.HarnessError` where that may be so of any.
        """
        groups = [(number, frames) for number, steps in enumerate(packets) for frames in steps]
        left: list[_Left] = []
        steps_of_packet: list[Step] = []
        ends = set(accumulate(map(len, packets)))
        """Of how many groups a whole number of packets consists."""

        def after(steps: Sequence[Step]) -> bool:
            left.append(self._left(steps))
            steps_of_packet.extend(steps)
            if len(left) in ends:
                self.is_fresh = self._state.forget(steps_of_packet)
                steps_of_packet.clear()
            return self.is_fresh

        seen = self.stage.inject_each([frames for _, frames in groups], after)
        found: list[Effects] = []
        for number, several in groupby(zip(groups, seen, left, strict=False), key=lambda one: one[0][0]):
            parts = list(several)
            if len(parts) < len(packets[number]):
                break
            if any(observations is None for _, observations, _ in parts):
                found.append(Effects(error="the kernel was not done with a step when the next one began"))
                continue
            try:
                effects = [
                    self._effect(frame, observation, kept)
                    for (_, frames), observations, kept in parts
                    for frame, observation in zip(frames, observations or (), strict=True)
                ]
            except HarnessError as error:
                found.append(Effects(error=str(error).splitlines()[0]))
            else:
                found.append(Effects(seen=tuple(effects)))
        return found

    def _left(self, steps: Sequence[Step]) -> _Left:
        elements: dict[str, tuple[str, ...]] = {}
        for name in sorted(set(self._state.remembered.sets(steps))):
            with suppress(state.MissingError):
                held = state.elements(self.stage.ruleset.nft, [name])
                elements |= {key: tuple(sorted(found)) for key, found in held.items()}
        hooks = (f"{step.hook} {step.verdict}" for step in steps if step.verdict in FINAL)
        return _Left(
            tuple(one for one, _ in groupby(hooks)),
            tuple(_place(step) for step in steps if step.host == self.stage.device.name),
            elements,
            self._state.connections() if self._state.remembered.of_connections else (),
        )

    def _effect(self, frame: Frame, observation: Observation, left: _Left) -> Effect:
        packet, device = decisive(observation), observation.device
        seen = outcome(packet, device)
        steps = [step for step in packet.steps if step.host == device]
        _refuse_unlisted(steps)
        drawn, by_chance = self._drawn(frame, observation, packet) if self._is_drawn else (frozenset(), "")
        arrived = [_frame(one, drawn) for one in packet.deliveries if one.frame]
        taken_in = [device] if device in arrivals(packet) else []
        marks = [step.mark for step in steps]
        is_tracked = seen.verdict is Verdict.ACCEPT and not drawn
        return Effect(
            verdict=str(seen),
            decided=tuple(map(_place, seen.deciding)),
            met=tuple(_place(step) for step in steps if step.kind != "return"),
            came=tuple(dict.fromkeys([*map(_place, steps), *left.came])),
            arrived=tuple(dict.fromkeys([*arrived, *taken_in])),
            answers=tuple(dict.fromkeys(_frame(one, drawn) for one in observation.replies)),
            mark=marks[-1] if marks else 0,
            logs=tuple(
                found[0]
                for step in steps
                if step.rule and "log" in step.rule.text
                for found in _LOG.finditer(step.rule.text)
            ),
            elements=left.elements,
            connections=tuple(sorted(map(_connection, left.connections))) if is_tracked else (),
            hooks=left.hooks,
            ended="" if arrived else _ended(packet.drop, device, seen),
            by_chance=by_chance,
        )

    def _drawn(self, frame: Frame, observation: Observation, packet: ObservedPacket) -> tuple[frozenset[str], str]:
        """The ports and addresses that chance has drawn, and why chance decides about the packet; "" if it does not."""
        sample = Sample(
            sent=PacketResult(action=0, summary=frame.summary, packet=packet.number, observation=observation),
            rules=self.stage.ruleset.rules,
            where="",
        )
        try:
            if self._may_be_refused:
                chance.refuse(sample)
        except NotRecordableError as refused:
            return chance.random_fields(sample), str(refused)
        return chance.random_fields(sample), ""


# --- one packet ---------------------------------------------------------------------------------


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
        source = "*" if "src" in drawn else found.get("src")
        ends = f"{source}:{ports['sport']} → {found.get('dst')}:{ports['dport']} {found.get('protocol')}"
    else:
        ends = summarise(one.frame)
    more = [f"{name} {found[name]}" for name in ("ttl", "tos", "mss", "vlan") if found.get(name)]
    return f"{one.host} {one.device}: {', '.join([ends, *more])}"


def _connection(one: Connection) -> str:
    ways = " / ".join(f"{way.src}:{way.sport} → {way.dst}:{way.dport}" for way in (one.original, one.reply))
    status = ", ".join(name for name in one.status if name not in ("DYING",))
    more = [f"mark {one.mark}"] * bool(one.mark) + [f"zone {one.zone}"] * bool(one.zone)
    more += [f"helper {one.helper}"] * bool(one.helper)
    return " ".join([f"protocol {one.protocol}", ways, one.state, status, *more])


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
