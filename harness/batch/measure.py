"""Many packets in one session: what the kernel does with each, on its own.

::

    python -m harness.batch.measure

runs the scenarios of the files that it reads on stdin one by one, as a session of pytest would, but in one lab with one
ruleset: only what a packet leaves behind is taken back before the next. A line of JSON on stdout for each, as soon as
it is known.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec

from harness import ending
from harness.errors import HarnessError, Unsupported
from harness.model.observation import Rule
from harness.model.result import PacketResult
from harness.reading.rules import bare
from harness.recording.chance import evaluated
from harness.ruleset import conntrack, state
from harness.ruleset.nft import RefusedError
from harness.text import escape
from harness.vm import placement

if TYPE_CHECKING:
    from harness.experiment.run import Experiment
    from harness.scenario.case import Case
    from harness.tracer.base import BaseTracer

_REMEMBERS: Final = re.compile(r"\b(?:limit rate|quota|numgen inc|ct count|last|add @|update @|delete @)")
"""Statements by which a ruleset remembers packets; connections are forgotten in any case."""
_ELEMENT: Final = re.compile(r"\b(?:add|update) @\S+ \{[^{}]*\}")
_OF_SET: Final = re.compile(r"\b(?:add|update) @([\w./-]+)")


END: Final = b"\n"
"""The line behind the last scenario of a text."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario file to be measured."""

    file: str
    text: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one scenario."""

    name: str
    kernel: str = ""
    sent: tuple[PacketResult, ...] = ()
    rules: tuple[Rule, ...] = ()
    """The ruleset's; empty where they are those of the scenario before."""
    error: str = ""
    """Why it could not be measured: a sentence."""
    is_general: bool = False
    """Whether the error is one of the lab or the ruleset, so that no scenario can be measured."""


class Session:
    """A program, in a microVM if need be, that measures the scenarios of one text after the other."""

    def __init__(self, program: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        self._program = program
        self._complaints = complaints

    @classmethod
    @contextmanager
    def open(cls, kernel: str) -> Iterator[Session]:
        """Start it on ``kernel``, ``auto``, ``host`` or an image; it ends with the ``with``.

        Raises :class:`~harness.errors.HarnessError` where that cannot be done.
        """
        from harness.vm.progress import silent

        (place,) = placement.choose([kernel], silent)
        command = [sys.executable] if place.image is None else _in_guest(str(place.image.vmlinuz))
        command += ["-m", __name__]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "TERM", *command]
        ending.check()
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints) as program,
        ):
            try:
                yield cls(program, complaints)
            finally:
                program.terminate()

    def measure(self, file: Path, text: str, heard: Callable[[Seen], None]) -> None:
        """Measure the scenarios of ``text`` as if it stood in ``file``; call ``heard`` for each when it is known.

        Raises :class:`~harness.errors.HarnessError` where none can be measured.
        """
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        with suppress(BrokenPipeError):
            self._program.stdin.write(msgspec.json.encode(Asked(file=str(file), text=text)) + b"\n")
            self._program.stdin.flush()
        decoder = msgspec.json.Decoder(Seen)
        for line in self._program.stdout:
            if line == END:
                return
            try:
                seen = decoder.decode(line)
            except msgspec.MsgspecError:
                continue
            if seen.is_general:
                raise HarnessError(seen.error)
            heard(seen)
        self._program.wait()
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise HarnessError(f"the session that measures packets ended: {escape(said[-1])}")


def _in_guest(image: str) -> list[str]:
    from harness.vm.microvm import wrapper

    return [*wrapper(), "--kernel", image]


# --- in the kernel that measures ----------------------------------------------------------------


def main() -> None:
    """Measure the scenarios of each text on stdin with all of this kernel's functions traced."""
    from harness.cache import cache_dir
    from harness.tracer import armed, engines, kernel_cache, program
    from harness.tracer.tracer import Tracer

    room = program.ring_bytes(None)
    kept = kernel_cache.KernelCache(cache_dir())
    ready = armed.get(engines.AUTO, room)
    with ExitStack() as stack:
        tracer = ready or stack.enter_context(Tracer(kept, engine=engines.AUTO, ring_bytes=room))
        for line in sys.stdin.buffer:
            asked = msgspec.json.decode(line, type=Asked)
            for answer in itertools.chain(_answers(asked, tracer), [END]):
                sys.stdout.buffer.write(answer)
                sys.stdout.buffer.flush()


def _answers(asked: Asked, tracer: BaseTracer) -> Iterator[bytes]:
    return (msgspec.json.encode(seen) + b"\n" for seen in run(Path(asked.file), tracer, asked.text))


def run(file: Path, tracer: BaseTracer, text: str | None = None) -> Iterator[Seen]:
    """Run the scenarios of ``file``, or of ``text`` in its place; the first of each lab has the rules."""
    from harness.scenario.case import Case
    from harness.scenario.load import load_all

    cases = [case for case in load_all(file, recording=True, text=text).cases if isinstance(case, Case)]
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
    except (HarnessError, RefusedError):
        return False
    return True


if __name__ == "__main__":
    main()
