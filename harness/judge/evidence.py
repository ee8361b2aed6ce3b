"""What a packet is judged by, and what a diagnosis may be based on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.judge.unmet import is_met, is_policy, named
from harness.model.fields import Keys
from harness.model.observation import Observation, ObservedPacket, Rule, Step
from harness.model.result import Policy
from harness.packets.headers import fields, framed
from harness.reading.decision import REFUSED, Outcome
from harness.scenario.models.expect import Delivered, Expect, FlowSeen

if TYPE_CHECKING:
    from harness.topology.network import Network

Found = Iterator[tuple[Keys, str, str, str]]
"""Differences: the keys of the expectation, what was expected, what was seen instead, and a note or ""."""


class Evidence(NamedTuple):
    """One packet, what is expected of it, and all that is known about it."""

    expect: Expect
    seen: Outcome
    observation: Observation
    packet: ObservedPacket
    rules: Sequence[Rule] = ()
    """Those that the device under test has loaded; empty when they are not known."""
    policies: Sequence[Policy] = ()
    """Its base chains."""
    sets: Mapping[str, Sequence[str]] = {}
    """What named sets held after loading, by family, table and name; of a map ``key : value``. Not all are known."""
    network: Network | None = None
    """The lab."""

    @property
    def device(self) -> str:
        """The host under test."""
        return self.observation.device

    @property
    def last(self) -> Step | None:
        """The step that decided last on the device."""
        return self.seen.decided[-1] if self.seen.decided else None

    @property
    def is_refused(self) -> bool:
        """Whether the ruleset dropped or rejected the packet."""
        return self.seen.verdict in REFUSED

    @property
    def unmet(self) -> list[str | int]:
        """The rules that the scenario expects, policies aside, and that did not match the packet."""
        asked = [one for one in (self.expect.rule, *(self.expect.rules or ())) if one is not None]
        return [one for one in asked if not is_policy(one) and not is_met(one, self.packet, self.device)]

    @property
    def expected(self) -> Rule | None:
        """The first of :attr:`unmet` that the ruleset has."""
        return next((rule for one in self.unmet for rule in named(one, self.rules)), None)

    @property
    def should_pass(self) -> bool:
        """Whether the scenario expects that the packet arrives."""
        return self.expect.verdict == "accept" or self.expected_host not in ("", "nowhere")

    @property
    def expected_host(self) -> str:
        """Where the packet must arrive, or ``nowhere``; "" when the scenario does not say."""
        return Delivered.of(self.expect.delivered).to if self.expect.delivered is not None else ""

    @property
    def expects_answer(self) -> bool:
        """Whether the scenario expects that the sender gets an answer."""
        flow = self.expect.flow
        answered = flow is not None and FlowSeen.of(flow).result not in ("timeout", "unsent")
        return answered or self.expect.reply not in (None, "none") or self.expect.verdict == "reject"

    def answers(self) -> Iterator[tuple[ObservedPacket, Mapping[str, str | int]]]:
        """Yield the packets that the device's own kernel made, each with its headers as the first chain saw them."""
        for one in self.observation.packets:
            if not one.injected and one.sender == self.device:
                frames = [framed(step.headers) for step in one.steps if step.host == self.device and step.headers]
                frames += [delivery.frame for delivery in one.deliveries if delivery.frame]
                yield one, fields(next(iter(frames), one.frame))


Comparison = Callable[[Evidence], Found]
"""Yields all in which a packet differs from one key of ``expect``; nothing where the key is not given."""
