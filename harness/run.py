"""One scenario, top to bottom: lab, ruleset, tracer, inject, drain, observe."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress

import msgspec

from harness.capture import Capture, Captured
from harness.errors import BrokenMeasurement, ScenarioError
from harness.inject import Sender
from harness.lab.lab import Lab
from harness.observation import Observation, PacketSeen, Value
from harness.observe import Scene, observe
from harness.ruleset import state
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import RefusedError
from harness.ruleset.tracing import Tracing
from harness.scenario.case import Case
from harness.scenario.files import shortened
from harness.scenario.models import Action, Expect, Send
from harness.scenario.packet import Frame, build
from harness.tracer.tracer import Tracer
from harness.wait import wait_until

SETTLED_S = 5.0
"""Seconds within which the kernel is done with an ordinary packet. What it then still holds, in a
queue or waiting for more fragments, is told as it was seen until then."""


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
    with ExitStack() as scene:
        lab = scene.enter_context(Lab.build(case.network))
        ruleset = Ruleset.load(lab.device, shortened(case.ruleset))
        tracing = Tracing(lab.device, ruleset)
        capture = Capture(host for host in lab.hosts.values() if host is not lab.device)
        tracer.arm(_named(case.actions))
        sights = []
        for number, action in enumerate(case.actions):
            if isinstance(action.nft, str):
                _change(lab, case, number, action.nft)
                continue
            assert isinstance(action.send, Send)
            frame = build(action.send, case.network)
            sender = Sender(lab.hosts[frame.sender], frame.interface)
            observation = _measure(lab, tracer, tracing, capture, sender, frame)
            if isinstance(action.expect, Expect):
                observation = _with_state(observation, lab, case, number, action.expect)
                sights.append(
                    Sight(
                        action=number,
                        expect=action.expect,
                        summary=frame.summary,
                        observation=observation,
                        packet=observation.injected[0],
                        ruleset=ruleset,
                    )
                )
        return tuple(sights)


def _change(lab: Lab, case: Case, number: int, command: str) -> None:
    try:
        state.change(lab.device, command)
    except RefusedError as refused:
        said = str(refused).splitlines()[0].partition("Error: ")
        raise ScenarioError(f"nft: {said[2] or said[0]}", case.where(number, "nft")) from None


def _with_state(observation: Observation, lab: Lab, case: Case, number: int, expect: Expect) -> Observation:
    """``observation`` with the counters and sets that ``expect`` speaks of."""
    if not (expect.counters or expect.elements):
        return observation
    try:
        return msgspec.structs.replace(
            observation,
            counters=state.counters(lab.device, expect.counters or ()),
            elements=state.elements(lab.device, expect.elements or ()),
        )
    except state.MissingError as missing:
        key = "counters" if missing.name in (expect.counters or ()) else "elements"
        place = case.where(number, "expect", key, missing.name)
        raise ScenarioError(missing.sentence, place, remedy=missing.remedy) from None


def _measure(lab: Lab, tracer: Tracer, tracing: Tracing, capture: Capture, sender: Sender, frame: Frame) -> Observation:
    """Send one frame and watch it to its end."""
    captured: list[Captured] = []

    def settled() -> bool:
        captured.extend(capture.read())  # a frame lives on until it is read
        return not watch.alive()

    tracing.read()
    capture.read()
    overruns = tracing.overruns
    with tracer.watch(hosts=lab.by_inum, senders=[sender.cookie]) as watch:
        sender.send(frame.data)
        with suppress(BrokenMeasurement):
            wait_until(settled, SETTLED_S, "the kernel to be done with the packet")
        captured.extend(capture.read())
        recording = watch.finish()
    scene = Scene(
        device=lab.device.name,
        tracing_table=tracing.table,
        host=lambda inum: lab.by_inum[inum].name if inum in lab.by_inum else "",
        interface=lambda inum, index: lab.by_inum[inum].interface(index) if inum in lab.by_inum else "",
        drop_reasons=tracer.drop_reasons,
        kernel=tracer.kernel,
        engine=tracer.engine.name,
        traced=tracer.traced,
        untraceable=tracer.untraceable,
    )
    return observe(
        scene,
        recording,
        tracing.read(),
        captured,
        injected=[frame.data],
        sender=frame.sender,
        trace_lost=tracing.overruns - overruns,
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
