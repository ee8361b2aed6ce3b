"""Silent hosts that answer the packets of real sockets by hand-made packets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.errors import HarnessError
from harness.lab.capture import Captured
from harness.lab.inject import Wire
from harness.lab.lab import Host
from harness.packets.answers import Answer, RawAnswer, answer_to
from harness.packets.headers import fields, summarise
from harness.scenario.flow import FlowPlan
from harness.text import counted


class Answered(NamedTuple):
    """A packet that was answered: the host, and the addresses and ports with which it came."""

    host: Host
    src: str
    sport: int
    dst: str
    dport: int


class AnswerScript:
    """The answers of one step `answer:`, and which of them were sent."""

    def __init__(self, spec: Answer) -> None:
        self.spec = spec
        self.received = 0
        """Packets of the step that runs."""
        self._most = 0
        self.explained = False
        """Whether the ruleset or a kernel dropped a packet that might have been answered."""

    def take(self) -> RawAnswer | None:
        """The answer to the next packet that the host receives; None for no answer."""
        self.received += 1
        self._most = max(self._most, self.received)
        return self.spec.with_[self.received - 1] if self.received <= len(self.spec.with_) else None

    def refuse_unused(self) -> None:
        """Raise :class:`~harness.errors.HarnessError` if an answer was never sent though no packet was dropped."""
        if self.explained or self._most >= len(self.spec.with_):
            return
        if not self._most:
            raise HarnessError(
                f"{self.spec.on} received no packet of connect or exchange, although none was dropped: it has answered "
                "nothing",
                remedy=f"call {self.spec.on} in a later step, or leave this one out",
            )
        raise HarnessError(
            f"answer {self._most + 1} of {self.spec.on} was never sent: it received at most "
            f"{counted(self._most, 'packet')} in a step, although none was dropped",
            remedy="leave out the answers that nothing asks for",
        )


class RawAnswers:
    """What silent hosts answer; one step at a time."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._scripts: dict[str, AnswerScript] = {}
        self._wires: dict[tuple[str, str], Wire] = {}
        self.first: Answered | None = None
        """The first packet of the step that was answered."""

    def begin(self) -> None:
        """Begin a step: the first packet that a host receives is answered by its first answer again."""
        for script in self._scripts.values():
            script.received = 0
        self.first = None

    def explain(self) -> None:
        """Note that a packet of the step was dropped, so that what it would have been answered with is not missing."""
        for script in self._scripts.values():
            script.explained = True

    def add(self, spec: Answer) -> AnswerScript:
        """Have a host answer from now on, instead of as it did before."""
        self._scripts[spec.on] = script = AnswerScript(spec)
        for name in self._hosts[spec.on].interfaces:  # opened before anything is watched
            self._wires.setdefault((spec.on, name), Wire(self._hosts[spec.on], name))
        return script

    def take(self, plan: FlowPlan, captured: Iterable[Captured]) -> None:
        """Answer those of ``captured`` that are packets of the flow.

        Raises :class:`~harness.errors.HarnessError` where an answer is of another protocol or IP version.
        """
        for one in captured:
            script = self._scripts.get(one.host)
            seen = fields(one.frame) if script and not one.outgoing else {}
            if script is None or seen.get("protocol") != plan.protocol or "sport" not in seen:
                continue
            if answer := script.take():
                if (frame := answer_to(one.frame, answer)) is None:
                    raise HarnessError(
                        f"answer {script.received} of {one.host} cannot answer {summarise(one.frame)}: it is of "
                        "another protocol or IP version",
                        remedy=f"write an answer that fits in the step `answer: {{on: {one.host}, …}}`",
                    )
                ends = (str(seen["src"]), int(seen["sport"]), str(seen["dst"]), int(seen["dport"]))
                self.first = self.first or Answered(self._hosts[one.host], *ends)
                self._wires[one.host, one.device].send(frame)
