"""What a ruleset does with each of many packets, on the kernel that measures: one lab, and the same state for each."""

from __future__ import annotations

import pickle
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Final

from harness.batch.messages import Effects, Listed, Loaded
from harness.batch.reader import EffectReader, LeftBehind
from harness.batch.remembered import State
from harness.batch.stage import Labs, LabsWith, loaded, prepare
from harness.errors import HarnessError
from harness.model.observation import Step
from harness.packets.frames import Frame

if TYPE_CHECKING:
    from harness.batch.stage import Stage
    from harness.experiment.run import Experiment
    from harness.scenario.case import Files
    from harness.topology.network import Network
    from harness.tracer.base import BaseTracer

Packet = Sequence[Sequence[Frame]]
"""A packet with those before it: steps of one or more frames."""

TOGETHER: Final = 32
"""Packets in one recording."""


def effects(side: bytes, packets: Sequence[Packet], tracer: Callable[[], BaseTracer]) -> Iterator[Loaded | Effects]:
    """Load the ruleset of ``side``, and send each of ``packets`` as if it were the first.

    Raises :class:`~harness.errors.HarnessError` for a lab or ruleset that cannot be had.
    """
    network, files = pickle.loads(side)
    with ExitStack() as stack:
        labs = Labs(stack, lambda: Measuring(armed(stack, network, files, tracer())))
        yield labs.current().loaded
        for first in range(0, len(packets), TOGETHER):
            yield from measured(labs, packets[first : first + TOGETHER])


def armed(stack: ExitStack, network: Network, files: Files, tracer: BaseTracer) -> Experiment:
    """A lab in which functions are watched and each packet is as if it were the first; it ends with ``stack``."""
    from harness.experiment.run import Experiment

    stage = stack.enter_context(Experiment.open(network, {network.device: files}, tracer))
    stage.arm(())
    prepare(stage)
    return stage


def measured(labs: LabsWith[Measuring], packets: Sequence[Packet]) -> Iterator[Effects]:
    """The effects of each of ``packets``: in one recording, and what is not clear from that alone."""
    found: dict[int, Effects] = {}
    todo = deque([range(len(packets))])
    while todo:
        numbers = todo.popleft()
        measuring = labs.current()
        try:
            seen = measuring.measure([packets[number] for number in numbers])
        except HarnessError as error:
            labs.leave()
            if len(numbers) > 1:
                todo.extendleft(reversed([range(number, number + 1) for number in numbers]))
            else:
                found[numbers[0]] = Effects(error=str(error).splitlines()[0])
            continue
        if not measuring.is_fresh:
            labs.leave()
        if rest := numbers[len(seen) :]:
            todo.appendleft(rest)
        for number, one in zip(numbers, seen, strict=False):
            if one.error and len(numbers) > 1:
                todo.append(range(number, number + 1))
            else:
                found[number] = one
    yield from (found[number] for number in range(len(packets)))


class Measuring:
    """Measures packets in one lab."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.is_fresh = True
        """Whether the state is that of the ruleset just loaded."""
        self._state = State(stage)
        self._reader = EffectReader(stage.ruleset.rules, self._state.timed)

    @property
    def loaded(self) -> Loaded:
        """The ruleset."""
        return loaded(self.stage, self._state.timed)

    def follow(self) -> None:
        """Know the stage's ruleset, which is another one and as just loaded."""
        self.is_fresh = True
        self._state.follow()
        self._reader = EffectReader(self.stage.ruleset.rules, self._state.timed)

    def measure(self, packets: Sequence[Packet]) -> list[Effects]:
        """The effects of the first of ``packets``: as many as could be sent from a fresh state, at least of one.

        One whose events cannot be told from those of others, or contradict each other, has an error. Raises
        :class:`~harness.errors.HarnessError` where that may be so of any.
        """
        groups = [(number, frames) for number, steps in enumerate(packets) for frames in steps]
        left: list[LeftBehind] = []
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

        self._state.begin()
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
                effects = self._reader.effects((frames, seen or (), kept) for (_, frames), seen, kept in parts)
            except HarnessError as error:
                found.append(Effects(error=str(error).splitlines()[0]))
            else:
                found.append(Effects(seen=effects))
        return found

    def _left(self, steps: Sequence[Step]) -> LeftBehind:
        elements, connections = self._state.left_by(steps)
        return LeftBehind.of(steps, self.stage.device.name, elements, connections, self._state.age)


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
    lines = ran.stderr.strip().splitlines()
    if ran.returncode < 0:
        remedy = "that is a fault of this nft; another release may be free of it"
        crash = [f"nft {arguments[0]} crashed ({signal.Signals(-ran.returncode).name})", *lines[-1:]]
        raise HarnessError(": ".join(crash), remedy=remedy)
    if ran.returncode:
        said = (lines or [f"it ended with {ran.returncode}"])[0]
        raise HarnessError(f"nft {arguments[0]} refuses what nft takes: {said}")
    return ran.stdout
