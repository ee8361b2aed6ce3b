"""A lab without a tracer: what nf_tables' trace and the interfaces of the other hosts show of a packet, and no more.

It is quick, and it proves nothing by itself: who sifts measures again, with functions, what matters. What the kernel
gives is read by :mod:`harness.batch.sighting`, here or, as an emulated kernel makes Python slow, by the controller.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Self

import msgspec

from harness.batch.messages import Loaded, Sifted, SiftedStep, Sighting, Traced
from harness.batch.remembered import State
from harness.batch.sighting import SightingReader
from harness.batch.stage import Labs, LabsWith, Stage, loaded, prepare
from harness.errors import BrokenMeasurement, HarnessError
from harness.experiment.resolution import Resolution
from harness.lab.capture import Capture
from harness.lab.inject import Senders
from harness.lab.lab import Host, Lab
from harness.model.observation import Loss, Observation, Rule, Step
from harness.packets.frames import Frame
from harness.reading.words import loss_remedy
from harness.ruleset.hosts import built
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace_chains import TraceChains
from harness.scenario.case import Files
from harness.topology.network import Network
from harness.wait import wait_until

BACKLOG, CPU = 11, 12
"""Columns of /proc/net/softnet_stat (softnet_seq_show in net/core/net-procfs.c): frames that wait, and of which CPU."""
SETTLED_S: Final = 5.0
"""Seconds within which the frames that wait are received."""


class SiftStage:
    """A lab whose device has loaded its ruleset; packets are sent one by one, on one CPU."""

    watches_functions = False

    def __init__(self, lab: Lab, rulesets: Mapping[str, Ruleset], files: Files) -> None:
        self._lab = lab
        self._files = files
        self._ruleset = rulesets[lab.network.device]
        self._tracing = TraceChains(lab.device, self._ruleset)
        self._capture = Capture(host for host in lab.hosts.values() if host is not lab.device)
        self._neighbours = Resolution(lab, self._ruleset)
        self._senders = Senders(lab.hosts)
        self._reader = SightingReader(self._tracing.steps, lab.device.name, os.uname().release)

    @classmethod
    @contextmanager
    def open(cls, network: Network, files: Files) -> Iterator[Self]:
        """Build the lab and load the ruleset ``files``; nothing of either is left after the ``with``."""
        with built(network, {network.device: files}) as (lab, loaded), _on_one_cpu():
            yield cls(lab, loaded, files)

    @property
    def ruleset(self) -> Ruleset:
        """Of the device under test."""
        return self._ruleset

    @property
    def device(self) -> Host:
        """The device under test."""
        return self._lab.device

    def renew(self) -> bool:
        """As :meth:`harness.experiment.run.Experiment.renew`."""
        return self.ruleset.renew(self._files.paths, self._files.defines, self._tracing.anew())

    def rename(self, ruleset: Ruleset) -> None:
        """As :meth:`harness.experiment.run.Experiment.rename`."""
        self._neighbours.follow(ruleset)
        self._ruleset = ruleset
        self._tracing.rename(ruleset)

    def inject_each(
        self, groups: Iterable[Sequence[Frame]], after: Callable[[Sequence[Step]], bool]
    ) -> list[tuple[Observation, ...] | None]:
        """As :meth:`harness.experiment.run.Experiment.inject_each`; None where messages are not all of the packet.

        Raises :class:`~harness.errors.BrokenMeasurement` where messages or frames were lost.
        """
        found: list[tuple[Observation, ...] | None] = []
        self.forget_earlier()
        for frames in groups:
            steps: list[Step] = []
            seen: list[Observation | None] = []
            for frame in frames:
                own, observation = self._reader.read(frame, self.sight(frame))
                steps += own
                seen.append(observation)
            known = tuple(one for one in seen if one is not None)
            found.append(known if len(known) == len(seen) else None)
            if not after(steps):
                break
        return found

    def forget_earlier(self) -> None:
        """Read what the kernel has reported until now, and forget it."""
        self._tracing.receive()
        self._capture.read()

    def sight(self, frame: Frame) -> Sighting:
        """Send ``frame``; what is seen of it.

        Raises :class:`~harness.errors.BrokenMeasurement` where messages or frames were lost.
        """
        overruns = self._tracing.overruns
        self._neighbours.of_frame(frame)
        self._senders.of(frame).send(frame.data)
        wait_until(is_received, SETTLED_S, "the frames that were sent to be received")
        messages, captured = self._tracing.receive(), self._capture.read()
        if self._tracing.overruns != overruns:
            raise BrokenMeasurement("messages of nf_tables' trace were lost", remedy=loss_remedy(Loss(trace=1)))
        arrived = ((one.host, one.device, one.frame) for one in captured if not one.outgoing)
        return Sighting(tuple(messages), tuple(arrived))

    def steps(self, messages: Iterable[bytes]) -> list[Step]:
        """The steps that ``messages``, those of sightings, are about, in order."""
        return [step for _, step in self._reader.steps(messages) if step]

    @property
    def traced(self) -> Traced:
        """What its sightings are read with."""
        steps, device = self._tracing.steps, self.device
        return Traced(device=device.name, chains=self._ruleset.chains, table=steps.table, interfaces=device.names)


def sifted(side: bytes, packets: Sequence[Sequence[Sequence[Frame]]]) -> Iterator[Loaded | Sifted]:
    """Load the ruleset of ``side``, and send each of ``packets``, steps of frames, as if it were the first.

    Raises :class:`~harness.errors.HarnessError` for a lab or ruleset that cannot be had.
    """
    network, files = pickle.loads(side)
    with ExitStack() as stack:
        labs = Labs(stack, lambda: Sifting(stack.enter_context(SiftStage.open(network, files))))
        yield labs.current().loaded
        # The ruleset is loaded anew as it was, so that its rules keep their handles.
        yield from (one for one in sifted_in(labs, packets) if isinstance(one, Sifted))


def sifted_in(labs: LabsWith[Sifting], packets: Iterable[Sequence[Sequence[Frame]]]) -> Iterator[Loaded | Sifted]:
    """What is seen of each of ``packets`` in ``labs``, behind the ruleset where its rules are not as before."""
    rules: tuple[Rule, ...] | None = None
    for packet in packets:
        sifting = labs.current()
        if (now := sifting.rules) != rules:
            rules = now
            yield sifting.loaded
        yield sifting.one(packet)
        if not sifting.is_fresh:
            labs.leave()


class Sifting:
    """Sifts packets in one lab."""

    def __init__(self, inner: SiftStage, stage: Stage | None = None) -> None:
        """``stage`` is ``inner``, or has other rulesets in it in place of its own."""
        prepare(inner)
        self._inner = inner
        self._state = State(stage or inner)
        self.is_fresh = True
        """Whether the state is that of the ruleset just loaded."""
        inner.forget_earlier()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Of the ruleset, with the handles that they have now."""
        return self._inner.ruleset.rules

    @property
    def loaded(self) -> Loaded:
        """The ruleset."""
        return msgspec.structs.replace(loaded(self._inner, self._state.timed), traced=self._inner.traced)

    def follow(self) -> None:
        """Know the stage's ruleset, which is another one and as just loaded."""
        self.is_fresh = True
        self._state.follow()
        self._inner.forget_earlier()

    def one(self, packet: Sequence[Sequence[Frame]]) -> Sifted:
        """Send ``packet``, and have the device forget it."""
        found: list[SiftedStep] = []
        steps: list[Step] = []
        self._state.begin()
        try:
            for frames in packet:
                seen = tuple(map(self._inner.sight, frames))
                messages = [message for one in seen for message in one.messages]
                # Only a packet that the ruleset may remember has to be understood here.
                own = self._inner.steps(messages) if self._state.remembered.may_concern(messages) else []
                elements, connections = self._state.left_by(own)
                found.append(
                    SiftedStep(sightings=seen, elements=elements, connections=connections, age_s=self._state.age)
                )
                steps += own
            self.is_fresh = self._state.forget(steps)
        except HarnessError as error:
            self.is_fresh = False
            return Sifted(error=str(error).splitlines()[0])
        return Sifted(steps=tuple(found))


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Where a frame is sent it is received, and by the time that the sender runs again it has been."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


_SOFTNET: list[int] = []


def is_received() -> bool:
    """Whether no frame waits on any CPU of this kernel."""
    if not _SOFTNET:
        _SOFTNET.append(os.open("/proc/net/softnet_stat", os.O_RDONLY | os.O_CLOEXEC))
    rows = os.pread(_SOFTNET[0], 1 << 16, 0).splitlines()
    return all(not int(row.split()[BACKLOG], 16) for row in rows)
