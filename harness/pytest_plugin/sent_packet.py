"""What was seen of a packet that a test in Python has sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import msgspec

from harness.errors import HarnessError, Position, ScenarioError
from harness.model.observation import Drop, Observation, ObservedPacket, Rule, Step, Verdict
from harness.packets.headers import fields
from harness.pytest_plugin.calls import caller
from harness.pytest_plugin.trial import Trial, differing, failure_of
from harness.reading.decision import arrivals, ended, outcome
from harness.reading.path import hops_on, layers_of
from harness.scenario.case import Case
from harness.scenario.models.expect import Expect

if TYPE_CHECKING:
    from harness.experiment.run import Measurement

READ_AT_ONCE = frozenset({"counters", "elements", "conntrack", "connections"})
"""Expectations about what a packet leaves behind, and the next one may change."""

P = ParamSpec("P")
T = TypeVar("T")


class DiffersError(AssertionError):
    """A packet was not as expected; the text says it all."""

    def __init__(self, text: str, position: Position) -> None:
        super().__init__(text)
        self.position = position


def for_tests(function: Callable[P, T]) -> Callable[P, T]:
    """Of an error show the test's line, and nothing of what lies behind it."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except (HarnessError, DiffersError) as error:
            raise error.with_traceback(None) from None

    return called


class SentPacket:
    """What was seen of a packet."""

    def __init__(
        self, measurement: Measurement, number: int, case: Callable[[Mapping[str, Any]], Case], trial: Trial
    ) -> None:
        from harness.judge.expectations import refuse_loss  # the controller judges nothing

        self._measurement = measurement
        self._number = number
        self._case = case
        self._trial = trial
        refuse_loss(measurement.observation.loss, measurement.observation.engine)
        self._outcome = outcome(measurement.packet, measurement.observation.device)

    def __repr__(self) -> str:
        return f"<{self._measurement.summary}: {self.ended}>"

    @property
    def observation(self) -> Observation:
        """Everything that was seen while the packet was on its way."""
        return self._measurement.observation

    @property
    def packet(self) -> ObservedPacket:
        """All of it that is about this packet."""
        return self._measurement.packet

    @property
    def verdict(self) -> Verdict | None:
        """What the ruleset decided, equal to its word as in ``== "drop"``; None when no base chain saw the packet."""
        return self._outcome.verdict

    @property
    def with_(self) -> str:
        """For a reject: with what, such as ``icmp port-unreachable``."""
        return self._outcome.with_

    @property
    def rule(self) -> Rule | None:
        """The rule that decided last; None when a policy did, or nothing."""
        return self._outcome.decided[-1].rule if self._outcome.decided else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """What rules and policies of the device said, in order."""
        return tuple(step for step in self.packet.steps if step.host == self.observation.device)

    @property
    def delivered(self) -> str:
        """The host where the packet arrived, or ``nowhere``; several with commas between."""
        return ", ".join(arrivals(self.packet)) or "nowhere"

    @property
    def sees(self) -> Mapping[str, str | int]:
        """The packet as it arrived: ``src``, ``dst``, ``sport``, ``dport``, ``ttl``, and what else
        :func:`~harness.packets.headers.fields` knows; empty when it arrived nowhere, or at the device."""
        frames = [one.frame for one in self.packet.deliveries if one.host in arrivals(self.packet) and one.frame]
        return fields(frames[-1]) if frames else {}

    @property
    def replies(self) -> tuple[Mapping[str, str | int], ...]:
        """What the sender got in answer, each in the form of :attr:`sees`."""
        return tuple(fields(one.frame) for one in self.observation.replies if one.host == self.packet.sender)

    @property
    def dropped(self) -> Drop | None:
        """The kernel's own word on why it gave the packet up."""
        return self.packet.drop

    @property
    def ended(self) -> str:
        """Where and why the packet's way ended, in words."""
        return ended(self.packet, self._outcome, self.observation.device)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that the packet passed on the device, each run of one layer once."""
        return layers_of(hops_on(self.packet, self.observation.device))

    @property
    def path(self) -> FunctionPath:
        """Functions that the packet met on the device, in order."""
        return FunctionPath(self.observation, self.packet)

    @for_tests
    def expect(self, **words: Any) -> None:
        """Compare with the words of a scenario's ``expect``; what differs is shown as it is for a scenario.

        Where a word is Python's own, put an underscore behind it: ``with_="tcp reset"``.
        """
        if late := sorted(READ_AT_ONCE & words.keys()):
            remedy = f"send(…, expect={{{late[0]!r}: …}}) reads it"
            raise ScenarioError(f"{late[0]} can only be read right after the packet", caller(), remedy=remedy)
        case = self._case({"expect": words})
        ((keys, expect),) = case.actions[0].entries
        measurement = msgspec.structs.replace(self._measurement, expect=expect, keys=keys)
        judge_packets(self._trial, case, {self._number: measurement})


class FunctionPath(Sequence[str]):
    """Functions, in the order in which they were met.

    ``in`` refuses a function that this kernel cannot trace: that it was not met would be a guess.
    """

    def __init__(self, observation: Observation, packet: ObservedPacket) -> None:
        self._observation = observation
        self._packet = packet
        self._functions = tuple(hop.function for hop in hops_on(packet, observation.device))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._functions[index]

    def __len__(self) -> int:
        return len(self._functions)

    def __repr__(self) -> str:
        return " ".join(self._functions)

    @for_tests
    def __contains__(self, function: object) -> bool:
        if function not in self._functions:
            from harness.judge.expectations import judge

            place = caller()
            judge(Expect(path=[str(function)]), self._observation, self._packet, at=lambda _: place)
        return function in self._functions


def judge_packets(trial: Trial, case: Case, measurements: Mapping[int, Measurement]) -> None:
    """Compare the packets of a step, by their numbers in ``trial``, with what ``case`` expects.

    Raises :class:`DiffersError`.
    """
    for number, measurement in measurements.items():
        trial.mismatches[number] = differing(case, measurement)
    found = [trial.mismatches[number] for number in measurements]
    if failure := failure_of(case, list(measurements.values()), found, colour=trial.colour):
        trial.failure = failure
        raise DiffersError(failure.text, failure.position)
