"""When the packets of a scenario came, and when it asks for that."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.model.observation import Lasting, Observation, ObservedPacket, Pace

LONGEST_PACKET = 1 << 16
"""Bytes."""
SHORTEST = 1.0
"""Seconds for which elements and connections stay at least, in their usual unit."""


class Timetable:
    """The times of one scenario; it is made when its ruleset has been loaded."""

    def __init__(self) -> None:
        self._loaded = time.monotonic()
        self._first: float | None = None
        self._asked = 0.0
        self._programs = 0.0
        self._packets = 0
        self._bytes = 0

    def begin(self, pace: float = 0.0) -> None:
        """A packet is about to be sent, ``pace`` seconds after the one before if the scenario asks for that."""
        if self._first is None:
            self._first = time.monotonic()
        else:
            self._asked += pace

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """All time that passes is asked for by the scenario."""
        before = time.monotonic()
        yield
        self._asked += time.monotonic() - before

    @contextmanager
    def programs(self) -> Iterator[None]:
        """Programs exchange packets; some of the time that passes is theirs, and nobody knows how much."""
        before = time.monotonic()
        self.begin()
        yield
        self._programs += time.monotonic() - before

    @property
    def late(self) -> float:
        """Seconds that have passed since the first packet and that the scenario has not asked for."""
        return 0.0 if self._first is None else time.monotonic() - self._first - self._asked

    @property
    def since_load(self) -> float:
        """The same since the ruleset was loaded."""
        return time.monotonic() - self._loaded - self._asked

    @property
    def asked(self) -> float:
        """Seconds that the scenario has asked for, those of programs included."""
        return self._asked + self._programs

    def saw(self, observations: Sequence[Observation]) -> None:
        """These are what was observed of a step's packets."""
        for one in observations:
            self._packets += len(one.packets)
            self._bytes += sum(_size(packet, one) for packet in one.packets)

    def pace(self, late: float, observation: Observation, lasting: Sequence[Lasting]) -> Pace:
        """How the packet of ``observation`` came, which was sent ``late``; of ``lasting`` what may have expired."""
        ends = [step.time for packet in observation.packets for step in packet.steps]
        late += max(ends, default=0) / 1e9
        before = (self._first or self._loaded) - self._loaded
        expired = tuple(one for one in lasting if before + late >= one.seconds)
        return Pace(late=late, packets=self._packets, bytes=self._bytes, lasting=expired)


def _size(packet: ObservedPacket, seen: Observation) -> int:
    """The bytes of ``packet``, at most; of those that programs and kernels made only the headers are known."""
    return len(packet.frame) if packet.injected and seen.flow is None else LONGEST_PACKET
