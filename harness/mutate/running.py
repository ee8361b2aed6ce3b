"""Scenarios run under mutants, on this kernel: one lab, and one mutant after the other."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from harness.batch.remembered import State
from harness.batch.sift import SiftStage
from harness.batch.timing import Timing
from harness.errors import BrokenMeasurement, HarnessError, ScenarioError, Unsupported
from harness.judge.expectations import judge
from harness.judge.lateness import REMEDY, refuse_late
from harness.lab import neighbours
from harness.model.mismatch import Mismatch
from harness.model.observation import Observation, Place, Step
from harness.mutate.messages import AskedMutant, AskedMutants, Baseline, Tried
from harness.mutate.stage import Listed, MutatedStage, RefusedError
from harness.packets.frames import build
from harness.packets.headers import summarise
from harness.reading.decision import decisive
from harness.ruleset.load import Ruleset
from harness.scenario.models.actions import ListenAction, SendAction, SendingAction

if TYPE_CHECKING:
    from harness.batch.stage import Stage
    from harness.experiment.run import Experiment
    from harness.scenario.case import Case
    from harness.scenario.models.expect import Expect
    from harness.tracer.base import BaseTracer

Difference = tuple[int, str]
"""The number of a step, and the key of ``expect`` that something differs in."""


class Judged(NamedTuple):
    """A scenario judged."""

    differs: dict[Difference, str]
    """All that differs in the first step where anything does, in words."""
    is_open: bool
    """Whether something could not be judged, because not all functions were watched."""
    steps: tuple[Step, ...]
    """Of all packets of which something is expected, on the device."""
    watched: str = ""
    shape: tuple[object, ...] = ()
    """What happened to each packet, as far as sifting shows it: rules and verdicts, marks, and what arrived."""


def is_followed(case: Case) -> bool:
    """Whether a run of ``case`` shows each place that its packets come to.

    Something is expected of all of them, and no step waits or changes the ruleset or the lab.
    """
    sending = (action for action in case.actions if not isinstance(action, ListenAction))
    return len(case.rulesets) == 1 and all(isinstance(one, SendingAction) and one.entries for one in sending)


def wanted(case: Case) -> Iterator[str | int]:
    """What ``case`` calls rules."""
    for action in case.actions:
        for _, expect in action.entries:
            yield from (one for one in (expect.rule, *(expect.rules or ())) if one is not None)


def baselines(cases: Sequence[Case], tracer: BaseTracer) -> Iterator[Baseline]:
    """Run ``cases``, which have the same lab and ruleset, as they are."""
    with ExitStack() as stack:
        lab: _Lab | None = None
        for case in cases:
            started = time.monotonic()
            lab = lab or _Lab(stack, case, tracer)
            try:
                judged, ruleset = (lab if case.only_sends else _Lab(stack, case, tracer)).judged(case)
            except HarnessError as error:
                yield Baseline(error=str(error).splitlines()[0])
                lab = None
                stack.close()
                continue
            if not (case.only_sends and lab.stage.is_known):
                lab = None
                stack.close()
            if any(isinstance(one, int) for one in wanted(case)):
                yield Baseline(error="it calls a rule by its handle, which mutants change")
                continue
            evaluated, matched = _places(judged.steps, ruleset)
            yield Baseline(
                error="; ".join(judged.differs.values()),
                evaluated=tuple(evaluated),
                matched=tuple(matched),
                is_open=not is_followed(case),
                seconds=time.monotonic() - started,
                watched=judged.watched,
            )


class _Lab:
    """A lab with its ruleset, and what is needed to run scenarios there one after the other."""

    def __init__(
        self, stack: ExitStack, case: Case, tracer: BaseTracer | None, request: AskedMutants | None = None
    ) -> None:
        self._experiment: Experiment | None = None
        """None where no functions are watched."""
        stage: Stage
        if tracer is None:
            stage = stack.enter_context(SiftStage.open(case.network, case.rulesets[case.network.device]))
            # Questions for one that nobody answers come for three seconds, with whatever is sent meanwhile.
            neighbours.hold(stage.device)
        else:
            from harness.experiment.run import Experiment

            stage = self._experiment = stack.enter_context(Experiment.open(case.network, case.rulesets, tracer))
        if request is None:
            self.stage = MutatedStage(stage, ())
        else:
            names = [str(one) for other in pickle.loads(request.cases) for one in wanted(other)]
            self.stage = MutatedStage(stage, request.objects, request.fixed, names)
        self._state = State(self.stage)
        self._timing: Timing | None = None

    def become(self, mutant: AskedMutant) -> Listed:
        """Have the device load a mutant, as of :meth:`MutatedStage.become`."""
        found = self.stage.become(mutant.edit)
        self._follow()
        return found

    def settle(self) -> None:
        """As of :meth:`MutatedStage.settle`."""
        self.stage.settle()
        self._follow()

    def _follow(self) -> None:
        self._state.follow()
        self._timing = None

    def judged(self, case: Case) -> tuple[Judged, Ruleset]:
        """Run ``case``; what differs, and the ruleset."""
        if self._experiment is None:
            self._timing = self._timing or Timing(self.stage.ruleset.rules, self._state.timed)
            judged = _sifted(case, self.stage, self._state, self._timing)
        else:
            self._experiment.arm(case.actions)
            judged = _acted(case, self._experiment)
        if not case.only_sends or not self._state.forget(judged.steps):
            self.stage.is_known = False
        return judged, self.stage.ruleset


def _acted(case: Case, stage: Experiment) -> Judged:
    """Run ``case`` step by step, up to the first in which something differs.

    Raises :class:`~harness.errors.BrokenMeasurement` where that may be because the machine was slow.
    """
    steps: list[Step] = []
    is_open, watched = False, ""
    for number, action in enumerate(case.actions):
        differs: dict[Difference, str] = {}
        for one in stage.act(action, number, partial(case.where, number)):
            if not case.actions[number].entries:
                continue
            steps += _of_device(one.observation)
            watched = one.observation.engine
            found = _mismatches(case, number, one.expect, one.observation, stage.ruleset)
            if found:
                refuse_late(one.evidence, one.pace, one.ruleset.limits)
            is_open = is_open or found is None
            differs |= {(number, str(mismatch.keys[1])): _words(mismatch) for mismatch in found or ()}
        if differs:
            return Judged(differs, is_open, tuple(steps), watched)
    return Judged({}, is_open, tuple(steps), watched)


def _sifted(case: Case, stage: Stage, state: State, timing: Timing) -> Judged:
    """Send the packets of ``case`` without watching functions; all that differs, as far as that shows it.

    Raises :class:`~harness.errors.BrokenMeasurement` where messages are not those of the packets, and where time
    decides about one, whatever it has decided.
    """
    sends = [(number, action) for number, action in enumerate(case.actions) if isinstance(action, SendAction)]
    groups = [build(action.send, case.network) for _, action in sends]
    steps: list[Step] = []
    differs: dict[Difference, str] = {}

    def after(taken: Sequence[Step]) -> bool:
        certain = timing.certain(taken, sizes.pop(0))
        if state.age >= certain:
            raise BrokenMeasurement(
                f"time decides about a packet: a limit or an element of a set may have changed after {certain:.2g} s",
                remedy=REMEDY,
            )
        steps.extend(taken)
        return True

    sizes = [[len(frame.data) for frame in frames] for frames in groups]
    timing.begin()
    state.begin()

    is_open = False
    shape: list[object] = []
    for (number, action), observations in zip(sends, stage.inject_each(groups, after), strict=True):
        if observations is None:
            raise BrokenMeasurement("messages of nf_tables' trace are not those of the packet")
        for observation, (_, expect) in zip(observations, action.expected_of(len(observations)), strict=True):
            shape += _shape(observation)
            if action.entries:
                found = _mismatches(case, number, expect, observation, stage.ruleset)
                is_open = is_open or found is None
                differs |= {(number, str(one.keys[1])): _words(one) for one in found or ()}
    return Judged(differs, is_open, tuple(steps), "none", tuple(shape))


def _shape(observation: Observation) -> Iterator[object]:
    """What happened to the packets of ``observation``; mutated rules are known by their places."""
    for packet in observation.packets:
        for step in packet.steps:
            rule = (step.rule.position or step.rule.handle, step.rule.written) if step.rule else ()
            yield step.chain_path, step.hook, step.kind, step.verdict, step.target, step.mark, rule
        for one in packet.deliveries:
            yield one.host, one.device, summarise(one.frame)


def _mismatches(
    case: Case, number: int, expect: Expect, observation: Observation, ruleset: Ruleset
) -> tuple[Mismatch, ...] | None:
    """What certainly differs; None where nothing does and something is left open."""
    try:
        return judge(
            expect,
            observation,
            decisive(observation),
            at=lambda keys: case.where(number, *keys),
            rules=ruleset.rules,
            policies=ruleset.policies,
        )
    except Unsupported:
        return None


def _words(one: Mismatch) -> str:
    return f"{one.key}: expected {one.expected}, seen {one.seen}"


def _of_device(observation: Observation) -> Iterator[Step]:
    for packet in observation.packets:
        yield from (step for step in packet.steps if step.host == observation.device)


def _places(steps: Iterable[Step], ruleset: Ruleset) -> tuple[dict[Place, None], dict[Place, None]]:
    """The places that packets with these ``steps`` came to, and those of them that matched or decided."""
    handles: dict[tuple[str, str, str], list[int]] = {}
    for rule in ruleset.rules:
        handles.setdefault(rule.place[:3], []).append(rule.handle)
    evaluated: dict[Place, None] = {}
    matched: dict[Place, None] = {}
    for step in steps:
        chain = step.family, step.table, step.chain
        own = handles.get(chain, [])
        if step.rule is None:
            if step.kind == "policy":
                matched[(*chain, 0)] = None
        elif step.rule.handle in own:
            own = own[: own.index(step.rule.handle) + 1]
            matched[(*chain, step.rule.handle)] = None
        evaluated |= dict.fromkeys((*chain, handle) for handle in own)
    return evaluated | matched, matched


# --- mutants ------------------------------------------------------------------------------------


def tried(cases: Sequence[Case], request: AskedMutants, tracer: BaseTracer | None) -> Iterator[Tried]:
    """Run ``cases``, those of ``request``, under each of its mutants until one kills it.

    A scenario kills a mutant by what differs there and does not under the original, measured the same way.
    """
    known: dict[int, Judged | None] = {}
    with ExitStack() as stack:
        trying: _Trying | None = None
        for mutant in request.mutants:
            if trying is None:
                trying = _Trying(stack, cases, tracer, request, known)
            found = trying.one(mutant)
            yield found
            if not trying.lab.stage.restore():
                trying = None
                stack.close()


class _Trying:
    def __init__(
        self,
        stack: ExitStack,
        cases: Sequence[Case],
        tracer: BaseTracer | None,
        request: AskedMutants,
        known: dict[int, Judged | None],
    ) -> None:
        self._cases = cases
        self._tracer = tracer
        self._request = request
        self._known = known
        """The scenarios sifted under the original, by their numbers; None for one that could not be."""
        self.lab = _Lab(stack, cases[0], tracer, request)

    def one(self, mutant: AskedMutant) -> Tried:
        if self._tracer is None:
            self._learn(mutant.cases)
        try:
            texts, is_same = self.lab.become(mutant)
        except RefusedError as refused:
            return Tried(outcome="refused", why=str(refused))
        if is_same:
            return Tried(outcome="same")
        left: list[int] = []
        broken: list[int] = []
        for number in mutant.cases:
            if number in self._known and self._known[number] is None:
                broken.append(number)  # what differs under the mutant may do so under the original
                continue
            try:
                judged = self._judged(number, mutant)
            except ScenarioError as error:
                found = Tried(outcome="killed", by=number, why=str(error).splitlines()[0], texts=texts)
                return msgspec.structs.replace(found, open=tuple(left), broken=tuple(broken))
            except (HarnessError, RefusedError):
                broken.append(number)
                self.lab.stage.is_known = False
                continue
            before = self._known.get(number)
            new = [words for key, words in judged.differs.items() if before is None or key not in before.differs]
            if new:
                found = Tried(outcome="killed", by=number, why=new[0], texts=texts)
                return msgspec.structs.replace(found, open=tuple(left), broken=tuple(broken))
            if before is not None and before.shape == judged.shape:
                continue  # nothing that functions could show is another either
            if judged.is_open or (before is not None and before.differs):
                left.append(number)
        return Tried(outcome="survived", open=tuple(left), broken=tuple(broken), texts=texts)

    def _learn(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number not in self._known:
                if self.lab.stage.is_known:
                    self.lab.settle()
                try:
                    self._known[number] = self._judged(number, None)
                except HarnessError:
                    self._known[number] = None
                    self.lab.stage.is_known = False

    def _judged(self, number: int, mutant: AskedMutant | None) -> Judged:
        """Run a scenario under ``mutant`` or the original, in a lab of its own where this one is not as at first."""
        case = self._cases[number]
        if case.only_sends and self.lab.stage.is_known:
            return self.lab.judged(case)[0]
        with ExitStack() as stack:
            alone = _Lab(stack, case, self._tracer, self._request)
            if mutant is not None:
                alone.become(mutant)
            return alone.judged(case)[0]
