"""When the packets of a scenario came, and when it asks for that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.errors import BrokenMeasurement
from harness.judge.lateness import REMEDY
from harness.judge.unmet import place
from harness.model.observation import Lasting, Observation, Pace
from harness.model.observation import Place as RulePlace
from harness.reading.limits import limits_of
from harness.text import counted

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
        self._passed: Counter[RulePlace] = Counter()
        """How many packets matched a rule with a limit."""

    def begin(self, pace: float = 0.0) -> None:
        """A packet is about to be sent, ``pace`` seconds after the one before if the scenario asks for that."""
        if self._first is None:
            self._first = time.monotonic()
        else:
            self._asked += pace

    def loaded_anew(self) -> None:
        """The ruleset is another now, whose limits may be as at first."""
        self._passed.clear()

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
        self._packets += sum(len(one.packets) for one in observations)

    def pace(self, late: float, observation: Observation, lasting: Sequence[Lasting]) -> Pace:
        """How the packet of ``observation`` came, which was sent ``late``; of ``lasting`` what may have expired."""
        ends = [step.time for packet in observation.packets for step in packet.steps]
        late += max(ends, default=0) / 1e9
        before = (self._first or self._loaded) - self._loaded
        expired = tuple(one for one in lasting if before + late >= one.seconds)
        return Pace(late=late, packets=self._packets, lasting=expired)

    def refuse_beyond_limit(self, observations: Sequence[Observation], asked: Sequence[float]) -> None:
        """Raise :class:`BrokenMeasurement` where a limit has let pass what it would not have at the pace ``asked``.

        That are the seconds that the scenario asks for from its first packet to that of each observation.
        """
        for observation, seconds in zip(observations, asked, strict=True):
            for step in observation.injected[0].steps:
                if step.rule is None or step.host != observation.device:
                    continue
                limits = [one for one in limits_of(step.rule) if one.shared and one.token]
                if not limits or any(one.bytes or one.over for one in limits):
                    continue
                self._passed[step.rule.place] += 1
                least, limit = min((one.burst + int(seconds / one.token + 1e-9), one) for one in limits)
                if self._passed[step.rule.place] > least:
                    raise BrokenMeasurement(
                        f"`{limit.text}` ({place(step.rule)}) let {counted(self._passed[step.rule.place], 'packet')} "
                        f"pass, and not {least}, because they came later than the scenario asks",
                        remedy=REMEDY,
                    )
