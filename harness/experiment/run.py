"""One scenario, top to bottom: lab, ruleset, tracer, inject, drain, observe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Self, assert_never

import msgspec

from harness.errors import BrokenMeasurement, Position, Unsupported
from harness.experiment import apart
from harness.experiment.allowance import Allowance
from harness.experiment.join import JoinContext, observe
from harness.experiment.left_behind import LeftBehind, Where, placed
from harness.experiment.resolution import Resolution, explain, unreached
from harness.experiment.summaries import judged, which
from harness.experiment.timetable import SHORTEST, Timetable
from harness.experiment.unasked import Unasked
from harness.judge.diagnoses import helpers, tracking
from harness.judge.evidence import Evidence
from harness.judge.flow import refuse_contradiction
from harness.lab import changes as lab_changes
from harness.lab.answers import AnswerScript
from harness.lab.calls import Call
from harness.lab.capture import Capture, Captured
from harness.lab.clock import WallClock
from harness.lab.inject import Senders
from harness.lab.lab import Host, Lab, renew_neighbours
from harness.lab.neighbours import Query
from harness.lab.sockets import Bound, Programs
from harness.model.fields import Keys
from harness.model.observation import Flow, Observation, ObservedPacket, Pace, Step, Value
from harness.packets.frames import Frame, build
from harness.reading.decision import REFUSED, Outcome, arrivals, decisive, outcome, unsent
from harness.reading.path import functions
from harness.ruleset import conntrack
from harness.ruleset.changes import RulesetChange, apply
from harness.ruleset.hosts import built
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace import TraceMessage
from harness.ruleset.nftrace_chains import TraceChains, unused_table
from harness.ruleset.unchanged import Loaded
from harness.scenario import flow
from harness.scenario.case import Case, Files
from harness.scenario.models.actions import (
    Action,
    AnswerAction,
    ChangeAction,
    ClockAction,
    ConnectAction,
    ExchangeAction,
    FlushAction,
    ListenAction,
    NftAction,
    QueueAction,
    ReloadAction,
    SendAction,
    WaitAction,
)
from harness.scenario.models.expect import Expect
from harness.topology import changes
from harness.topology.network import Network
from harness.tracer.base import BaseTracer
from harness.tracer.session import TraceData, TraceSession
from harness.wait import TimedOut, wait_for_turn, wait_until

SETTLED_S = 5.0
"""Seconds within which the kernel is done with an ordinary packet. What it then still holds, in a
queue or waiting for more fragments, is reported as last observed."""
SETTLED_MORE_S = 0.01
"""For each packet more."""
BEGINNINGS = 20
"""Most times that a recording is begun while packets of before still come."""


class Measurement(Value, frozen=True, kw_only=True):
    """What was seen of one packet that a step of a scenario sent, beside what was expected of it."""

    action: int
    """Number of the step, from 0."""
    expect: Expect
    keys: Keys
    """Where that stands below the step."""
    summary: str
    """The injected packet in one line; where the step sends several, also which of them it is."""
    observation: Observation
    packet: ObservedPacket
    ruleset: Ruleset
    network: Network
    """The lab as it was."""
    pace: Pace = Pace()
    """How it came, beside what the scenario asks for."""
    notes: tuple[str, ...] = ()
    """Sentences that are reported even when the packet is as expected."""

    @property
    def evidence(self) -> Evidence:
        """All that is known of the packet. Raises :class:`BrokenMeasurement` where the oracles disagree about it."""
        seen, loaded = outcome(self.packet, self.observation.device), self.ruleset
        return Evidence(
            *(self.expect, seen, self.observation, self.packet),
            *(loaded.rules, loaded.policies, loaded.sets, self.network),
        )


def run(case: Case, tracer: BaseTracer) -> tuple[Measurement, ...]:
    """Run ``case`` on this kernel; what was seen of each packet of which something is expected.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done or not be believed.
    """
    with Experiment.open(case.network, case.rulesets, tracer) as stage:
        return perform(stage, case)


def perform(stage: Experiment, case: Case) -> tuple[Measurement, ...]:
    """Run the steps of ``case`` on ``stage``, which has its lab and rulesets; as :func:`run`."""
    stage.arm(case.actions)
    seen = [stage.act(action, number, partial(case.where, number)) for number, action in enumerate(case.actions)]
    stage.refuse_unused_answers()
    measurements = [one for several in seen for one in several if case.actions[one.action].entries]
    return tuple(stage.noted(measurements))


class Experiment:
    """A lab whose hosts have loaded their rulesets, and all that watches it."""

    def __init__(
        self,
        lab: Lab,
        rulesets: Mapping[str, Ruleset],
        tracer: BaseTracer,
        programs: Programs,
        clock: WallClock,
        files: Files,
        *,
        counts: bool = True,
    ) -> None:
        self._rulesets = dict(rulesets)
        """By host; steps change that of the device under test."""
        self._files = files
        """What the device under test has loaded."""
        self._lab = lab
        self._tracer = tracer
        self._ruled = frozenset(rulesets.keys() - {lab.network.device})
        table = unused_table(rulesets.values())
        tracing = {name: TraceChains(lab.hosts[name], ruleset, table) for name, ruleset in rulesets.items()}
        self._tracing = list(tracing.values())
        self._device_tracing = tracing[lab.network.device]
        self._named: set[str] = set()
        self._capture = Capture(host for host in lab.hosts.values() if host is not lab.device)
        self._sockets = self._capture.sockets
        self._programs = programs
        self._clock = clock
        self._senders = Senders(lab.hosts)
        self._neighbours = Resolution(lab, self.ruleset)
        self._left = LeftBehind(lab, self._rulesets, self._neighbours, counts=counts)
        self._unasked = Unasked(lab, self._rulesets, self._tracing, self._capture)
        self.sent: list[bytes] = []
        """The frames that steps have sent."""
        self._sent_at = 0.0
        """When the last packet was sent, by the monotonic clock."""
        self._times = Timetable()
        self._allowance: Allowance | None = None
        """What limits have let pass since the ruleset was loaded; None where nobody has looked."""
        self._entries: frozenset[bytes] = frozenset()
        self._stations: dict[str, frozenset[bytes]] = {}
        self._loaded: Loaded | None = None
        self._scripts: list[tuple[Position, AnswerScript]] = []

    @property
    def ruleset(self) -> Ruleset:
        """Of the device under test, as it is now."""
        return self._rulesets[self._lab.network.device]

    @classmethod
    @contextmanager
    def open(
        cls, network: Network, rulesets: Mapping[str, Files], tracer: BaseTracer, *, counts: bool = True
    ) -> Iterator[Self]:
        """Build the lab and load the hosts' ``rulesets``; nothing of either is left after the ``with``.

        Without ``counts`` observations lack what the counters of rules show.
        """
        with built(network, rulesets) as (lab, loaded), Programs(lab) as programs, WallClock() as clock:
            try:
                yield cls(lab, loaded, tracer, programs, clock, rulesets[network.device], counts=counts)
            finally:
                tracer.let_go()

    @property
    def watches_functions(self) -> bool:
        """Whether functions are watched, and not tracepoints only."""
        return self._tracer.whole

    @property
    def network(self) -> Network:
        """The lab as it is planned now."""
        return self._lab.network

    @property
    def device(self) -> Host:
        """The device under test."""
        return self._lab.device

    def arm(self, actions: Iterable[Action]) -> None:
        """Trace all functions, those in modules that the ruleset has pulled in and those that ``actions`` name."""
        self._named |= _named(actions)
        self._tracer.arm(self._named)

    def act(self, action: Action, number: int, where: Where) -> tuple[Measurement, ...]:
        """Run a step. Return a measurement of each of its packets; none for a step that sends none."""
        summaries: tuple[str, ...]
        observations: tuple[Observation, ...]
        lates: Sequence[float] = ()
        match action:
            case SendAction(send=send):
                frames = build(send, self._lab.network)
                observations, lates = self._send(frames, send.pace)
                summaries = tuple(which(place, observations) + frame.summary for place, frame in enumerate(frames))
            case ConnectAction(connect=called):
                plan = flow.plan(called, self._lab.network)
                with placed(where("connect")):
                    observations = (self._flow(plan, self._programs.connect(plan, Bound.of(called))),)
                summaries = (f"connect {plan}: {judged(observations[0])}",)
            case ExchangeAction(exchange=called):
                plan = flow.plan(called, self._lab.network)
                content = flow.content(called.request), flow.content(called.answer)
                with placed(where("exchange")):
                    observations = (self._flow(plan, self._programs.exchange(plan, *content, Bound.of(called))),)
                summaries = (f"exchange {plan}: {judged(observations[0])}",)
            case _:
                self._prepare(action, where)
                return ()
        self._times.saw(observations)
        paces = self._paces(observations, lates)
        expected = action.expected_of(len(observations))
        states = {
            keys: self._left.of(
                *(expect, partial(where, *keys)),
                sent=self._sent_at,
                tracked=self._connections_explain(expect, observations),
            )
            for keys, expect in dict(expected).items()
        }
        return tuple(
            Measurement(
                action=number,
                expect=expect,
                keys=keys,
                summary=summary,
                observation=msgspec.structs.replace(observation, **states[keys]),
                packet=decisive(observation),
                ruleset=self.ruleset,
                network=self.network,
                pace=pace,
            )
            for summary, observation, pace, (keys, expect) in zip(summaries, observations, paces, expected, strict=True)
        )

    def _paces(self, observations: Sequence[Observation], lates: Sequence[float]) -> list[Pace]:
        """How each packet came; ``lates`` are those of frames, of a flow it is what has passed until now."""
        lasting = self._left.lasting(self._lab.device) if self._times.since_load >= SHORTEST else []
        return [
            self._times.pace(late, observation, lasting)
            for late, observation in zip(lates or [self._times.late], observations, strict=True)
        ]

    def _prepare(
        self,
        action: RulesetChange | ChangeAction | ClockAction | ListenAction | AnswerAction | QueueAction | WaitAction,
        where: Where,
    ) -> None:
        """Do a step that sends nothing."""
        match action:
            case NftAction() | ReloadAction() | FlushAction():
                table = self._device_tracing.table
                self._allowance = None
                self._follow(apply(action, self._lab.device, self.ruleset, self._files, where, hidden=table))
            case ChangeAction(change=change):
                with placed(where("change")):
                    lab_changes.apply(changes.plan(change, self._lab.network), self._lab)
                self._left.changed()
                self._neighbours.moved()
                self._unasked.changed = True
            case ClockAction(clock=moment):
                with placed(where("clock")):
                    self._clock.set(moment)
            case ListenAction(listen=program):
                with placed(where("listen")):
                    self._programs.listen(program)
            case AnswerAction(answer=answers):
                self._scripts.append((where("answer"), self._programs.answers.add(answers)))
            case QueueAction(queue=reader):
                with placed(where("queue")):
                    self._programs.read_queue(reader)
            case WaitAction(wait=wait):
                with self._times.waiting():
                    self._left.wait(wait, partial(where, "wait"))
            case _:
                assert_never(action)

    def refuse_unused_answers(self) -> None:
        """Raise :class:`~harness.errors.ScenarioError` for a step `answer:` that had no effect, for no reason seen."""
        for position, script in self._scripts:
            with placed(position):
                script.refuse_unused()

    def inject_each(
        self, groups: Iterable[Sequence[Frame]], after: Callable[[Sequence[Step]], bool]
    ) -> list[tuple[Observation, ...] | None]:
        """Send each of ``groups``, in one recording, when the kernel has answered those before: the observations.

        They have verdicts, arrivals and answers, but no path. ``after`` is called behind each group with the steps
        that were reported until then; where it returns False, no more are sent. None is for a group that cannot be
        told from the next by the order of events.
        """
        sent: list[bytes] = []
        sizes: list[int] = []

        def start(take: Callable[[], list[Step]]) -> None:
            for frames in groups:
                for frame in frames:
                    ways[frame.sender, frame.way].send(frame.data)
                    sent.append(frame.data)
                sizes.append(len(frames))
                if not after(take()):
                    return

        groups = list(groups)
        ways = {(frame.sender, frame.way): self._senders.of(frame) for frames in groups for frame in frames}
        for frames in groups:
            for frame in frames:
                self._neighbours.of_frame(frame)
        mixed: set[int] = set()

        def reduced(recording: TraceData) -> TraceData:
            kept = apart.telling(recording)
            mixed.update(apart.mixed(kept.events, sizes))
            return kept

        cookies = [way.cookie for way in ways.values()]
        seen = iter(self._measure(cookies, start, injected=sent, host=groups[0][0].sender, reduced=reduced))
        own = [tuple(islice(seen, size)) for size in sizes]
        return [None if number in mixed else found for number, found in enumerate(own)]

    def renew(self) -> bool:
        """Load the ruleset of the device under test anew, atomically: counters, limits and sets are as at first.

        Whether that could be done; if not, nothing is as it was.
        """
        is_renewed = self.ruleset.renew(self._files.paths, self._files.defines, self._device_tracing.anew())
        if is_renewed:
            self._times, self._allowance = Timetable(), None
        return is_renewed

    def rename(self, ruleset: Ruleset) -> None:
        """Observe the device under test with ``ruleset``, which it has loaded: one with the same chains and modules."""
        self._neighbours.follow(ruleset)
        self._unasked.changed = True
        self._allowance = None
        self._rulesets[self._lab.network.device] = ruleset
        self._device_tracing.rename(ruleset)

    def remember(self) -> None:
        """Note what is there before the first packet, for :meth:`restore`."""
        self._entries = self._lab.device.netlink.neighbours()
        self._stations = self._lab.stations()
        self._loaded = Loaded(self._lab.device)

    def restore(self) -> bool:
        """Take back what packets have changed on the device under test, as :mod:`harness.experiment.kept` lists it.

        Whether it is again as at first. If not, nothing is as it was.
        """
        self.sent.clear()
        self._times, self._allowance = Timetable(), None
        self._named.clear()
        device = self._lab.device
        if self._unasked.spoiled or device.netlink.neighbours() - self._entries:
            return False
        if self._lab.stations() != self._stations:
            return False
        renew_neighbours(device)
        with suppress(Unsupported):
            conntrack.flush(device)
            assert self._loaded is not None, "nothing was remembered"
            if self.ruleset.may_stay() and self._loaded.reset():
                return True
            tracing, files = self._device_tracing, self._files
            if self.ruleset.restore(files.paths, files.defines, tracing.anew(), hidden=tracing.table):
                self._loaded.reloaded()
                return True
        return False

    def noted(self, measurements: Iterable[Measurement]) -> Iterator[Measurement]:
        """Add to each measurement what the neighbour entries of the lab hide, once; nothing is measured after that."""
        said: dict[str, None] = {}
        for measurement in measurements:
            found = dict.fromkeys(self._unasked.notes(measurement.observation, measurement.packet))
            yield msgspec.structs.replace(measurement, notes=tuple(one for one in found if one not in said))
            said |= found

    def _follow(self, ruleset: Ruleset) -> None:
        """Observe the device under test with ``ruleset``, to which a step has changed its own."""
        self._neighbours.follow(ruleset)
        self._left.changed()
        self._unasked.changed = True
        if ruleset is self.ruleset:  # none but elements have changed
            return
        self._rulesets[self._lab.network.device] = ruleset
        self._device_tracing.follow(ruleset)
        self._tracer.arm(self._named)  # modules may have been loaded

    def _connections_explain(self, expect: Expect, observations: Sequence[Observation]) -> bool:
        """Whether the connections that the device tracks say why a packet is not as expected."""
        rules = self.ruleset.rules
        seen = [Evidence(expect, Outcome(), one, decisive(one), rules) for one in observations]
        return any(tracking.needs_connections(one) or helpers.may_be_announced(one) for one in seen)

    def _send(self, frames: Sequence[Frame], pace: float) -> tuple[tuple[Observation, ...], list[float]]:
        """Send frames, ``pace`` seconds from one to the next, and watch each to its end; and how late each was sent."""
        ways = {frame.way: self._senders.of(frame) for frame in frames}
        for frame in frames:
            self._neighbours.of_frame(frame)
        self.sent += (frame.data for frame in frames)

        lates: list[float] = []
        asked: list[float] = []

        def start(meanwhile: Callable[[], object]) -> None:
            turn = 0.0
            for number, frame in enumerate(frames):
                wait_for_turn(turn, meanwhile)
                turn = time.monotonic() + pace
                self._times.begin(pace if number else 0.0)
                ways[frame.way].send(frame.data)
                lates.append(self._times.late)
                asked.append(self._times.asked)

        observations = self._measure(
            [way.cookie for way in ways.values()],
            start,
            injected=[frame.data for frame in frames],
            host=frames[0].sender,
        )
        self._allowance = self._allowance or Allowance(self.ruleset)
        for observation, seconds in zip(observations, asked, strict=True):
            self._allowance.take(observation, seconds)
        return observations, lates

    def _flow(self, plan: flow.FlowPlan, call: Call) -> Observation:
        """Have programs call each other and watch all packets of it to their end."""
        failed = self._neighbours.of_flow(plan.host, plan.destination)
        answers = self._programs.answers
        answers.begin()

        def advance(arrived: Sequence[Captured]) -> None:
            answers.take(plan, arrived)
            call.advance()

        with self._times.programs():
            (observation,) = self._measure(
                [call.cookie],
                lambda _: call.start(),
                advance=advance,
                injected=None,
                host=plan.host,
                failed=lambda: call.failed,
            )
        ended = _ended(call, observation)
        observation = msgspec.structs.replace(observation, flow=ended)
        if blamed := unreached(observation, failed):
            observation = msgspec.structs.replace(observation, unresolved=tuple(map(self._explain, blamed)))
        if observation.unresolved or not observation.whole or any(map(_is_dropped, observation.packets)):
            answers.explain()
        refuse_contradiction(observation)
        return observation

    def _explain(self, query: Query) -> str:
        """Why a neighbour cannot be resolved: it is asked for once more, and that is watched."""
        resolved: list[bool] = []
        seen = None
        with self._neighbours.apart(), suppress(BrokenMeasurement, Unsupported):
            (seen,) = self._measure(
                [], lambda _: resolved.append(self._neighbours.ask(query)), injected=(), host=query.host
            )
        if any(resolved):
            raise BrokenMeasurement(f"{query.host} resolved its neighbour {query.address} only at the second attempt")
        return explain(query, seen, self._lab.network)

    @contextmanager
    def _recording(self, cookies: Sequence[int]) -> Iterator[TraceSession]:
        """Record what the sockets with ``cookies`` send, and nothing of what was sent before.

        A packet of an earlier step may still come, such as an acknowledgement that was delayed (RFC 9293, 3.8.6.3): a
        recording that begins with one, of which some was not recorded, is begun anew.
        """
        watching = partial(
            self._tracer.watch,
            hosts=self._lab.by_inum,
            senders=cookies,
            listeners=[tracing.cookie for tracing in self._tracing],
        )
        for _ in range(BEGINNINGS - 1):
            with watching() as watch:
                self._drop_earlier()
                if watch.is_empty():  # whatever was read was reported before
                    yield watch
                    return
        with watching() as watch:
            self._drop_earlier()
            yield watch

    def _drop_earlier(self) -> None:
        """Read what the kernel has reported until now, and forget it."""
        while [*self._capture.read(), *(message for tracing in self._tracing for message in tracing.read())]:
            pass

    def _measure(
        self,
        cookies: Sequence[int],
        start: Callable[[Callable[[], list[Step]]], None],
        *,
        advance: Callable[[Sequence[Captured]], None] = lambda _: None,
        injected: Sequence[bytes] | None,
        host: str,
        failed: Callable[[], str] = str,
        reduced: Callable[[TraceData], TraceData] = lambda recording: recording,
    ) -> tuple[Observation, ...]:
        """Watch what the sockets with ``cookies`` on ``host`` send until all is still.

        ``start`` has them send, and calls its argument while it waits for a turn, which returns the steps reported
        since the last call; ``advance`` does what programs do about what has reached them, and gets the frames captured
        since it was called last; ``failed`` returns the
        errno of a call that the kernel refused; ``reduced`` takes out of the recording what is not needed.
        """
        lab, tracer, capture = self._lab, self._tracer, self._capture
        captured: list[Captured] = []
        handled = 0
        messages: list[tuple[TraceMessage, Step | None]] = []

        def take() -> list[Step]:
            captured.extend(capture.read())  # a frame lives on until it is read
            fresh = [message for tracing in self._tracing for message in tracing.read()]
            messages.extend(fresh)
            watch.drain()
            return [step for _, step in fresh if step]

        def act() -> None:
            nonlocal handled
            fresh, handled = captured[handled:], len(captured)
            self._programs.decide()
            advance(fresh)

        def settled() -> bool:
            act()
            take()
            if watch.alive():
                return False
            act()  # what reached a program meanwhile may be answered yet
            take()
            return handled == len(captured) and watch.still()

        with self._recording(cookies) as watch:
            overruns = sum(tracing.overruns for tracing in self._tracing)
            start(take)
            self._sent_at = time.monotonic()
            deadline = SETTLED_S + len(injected or ()) * SETTLED_MORE_S
            try:
                wait_until(settled, deadline, "the kernel to be done with the packets")
            except TimedOut:
                watch.end()
            take()  # every message and frame of what was recorded until the end, and maybe some of later
            recording = reduced(watch.finish())
        scene = JoinContext(
            device=lab.device.name,
            ruled=self._ruled,
            tracing_table=self._device_tracing.table,
            host=lambda inum: lab.by_inum[inum].name if inum in lab.by_inum else "",
            interface=lambda inum, index: lab.by_inum[inum].interface(index) if inum in lab.by_inum else "",
            drop_reasons=tracer.drop_reasons,
            kernel=tracer.kernel,
            engine=tracer.engine_name,
            traced=tracer.traced,
            untraceable=tracer.untraceable,
            sockets=self._sockets,
            epoch=time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        )
        return observe(
            scene,
            recording,
            messages,
            captured,
            injected=injected,
            sender=host,
            failed=failed(),
            trace_lost=sum(tracing.overruns for tracing in self._tracing) - overruns,
        )


def _ended(call: Call, observation: Observation) -> Flow:
    """How a program's call ended, with the errno of one that failed at once.

    Where no packet was made, its errno is neither an ICMP error nor silence. A reset that ended the connection
    before is still what the program sees.
    """
    ended = msgspec.structs.replace(call.finish(), error=call.failed)
    if ended.result != "refused" and any(map(unsent, observation.packets)):
        ended = msgspec.structs.replace(ended, result="unsent")
    return ended


def _is_dropped(packet: ObservedPacket) -> bool:
    """Whether a kernel or a ruleset, on whichever host, dropped or rejected ``packet``."""
    lost = packet.drop is not None and not arrivals(packet)  # a silent host drops what has arrived
    return lost or any(step.verdict in REFUSED for step in packet.steps)


def _named(actions: Iterable[Action]) -> set[str]:
    """The functions that the scenario names."""
    return {name for action in actions for _, expect in action.entries for name in functions(expect)}
