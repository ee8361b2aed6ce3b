"""Packets sent to mutants and to the original, on this kernel, to find one that distinguishes them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

from harness.batch.effects import Measuring, Packet, armed, measured
from harness.batch.messages import Effects, Loaded, Sifted
from harness.batch.sift import Sifting, SiftStage, sifted_in
from harness.errors import HarnessError
from harness.mutate.edits import Edit
from harness.mutate.messages import AskedApart, Trial
from harness.mutate.stage import MutatedStage, RefusedError

if TYPE_CHECKING:
    from harness.batch.stage import Stage
    from harness.tracer.base import BaseTracer

Lab = TypeVar("Lab", bound=Sifting | Measuring)
Answer = TypeVar("Answer", Sifted, Effects)


def apart(request: AskedApart, tracer: Callable[[], BaseTracer]) -> Iterator[Loaded | Effects | Sifted]:
    """What mutants do with the packets of the trials of ``request``."""
    network, files = pickle.loads(request.side)
    with ExitStack() as stack:

        def mutated(stage: Stage) -> MutatedStage:
            return MutatedStage(stage, request.objects, request.fixed)

        def sifting() -> tuple[MutatedStage, Sifting]:
            inner = stack.enter_context(SiftStage.open(network, files))
            return (stage := mutated(inner)), Sifting(inner, stage)

        def measuring() -> tuple[MutatedStage, Measuring]:
            stage = mutated(armed(stack, network, files, tracer()))
            return stage, Measuring(stage)

        if request.sift:
            sifts = _Labs(stack, sifting)
            yield from _answered(request.trials, sifts, partial(sifted_in, sifts), Sifted)
        else:
            labs = _Labs(stack, measuring)
            yield from _answered(
                request.trials,
                labs,
                lambda packets: chain([labs.current().loaded], measured(labs, packets)),
                Effects,
            )


def _answered(
    trials: Iterable[Trial],
    labs: _Labs[Lab],
    send: Callable[[Sequence[Packet]], Iterator[Loaded | Answer]],
    failed: type[Answer],
) -> Iterator[Loaded | Answer]:
    """What ``send`` yields of the packets of each of ``trials``, or that they ``failed``."""
    for trial in trials:
        labs.turn(trial.edit)
        left = len(trial.packets)
        try:
            for one in send(trial.packets):
                yield one
                left -= not isinstance(one, Loaded)
        except (HarnessError, RefusedError) as error:
            labs.leave()
            for _ in range(left):
                yield failed(error=str(error).splitlines()[0])


class _Labs(Generic[Lab]):
    """Labs that have a mutant for their ruleset; see :class:`harness.batch.stage.LabsWith`."""

    def __init__(self, stack: ExitStack, opened: Callable[[], tuple[MutatedStage, Lab]]) -> None:
        """A lab that is ``opened`` with the original ends with ``stack``."""
        self._stack = stack
        self._opened = opened
        self._current: tuple[MutatedStage, Lab] | None = None
        self._edit: Edit | None = None
        self._is_turned = True
        """Whether the lab is to get another mutant."""

    def turn(self, edit: Edit | None) -> None:
        """Have the next lab another mutant, or the original."""
        if self._current is not None and not self._current[0].restore():
            self.leave()
        self._edit, self._is_turned = edit, True

    def leave(self) -> None:
        """As of :class:`~harness.batch.stage.LabsWith`."""
        self._current, self._is_turned = None, True
        self._stack.close()

    def current(self) -> Lab:
        """As of :class:`~harness.batch.stage.LabsWith`."""
        if self._current is None:
            self._current = self._opened()
        stage, lab = self._current
        if self._is_turned:
            if self._edit is None:
                stage.settle()
            else:
                stage.become(self._edit)
            lab.follow()
            self._is_turned = False
        return lab
