"""The program on the kernel that measures: requests on stdin, answers on stdout.

::

    python -m harness.batch.measure ENGINE

All of the kernel's functions are traced, by ENGINE. See :mod:`harness.batch.messages` for what can be asked.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from harness.batch.messages import (
    END,
    AskedCases,
    AskedEffects,
    AskedLook,
    AskedOptimized,
    Refused,
    Request,
    Seen,
)
from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.model.observation import Rule
from harness.model.result import PacketResult
from harness.reading.rules import bare
from harness.recording.chance import evaluated
from harness.ruleset import conntrack, state
from harness.ruleset.nft import NftError

if TYPE_CHECKING:
    from harness.experiment.run import Experiment
    from harness.scenario.case import Case
    from harness.tracer.base import BaseTracer

_REMEMBERS: Final = re.compile(r"\b(?:limit rate|quota|numgen inc|ct count|last|add @|update @|delete @)")
"""Statements by which a ruleset remembers packets; connections are forgotten in any case."""
_ELEMENT: Final = re.compile(r"\b(?:add|update) @\S+ \{[^{}]*\}")
_OF_SET: Final = re.compile(r"\b(?:add|update) @([\w./-]+) \{")  # not a flowtable, which has no elements


def main(engine: str) -> None:
    """Answer the requests on stdin, with functions traced by ``engine``."""
    decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
    with _tracer(engine) as tracer:
        for line in sys.stdin.buffer:
            try:
                for answer in _answers(decoder.decode(line), tracer):
                    _say(msgspec.json.encode(answer) + b"\n")
            except HarnessError as error:
                _say(msgspec.json.encode(Refused(refused=str(error))) + b"\n")
            _say(END)


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


@contextmanager
def _tracer(engine: str) -> Iterator[BaseTracer]:
    """The tracer of a template, or one of our own."""
    from harness.cache import cache_dir
    from harness.tracer import armed, engines, kernel_cache, program

    room = program.ring_bytes(None)
    if ready := armed.get(engine, room):
        yield ready
        return
    kept = kernel_cache.KernelCache(cache_dir())
    if engine == engines.TRACEPOINTS:
        from harness.tracer.stacks import Stacks

        with Stacks(kept, ring_bytes=room) as stacks:
            yield stacks
        return
    from harness.tracer.tracer import Tracer

    with Tracer(kept, engine=engine, ring_bytes=room) as own:
        yield own


def _answers(request: Request, tracer: BaseTracer) -> Iterator[msgspec.Struct]:
    match request:
        case AskedLook(paths=paths):
            from harness.generate.facts import load

            yield load(*map(Path, paths))
        case AskedCases(cases=pickled, frames=prepared, in_one_lab=in_one_lab):
            from harness.packets import frames

            frames.use(prepared)
            cases = pickle.loads(pickled)
            yield from run(cases, tracer) if in_one_lab else (run_alone(case, tracer) for case in cases)
        case AskedEffects(side=side, packets=packets):
            from harness.batch.effects import effects

            yield from effects(side, packets, tracer)
        case AskedOptimized(side=side):
            from harness.batch.effects import optimized

            yield optimized(side)


def run_alone(case: Case, tracer: BaseTracer) -> Seen:
    """Run ``case`` in a lab of its own."""
    from harness.experiment.run import run
    from harness.pytest_plugin.results import packet_result

    try:
        measured = run(case, tracer)
    except HarnessError as error:
        return Seen(name=case.name, error=str(error), is_broken=isinstance(error, BrokenMeasurement))
    if not measured:
        return Seen(name=case.name)
    first = measured[0].ruleset
    return Seen(
        name=case.name,
        kernel=measured[0].observation.kernel,
        sent=tuple(packet_result(one, (), case, first) for one in measured),
        rules=first.rules,
        policies=first.policies,
        sets=first.sets,
    )


def run(cases: Iterable[Case], tracer: BaseTracer) -> Iterator[Seen]:
    """Run ``cases`` in one lab, each as if it were alone; the first has the rules."""
    with ExitStack() as stack:
        stage: Experiment | None = None
        filled: frozenset[str] = frozenset()
        known: tuple[Rule, ...] = ()
        for case in cases:
            if stage is None:
                try:
                    stage = _opened(stack, case, tracer)
                    filled = _filled(stage)
                except HarnessError as error:
                    yield Seen(name=case.name, error=str(error), is_general=True)
                    return
            try:
                sent = tuple(_acted(stage, case))
            except HarnessError as error:
                yield Seen(name=case.name, error=str(error).splitlines()[0])
                stack.close()
                stage = None
                continue
            rules = stage.ruleset.rules
            kernel = sent[0].observation.kernel if sent else ""
            yield Seen(name=case.name, kernel=kernel, sent=sent, rules=() if rules == known else rules)
            known = rules
            if not _taken_back(stage, sent, filled):
                stack.close()
                stage = None


def _opened(stack: ExitStack, case: Case, tracer: BaseTracer) -> Experiment:
    from harness.experiment.run import Experiment

    stage = stack.enter_context(Experiment.open(case.network, case.rulesets, tracer))
    stage.arm(case.actions)
    return stage


def _acted(stage: Experiment, case: Case) -> Iterator[PacketResult]:
    from harness.pytest_plugin.results import packet_result

    for number, action in enumerate(case.actions):
        for measurement in stage.act(action, number, partial(case.where, number)):
            yield packet_result(measurement, (), case, stage.ruleset)


def _filled(stage: Experiment) -> frozenset[str]:
    """The sets that rules add to and that have elements when the ruleset has just been loaded."""
    names = set().union(*map(_sets, stage.ruleset.rules))
    return frozenset(name for name, held in state.elements(stage.ruleset.nft, sorted(names)).items() if held)


def _sets(rule: Rule) -> set[str]:
    """The sets and maps that ``rule`` adds to, by family, table and name."""
    return {f"{rule.family} {rule.table} {name}" for name in _OF_SET.findall(bare(rule.text))}


def _taken_back(stage: Experiment, sent: Sequence[PacketResult], filled: frozenset[str]) -> bool:
    """Whether all that ``sent`` left behind in the device could be taken back: connections, and elements of sets."""
    try:
        conntrack.flush(stage.device)
    except Unsupported:
        return False
    sets: set[str] = set()
    for rule in evaluated([step for one in sent for step in one.seen.steps], stage.ruleset.rules):
        # What is remembered in an element goes with it.
        if _REMEMBERS.search(_ELEMENT.sub("", bare(rule.text))):
            return False
        sets |= _sets(rule)
    if sets & filled:
        return False
    try:
        for name in sorted(sets):
            stage.ruleset.nft.run(f"flush set {name}")
    except (HarnessError, NftError):
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
