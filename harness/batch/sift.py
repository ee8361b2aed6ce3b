"""A lab without a tracer: what nf_tables' trace and the interfaces of the other hosts show of a packet, and no more.

It is quick, and it proves nothing by itself: who sifts measures again, with functions, what matters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Self

from harness.errors import BrokenMeasurement
from harness.experiment.resolution import Resolution
from harness.lab.capture import Capture
from harness.lab.inject import Senders
from harness.lab.lab import Host, Lab
from harness.model.observation import Delivery, Loss, Observation, ObservedPacket, Step
from harness.packets.frames import Frame
from harness.reading.words import loss_remedy
from harness.ruleset.hosts import built
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace import TraceMessage
from harness.ruleset.nftrace_chains import TraceChains
from harness.scenario.case import Files
from harness.topology.network import Network
from harness.wait import wait_until

ENGINE: Final = "none"
"""Name of the engine that an observation from here has."""
BACKLOG, CPU = 11, 12
"""Columns of /proc/net/softnet_stat (softnet_seq_show in net/core/net-procfs.c): frames that wait, and of which CPU."""
SETTLED_S: Final = 5.0
"""Seconds within which the frames that wait are received."""
ETHERNET: Final = 14


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
        self._kernel = os.uname().release

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
        self._tracing.read()
        self._capture.read()
        overruns = self._tracing.overruns
        for frames in groups:
            steps: list[Step] = []
            seen = [self._sent(frame, steps) for frame in frames]
            known = tuple(one for one in seen if one is not None)
            found.append(known if len(known) == len(seen) else None)
            if not after(steps):
                break
        if self._tracing.overruns != overruns:
            raise BrokenMeasurement("messages of nf_tables' trace were lost", remedy=loss_remedy(Loss(trace=1)))
        return found

    def _sent(self, frame: Frame, steps: list[Step]) -> Observation | None:
        self._neighbours.of_frame(frame)
        self._senders.of(frame).send(frame.data)
        wait_until(is_received, SETTLED_S, "the frames that were sent to be received")
        messages, captured = self._tracing.read(), self._capture.read()
        steps += (step for _, step in messages if step)
        if not _is_of(messages, frame):
            return None
        own = messages[0][0].id if messages else 0
        packet = ObservedPacket(
            number=0,
            sender=frame.sender,
            frame=frame.data,
            steps=tuple(step for message, step in messages if step and message.id == own),
            # Without functions nothing says which frame is an answer: all count as arrived.
            deliveries=tuple(
                Delivery(time=-1, host=one.host, device=one.device, frame=one.frame)
                for one in captured
                if not one.outgoing
            ),
        )
        return Observation(
            packets=(packet,),
            loss=Loss(),
            kernel=self._kernel,
            engine=ENGINE,
            device=self.device.name,
            whole=False,
        )


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


def _is_of(messages: Sequence[tuple[TraceMessage, Step | None]], frame: Frame) -> bool:
    """Whether ``messages`` begin where a packet enters a hook first, and that is ``frame`` by its protocol and ends.

    TTL, checksums and the service field may differ by then.
    """
    if not messages:
        return True
    first, step = messages[0]
    if step is not None:
        return False
    sent, seen = frame.data[ETHERNET:], first.network
    if not frame.family or not seen:
        return True
    protocol, ends = (9, slice(12, 20)) if frame.family == 4 else (6, slice(8, 40))
    return (sent[protocol], sent[ends]) == (seen[protocol], seen[ends])
