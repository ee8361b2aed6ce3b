"""The command ``nft-harness mutate``, top to bottom."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.batch.saving import existing
from harness.batch.session import BatchSession
from harness.errors import HarnessError
from harness.mutate import known, selection
from harness.mutate.results import RulesetResult
from harness.mutate.ruleset import MutatedRuleset, Subject
from harness.scenario.case import Case
from harness.scenario.files import shortened
from harness.text import counted
from harness.vm import placement

PROGRAM = "harness.mutate.measure"

Progress = Callable[[str], None]


class MutateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    selection: tuple[str, ...]
    """pytest's arguments: paths, ``-k`` and so on."""
    rulesets: tuple[str, ...] = ()
    """Names of rulesets' files; nothing for all that the scenarios load."""
    kernel: str = ""
    """As ``--nft-kernel``; "" for what pytest would take."""
    tracer: str = placement.AUTO
    sift: bool = True
    """Whether scenarios are first run without watching functions, where these decide nothing."""
    seed: int = 1
    mutants: int | None = None
    """Of each ruleset at most; which, the seed decides. None for as many as its size allows."""
    fresh: bool = False
    """Whether nothing that is known of earlier runs counts."""
    save: Path | None = None
    """A scenario file to which a scenario for each survivor is added."""


class Interrupted(Exception):
    """Ctrl-C or a signal that asks to end; holds what is known by then."""

    def __init__(self, results: list[RulesetResult], status: int) -> None:
        super().__init__("interrupted")
        self.results = results
        self.status = status
        """The exit status: 128 + the number of the signal."""


class Mutated(NamedTuple):
    """What became of the mutants of each ruleset."""

    results: list[RulesetResult]
    failures: list[str]
    """Sentences: rulesets that could not be mutated, and scenarios that could not be saved."""


def run(request: MutateRequest, progress: Progress) -> Mutated:
    """Run what ``request`` asks for; what became of the mutants of each ruleset.

    Raises :class:`~harness.errors.HarnessError` where that cannot be done, and :class:`Interrupted`.
    """
    selected = selection.select(request.selection)
    selected.refuse_none()
    for sentence in (*selected.broken, *selected.unread):
        progress(f"not used: {sentence}")
    if selected.others:
        progress(f"not used: {counted(selected.others, 'test')} in Python")
    kernel = _kernel(request, selected.kernels)
    if request.save:
        existing(request.save)
    subjects = list(_subjects(selected.cases, request))
    found: list[RulesetResult] = []
    failures: list[str] = []
    with ExitStack() as stack:
        opened: list[BatchSession] = []

        def session() -> BatchSession:
            if not opened:
                opened.append(stack.enter_context(BatchSession.open(kernel, request.tracer, PROGRAM)))
            return opened[0]

        place = _described(kernel, request.tracer)
        for number, subject in enumerate(subjects, 1):
            name = known.name_of(subject.files, f"{place} {request.tracer} {request.sift}")
            kept = known.Known() if request.fresh else known.read(name)
            one = MutatedRuleset(
                *(subject, kept, session, progress), sift=request.sift, seed=request.seed, budget=request.mutants
            )
            started = time.monotonic()
            try:
                progress(f"{subject.name} ({number} of {len(subjects)}): {counted(len(subject.cases), 'scenario')}")
                one.run()
                if request.save:
                    failures += _saved(request.save, one, progress)
            except HarnessError as error:
                if len(subjects) == 1:
                    raise
                failures.append(f"{subject.name} was not mutated: {error}")
                progress(f"  not done: {error}")
                continue
            except (KeyboardInterrupt, SystemExit) as ended:
                known_by_now = [one.result(time.monotonic() - started)] if one.is_begun else []
                status = ended.code if isinstance(ended, SystemExit) else 128 + signal.SIGINT
                raise Interrupted([*found, *known_by_now], int(status or 0)) from None
            finally:
                if one.is_begun:
                    known.write(name, kept)
            found.append(one.result(time.monotonic() - started))
    if failures and not found:
        raise HarnessError(f"no ruleset could be mutated; {failures[0]}")
    return Mutated(found, failures)


def _saved(file: Path, ruleset: MutatedRuleset, progress: Progress) -> list[str]:
    """Save scenarios for the survivors of ``ruleset``; the sentence that says why not, if they were not."""
    from harness.mutate import saving

    try:
        saving.save(file, ruleset, progress)
    except HarnessError as error:
        return [f"scenarios for {ruleset.subject.name} were not saved: {error}"]
    return []


def _kernel(request: MutateRequest, asked: Sequence[str]) -> str:
    """The kernel to run on."""
    kernels = [request.kernel] if request.kernel else list(asked)
    if len(kernels) > 1:
        raise HarnessError(f"mutants run on one kernel, and {len(kernels)} are set", remedy="choose by --nft-kernel")
    return kernels[0]


def _described(kernel: str, tracer: str) -> str:
    """Identifies the kernel and the nft that are used, without starting them."""
    (place,) = placement.choose([kernel], lambda *_: None, tracer)
    if place.image is None:
        return f"{os.uname().release} {place.nft}"
    about = place.image.vmlinuz.stat()
    return f"{place.image.vmlinuz} {about.st_size} {about.st_mtime_ns} {place.nft}"


def _subjects(cases: Sequence[Case], request: MutateRequest) -> Iterator[Subject]:
    """The rulesets of the devices under test, each with the scenarios that load it."""
    found: dict[object, list[Case]] = {}
    for case in cases:
        files = case.rulesets[case.network.device]
        found.setdefault((files.paths, tuple(sorted(files.defines.items()))), []).append(case)
    names = []
    is_any = False
    for several in found.values():
        files = several[0].rulesets[several[0].network.device]
        name = ",".join(str(shortened(path)) for path in files.paths)
        names.append(name)
        chosen = [one for one in request.rulesets if one in (name, *(path.name for path in files.paths))]
        if request.rulesets and not chosen:
            continue
        is_any = True
        yield Subject(name, files, several)
    if not is_any:
        raise HarnessError(
            f"no selected scenario loads {', '.join(request.rulesets)}", remedy=f"they load {', '.join(names)}"
        )
