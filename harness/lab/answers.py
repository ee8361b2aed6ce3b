"""Silent hosts that answer the packets of real sockets by hand-made packets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from harness.errors import HarnessError
from harness.lab.capture import Captured
from harness.lab.inject import Wire
from harness.lab.lab import Host
from harness.packets.answers import Answer, RawAnswer, answer_to
from harness.packets.headers import fields, summarise
from harness.scenario.flow import FlowPlan


class Answered(NamedTuple):
    """A packet that was answered: the host, and the addresses and ports with which it came."""

    host: Host
    src: str
    sport: int
    dst: str
    dport: int


class RawAnswers:
    """What silent hosts answer; one step at a time."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._answers: dict[str, Sequence[RawAnswer]] = {}
        self._wires: dict[tuple[str, str], Wire] = {}
        self._received: dict[str, int] = {}
        self.first: Answered | None = None
        """The first packet of the step that was answered."""

    def begin(self) -> None:
        """Begin a step: the first packet that a host receives is answered by its first answer again."""
        self._received.clear()
        self.first = None

    def add(self, spec: Answer) -> None:
        """Have a host answer from now on, instead of as it did before."""
        self._answers[spec.on] = spec.with_
        for name in self._hosts[spec.on].interfaces:  # opened before anything is watched
            self._wires.setdefault((spec.on, name), Wire(self._hosts[spec.on], name))

    def take(self, plan: FlowPlan, captured: Iterable[Captured]) -> None:
        """Answer those of ``captured`` that are packets of the flow.

        Raises :class:`~harness.errors.HarnessError` where an answer is of another protocol or IP version.
        """
        for one in captured:
            answers = self._answers.get(one.host, ())
            seen = fields(one.frame) if answers and not one.outgoing else {}
            if seen.get("protocol") != plan.protocol or "sport" not in seen:
                continue
            number = self._received.get(one.host, 0)
            self._received[one.host] = number + 1
            if number < len(answers):
                if (frame := answer_to(one.frame, answers[number])) is None:
                    raise HarnessError(
                        f"answer {number + 1} of {one.host} cannot answer {summarise(one.frame)}: it is of another "
                        "protocol or IP version",
                        remedy=f"write an answer that fits in the step `answer: {{on: {one.host}, …}}`",
                    )
                ends = (str(seen["src"]), int(seen["sport"]), str(seen["dst"]), int(seen["dport"]))
                self.first = self.first or Answered(self._hosts[one.host], *ends)
                self._wires[one.host, one.device].send(frame)
