"""The program on the kernel that measures: requests on stdin, answers on stdout.

::

    python -m harness.batch.measure ENGINE

All of the kernel's functions are traced, by ENGINE. See :mod:`harness.batch.messages` for what can be asked.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from harness.errors import BrokenMeasurement, HarnessError
from harness.model.observation import Rule
from harness.model.result import PacketResult

if TYPE_CHECKING:
    from harness.experiment.run import Experiment
    from harness.scenario.case import Case
    from harness.tracer.base import BaseTracer


def main(engine: str) -> None:
    """Answer the requests on stdin, with functions traced by ``engine``."""
    serve(engine, Request, answers)


def serve(
    engine: str,
    kind: Any,
    answered: Callable[[Any, Callable[[], BaseTracer]], Iterator[msgspec.Struct]],
) -> None:
    """Answer the requests of ``kind`` on stdin by ``answered``, with functions traced by ``engine``."""
    decoder = msgspec.json.Decoder(kind)
    with ExitStack() as stack:

        @cache
        def tracer() -> BaseTracer:  # who only sifts needs none
            return stack.enter_context(_tracer(engine))

        for line in sys.stdin.buffer:
            try:
                for answer in answered(decoder.decode(line), tracer):
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


def answers(request: Request, tracer: Callable[[], BaseTracer]) -> Iterator[msgspec.Struct]:
    """The answers to ``request``; a ``tracer`` is made when it is needed."""
    match request:
        case AskedLook(paths=paths):
            from harness.generate.facts import load

            yield load(*map(Path, paths))
        case AskedCases(cases=pickled, frames=prepared, in_one_lab=in_one_lab):
            from harness.packets import frames

            frames.use(prepared)
            cases = pickle.loads(pickled)
            yield from run(cases, tracer()) if in_one_lab else (run_alone(case, tracer()) for case in cases)
        case AskedEffects(side=side, packets=packets, sift=True):
            from harness.batch.sift import sifted

            yield from sifted(side, packets)
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
    from harness.batch.remembered import State

    with ExitStack() as stack:
        stage: Experiment | None = None
        state: State | None = None
        known: tuple[Rule, ...] = ()
        for case in cases:
            if stage is None or state is None:
                try:
                    stage = _opened(stack, case, tracer)
                    state = State(stage)
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
            if not state.forget(step for one in sent for packet in one.observation.packets for step in packet.steps):
                stack.close()
                stage = None


def _opened(stack: ExitStack, case: Case, tracer: BaseTracer) -> Experiment:
    from harness.experiment.run import Experiment

    stage = stack.enter_context(Experiment.open(case.network, case.rulesets, tracer, counts=False))
    stage.arm(case.actions)
    return stage


def _acted(stage: Experiment, case: Case) -> Iterator[PacketResult]:
    from harness.pytest_plugin.results import packet_result

    for number, action in enumerate(case.actions):
        for measurement in stage.act(action, number, partial(case.where, number)):
            yield packet_result(measurement, (), case, stage.ruleset)


if __name__ == "__main__":
    main(*sys.argv[1:])
