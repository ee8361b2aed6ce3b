"""One scenario, top to bottom: lab, ruleset, tracer, inject, drain, observe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Self

import msgspec

from harness.capture import Capture, Captured
from harness.errors import BrokenMeasurement, Position, ScenarioError, Unsupported
from harness.inject import Sender, sender
from harness.lab.lab import Lab
from harness.observation import Observation, PacketSeen, Value
from harness.observe import Scene, observe
from harness.ruleset import state
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import RefusedError
from harness.ruleset.tracing import Tracing, unused_table
from harness.scenario.case import Case, Files
from harness.scenario.files import shortened
from harness.scenario.models import Action, Expect, Send
from harness.scenario.network import Network
from harness.scenario.packet import Frame, build
from harness.tracer.tracer import Tracer
from harness.wait import wait_until

SETTLED_S = 5.0
"""Seconds within which the kernel is done with an ordinary packet. What it then still holds, in a
queue or waiting for more fragments, is told as it was seen until then."""


Where = Callable[..., Position]
"""Where a value of a step stands, by its keys: ``where("expect", "path", 2)``."""


class Sight(Value, frozen=True, kw_only=True):
    """What was seen of one step of a scenario, beside what was expected."""

    action: int
    """Number of the step, from 0."""
    expect: Expect
    summary: str
    """The injected packet in one line."""
    observation: Observation
    packet: PacketSeen
    ruleset: Ruleset


def run(case: Case, tracer: Tracer) -> tuple[Sight, ...]:
    """Run ``case`` on this kernel; what was seen of each step that expects something.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done or not be believed.
    """
    with Stage.open(case.network, case.rulesets, tracer) as stage:
        stage.arm(case.actions)
        seen = (stage.act(action, number, partial(case.where, number)) for number, action in enumerate(case.actions))
        return tuple(sight for sight in seen if sight and isinstance(case.actions[sight.action].expect, Expect))


class Stage:
    """A lab whose hosts have loaded their rulesets, and all that watches it."""

    def __init__(self, lab: Lab, rulesets: Mapping[str, Ruleset], tracer: Tracer) -> None:
        self.ruleset = rulesets[lab.network.device]
        """Of the device under test."""
        self._lab = lab
        self._tracer = tracer
        table = unused_table(rulesets.values())
        self._tracing = [Tracing(lab.hosts[name], ruleset, table) for name, ruleset in rulesets.items()]
        self._capture = Capture(host for host in lab.hosts.values() if host is not lab.device)

    @classmethod
    @contextmanager
    def open(cls, network: Network, rulesets: Mapping[str, Files], tracer: Tracer) -> Iterator[Self]:
        """Build the lab and load the hosts' ``rulesets``; nothing of either is left after the ``with``."""
        for path in (path for files in rulesets.values() for path in files.paths):
            if not path.exists():
                # Those of the project were there when the scenario was read; others are the machine's.
                raise Unsupported(f"{path} is not on this machine", remedy="install what it belongs to")
        with Lab.build(network) as lab:
            loaded = {
                name: Ruleset.load(
                    lab.hosts[name], *map(shortened, files.paths), defines=files.defines, home=files.project
                )
                for name, files in rulesets.items()
            }
            yield cls(lab, loaded, tracer)

    def arm(self, actions: Iterable[Action]) -> None:
        """Trace all functions, those in modules that the ruleset has pulled in and those that ``actions`` name."""
        self._tracer.arm(_named(actions))

    def act(self, action: Action, number: int, where: Where) -> Sight | None:
        """Do what a step says; what was seen of its packet, None of a step that sends none."""
        if isinstance(action.nft, str):
            self._change(action.nft, where)
            return None
        assert isinstance(action.send, Send)
        frame = build(action.send, self._lab.network)
        observation = self._measure(sender(self._lab.hosts[frame.sender], frame), frame)
        expect = action.expect if isinstance(action.expect, Expect) else Expect()
        return Sight(
            action=number,
            expect=expect,
            summary=frame.summary,
            observation=self._with_state(observation, expect, where),
            packet=observation.injected[0],
            ruleset=self.ruleset,
        )

    def _change(self, command: str, where: Where) -> None:
        try:
            state.change(self._lab.device, command)
        except RefusedError as refused:
            said = str(refused).splitlines()[0].partition("Error: ")
            raise ScenarioError(f"nft: {said[2] or said[0]}", where("nft")) from None

    def _with_state(self, observation: Observation, expect: Expect, where: Where) -> Observation:
        """``observation`` with the counters and sets that ``expect`` speaks of."""
        if not (expect.counters or expect.elements):
            return observation
        try:
            return msgspec.structs.replace(
                observation,
                counters=state.counters(self._lab.device, expect.counters or ()),
                elements=state.elements(self._lab.device, expect.elements or ()),
            )
        except state.MissingError as missing:
            key = "counters" if missing.name in (expect.counters or ()) else "elements"
            raise ScenarioError(missing.sentence, where("expect", key, missing.name), remedy=missing.remedy) from None

    def _measure(self, way: Sender, frame: Frame) -> Observation:
        """Send one frame and watch it to its end."""
        lab, tracer, capture = self._lab, self._tracer, self._capture
        captured: list[Captured] = []

        def settled() -> bool:
            captured.extend(capture.read())  # a frame lives on until it is read
            return not watch.alive()

        for tracing in self._tracing:
            tracing.read()
        capture.read()
        overruns = sum(tracing.overruns for tracing in self._tracing)
        with tracer.watch(hosts=lab.by_inum, senders=[way.cookie]) as watch:
            way.send(frame.data)
            with suppress(BrokenMeasurement):
                wait_until(settled, SETTLED_S, "the kernel to be done with the packet")
            captured.extend(capture.read())
            recording = watch.finish()
        scene = Scene(
            device=lab.device.name,
            tracing_table=self._tracing[0].table,
            host=lambda inum: lab.by_inum[inum].name if inum in lab.by_inum else "",
            interface=lambda inum, index: lab.by_inum[inum].interface(index) if inum in lab.by_inum else "",
            drop_reasons=tracer.drop_reasons,
            kernel=tracer.kernel,
            engine=tracer.engine.name,
            traced=tracer.traced,
            untraceable=tracer.untraceable,
            epoch=time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        )
        return observe(
            scene,
            recording,
            [message for tracing in self._tracing for message in tracing.read()],
            captured,
            injected=[frame.data],
            sender=frame.sender,
            trace_lost=sum(tracing.overruns for tracing in self._tracing) - overruns,
        )


def _named(actions: Iterable[Action]) -> set[str]:
    """The functions that the scenario speaks of."""
    expected = [action.expect for action in actions if isinstance(action.expect, Expect)]
    entries = [entry for expect in expected for entry in (*(expect.path or ()), *(expect.never or ()))]
    return {
        name.strip()
        for entry in entries
        for name in (entry if isinstance(entry, str) else next(iter(entry))).split("|")
    }
