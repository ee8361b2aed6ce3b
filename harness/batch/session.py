"""The session of many packets as the controller sees it: a program on the kernel that measures.

::

    BatchSession.open ── starts ──> python -m harness.batch.measure, here or in a microVM
    look, measure, run ── a request ──> it; its answers come back one by one
"""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from harness import ending
from harness.batch.messages import (
    END,
    AskedCases,
    AskedEffects,
    AskedLook,
    AskedOptimized,
    Effects,
    Listed,
    Loaded,
    Refused,
    Request,
    Seen,
    Sifted,
)
from harness.errors import HarnessError, shortage_in
from harness.generate.facts import Facts
from harness.text import escape
from harness.vm import nft, placement, privileged

if TYPE_CHECKING:
    from harness.packets.frames import Frame
    from harness.scenario.case import Case, Files
    from harness.topology.network import Network

PROGRAM = "harness.batch.measure"


class BatchSession:
    """A program, in a microVM if need be, that measures packets as it is asked to."""

    def __init__(self, program: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        self._program = program
        self._complaints = complaints

    @classmethod
    @contextmanager
    def open(cls, kernel: str, tracer: str = placement.AUTO, program: str = PROGRAM) -> Iterator[BatchSession]:
        """Start it on ``kernel``, ``auto``, ``host`` or an image, to trace by ``tracer``; it ends with the ``with``.

        ``program`` is a module that answers what :mod:`harness.batch.measure` answers, and perhaps more.

        It is not waited for: the first request is. Where a person watches, a template is made if there is none.

        Raises :class:`~harness.errors.HarnessError` where that cannot be done.
        """
        from harness.vm.progress import shown, silent

        with shown(sys.stderr) as progress:
            (place,) = placement.choose([kernel], progress if sys.stderr.isatty() else silent, tracer)
            nft.use(place.nft)  # what is looked at here is read by the same
            command = privileged.wrapper() if place.sudo else [sys.executable]
            if place.image is not None:
                from harness.vm.guest import Guest
                from harness.vm.microvm import wrapper

                Guest.plan(place.image).decide(cold=False, progress=progress if sys.stderr.isatty() else None)
                command = [*wrapper(), "--kernel", str(place.image.vmlinuz), "--nft", place.image.nft_argument]
        command += ["-m", program, tracer]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "TERM", *command]
        ending.check()
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints) as running,
        ):
            try:
                yield cls(running, complaints)
            finally:
                running.terminate()

    def look(self, paths: Sequence[Path]) -> Facts:
        """Load a ruleset, the files ``paths`` in their order, and look at it; nothing of it is left.

        Raises :class:`~harness.errors.HarnessError`, with the place in the file where nft refuses it.
        """
        facts: Facts
        (facts,) = self.answers(AskedLook(paths=tuple(map(str, paths))), Facts)
        return facts

    def measure(self, cases: Sequence[Case], frames: Mapping[str, bytes]) -> Iterator[Seen]:
        """Run ``cases``, which have the same lab and ruleset, in one lab; what became of each, when it is known.

        ``frames`` are of :func:`harness.packets.frames.prepare`. Raises :class:`~harness.errors.HarnessError` where
        none can be measured.
        """
        for seen in self.answers(AskedCases.of(cases, frames, in_one_lab=True), Seen):
            if seen.is_general:
                raise HarnessError(seen.error)
            yield seen

    def run(self, cases: Sequence[Case], frames: Mapping[str, bytes]) -> Iterator[Seen]:
        """Run ``cases``, each in a lab of its own; what became of each, when it is known.

        ``frames`` are of :func:`harness.packets.frames.prepare`.
        """
        yield from self.answers(AskedCases.of(cases, frames), Seen)

    def effects(
        self, side: tuple[Network, Files], packets: Sequence[Sequence[Sequence[Frame]]], *, sift: bool = False
    ) -> Iterator[Loaded | Effects]:
        """What the ruleset of ``side`` does with each of ``packets``, each as if it were the first.

        With ``sift`` no function is watched, only nf_tables' trace and what arrives.

        The first answer is the ruleset, then those of the packets come in order, when each is known.
        """
        yield from self.measured(AskedEffects(side=pickle.dumps(side), packets=packets, sift=sift), packets, sift=sift)

    def measured(
        self, request: msgspec.Struct, packets: Iterable[Sequence[Sequence[Frame]]], *, sift: bool
    ) -> Iterator[Loaded | Effects]:
        """The answers to ``request``, by which ``packets`` are sent: rulesets, and what the last one did with each.

        Of packets that are sifted, what the kernel gave is read here. Raises as :meth:`answers`.
        """
        if not sift:
            yield from self.answers(request, Loaded | Effects)
            return
        from harness.batch import sighting

        yield from sighting.effects(self.answers(request, Loaded | Sifted), packets)

    def optimized(self, side: tuple[Network, Files]) -> str:
        """What ``nft --optimize`` makes of the ruleset of ``side``, as nft lists it."""
        found: Listed
        (found,) = self.answers(AskedOptimized(side=pickle.dumps(side)), Listed)
        return found.listing

    def answers(self, request: Request | msgspec.Struct, kind: Any) -> Iterator[Any]:
        """The answers to ``request``, of the type ``kind``.

        Raises :class:`~harness.errors.HarnessError` where there is none, and when the program has ended.
        """
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        with suppress(BrokenPipeError):
            self._program.stdin.write(msgspec.json.encode(request) + b"\n")
            self._program.stdin.flush()
        decoder, refused = msgspec.json.Decoder(kind), msgspec.json.Decoder(Refused)
        for line in self._program.stdout:
            if line == END:
                return
            with suppress(msgspec.MsgspecError):
                why = refused.decode(line).refused
                self._program.stdout.readline()  # END
                raise HarnessError(why)
            with suppress(msgspec.MsgspecError):
                yield decoder.decode(line)
        from harness.vm.microvm import complaint

        self._program.wait()
        self._complaints.seek(0)
        said = complaint(self._complaints.read().decode(errors="replace"))
        short = shortage_in(said)
        remedy = short.remedy if short else ""
        raise HarnessError(f"the session that measures packets ended early: {escape(said)}", remedy=remedy)
