"""State of a pytest session: the armed tracer, and what controller and workers send each other.

The controller reads the scenario files and builds their frames, for that is slow in an emulated
guest; a worker in a guest sends what it learned of its kernel to the controller, for it cannot write
to the cache itself.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cache import cache_dir, store
from harness.errors import BrokenMeasurement
from harness.linux import modules
from harness.packets import frames
from harness.pytest_plugin import distribute, foreseen, selection
from harness.pytest_plugin.selection import scenario_files
from harness.report import kinds
from harness.scenario.case import Case, LoadedFile
from harness.scenario.files import shortened
from harness.text import escape, lines
from harness.tracer import armed, engines, kernel_cache
from harness.vm import placement, preload
from harness.vm.port import in_guest

if TYPE_CHECKING:
    from harness.experiment.kept import KeptLab
    from harness.experiment.run import Experiment, Measurement
    from harness.packets.spec import Send
    from harness.scenario.case import Files
    from harness.topology.network import Network
    from harness.tracer.base import BaseTracer

COLOUR, WANTED, CASES, FRAMES, PROJECT = "nft_colour", "nft_wanted", "nft_cases", "nft_frames", "nft_project"
LEARNED, ARMED, UNUSABLE, COMPLAINTS = "nft_learned", "nft_armed", "nft_unusable", "nft_complaints"
"""Keys of what controller and workers send each other."""


class Session:
    """A pytest session: the controller's, a worker's, or one that does everything itself."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nft-harness")
        self._kept = kernel_cache.KernelCache(cache_dir())
        self._tracer: BaseTracer | None = None
        self._lab: KeptLab | None = None
        self._loaded: dict[Path, LoadedFile] = {}
        self._prepared: Future[dict[str, bytes]] | None = None
        self._armed: dict[str, str] = {}
        modules.permit(name for words in config.option.nft_modules for name in words.split(","))
        modules.permit(config.getini("nft_modules"))
        self.broken: list[str] = []
        """What breaks the run beside its tests: workers that were ended for what they sent, and kernels' complaints."""
        self.unusable: dict[str, None] = {}
        """Why workers could not use the arguments of pytest, each sentence once."""
        if distribute.is_worker(config):
            given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
            self._colour: bool | None = given[COLOUR]
            self.wants_results: bool = given[WANTED]
            """Whether anybody reads what is recorded of scenarios. A worker knows the command line, and not what
            the controller's environment asks for."""
            self._loaded = pickle.loads(given[CASES])
            frames.use(given[FRAMES])
            if in_guest():  # where the controller's files are
                selection.use(config, pickle.loads(given[PROJECT]))
            return
        self._colour = None
        self._loaded = config.stash.get(foreseen.LOADED, {})
        self.wants_results = bool(config.option.nft_record or kinds.wanted(config.option))
        if distribute.DISTRIBUTION in config.stash and config.stash[distribute.DISTRIBUTION].guests:
            self._prepared = self._thread.submit(self._prepare, scenario_files(config).files)

    @property
    def colour(self) -> bool:
        """Whether the reader sees colours."""
        if self._colour is None:
            reporter = self._config.pluginmanager.get_plugin("terminalreporter")
            self._colour = bool(reporter and reporter.hasmarkup)
        return self._colour

    # -- where scenarios run ----------------------------------------------------------------------

    def has(self, path: Path) -> bool:
        """Whether the scenario file has been read already, here or by the controller."""
        return path in self._loaded

    def load(self, path: Path) -> LoadedFile:
        """The scenarios of a file; those that are being read already are waited for."""
        if self._prepared:
            self._prepared.result()
        return self._read(path)

    def run(self, case: Case) -> tuple[Measurement, ...]:
        """Run a scenario on this process's kernel; what was seen of each step that expects something."""
        if self._lab is None:
            from harness.experiment.kept import KeptLab

            self._lab = KeptLab(fresh=self._config.option.nft_fresh_labs)
        return self._lab.run(case, self._armed_tracer())

    def open(self, network: Network, rulesets: Mapping[str, Files]) -> AbstractContextManager[Experiment]:
        """Open a stage on this process's kernel, for steps that come one by one."""
        from harness.experiment.run import Experiment

        self._remove_lab()
        return Experiment.open(network, rulesets, self._armed_tracer())

    @property
    def tracer(self) -> BaseTracer | None:
        """What traces in this process; None before the first lab, and where a test was interrupted while it began."""
        return None if self._tracer and self._tracer.half_armed else self._tracer

    def _armed_tracer(self) -> BaseTracer:
        if self._tracer and self._tracer.half_armed:  # interrupted, as by pytest-timeout
            self._remove_lab()
            armed.discard(self._tracer)
            self._tracer.close()
            self._tracer = None
        if self._tracer is None:
            distribution = self._config.stash.get(distribute.DISTRIBUTION, None)
            if distribution and distribution.chosen:  # a worker has none
                raise BrokenMeasurement("this was to run in a worker of pytest-xdist, and runs in the process itself")
            if not in_guest():  # a guest has it from the controller
                placement.use_nft(distribute.asked_nft(self._config))
            self._tracer = self._open(self._config.option.nft_tracer)
        return self._tracer

    def _remove_lab(self) -> None:
        if self._lab:
            self._lab.close()

    def _open(self, engine: str) -> BaseTracer:
        from harness.tracer import program

        room = program.ring_bytes(self._config.option.nft_buffer)
        if engine == engines.TRACEPOINTS:
            from harness.tracer.stacks import Stacks

            return Stacks(self._kept, ring_bytes=room)
        from harness.tracer.tracer import Tracer

        if ready := armed.get(engine, room):
            return ready
        return Tracer(self._kept, engine=engine, ring_bytes=room)

    def finish(self) -> None:
        """Remove the last lab; hand on what was learned of this kernel, or keep it if that can be done from here."""
        self._remove_lab()
        complaints = self._complaints()
        news = self._kept.news()
        armed = {os.uname().release: str(self._tracer)} if self._tracer else {}
        if distribute.is_worker(self._config):
            self._config.workeroutput[ARMED] = armed  # type: ignore[attr-defined]
            self._config.workeroutput[LEARNED] = news | preload.news()  # type: ignore[attr-defined]
            self._config.workeroutput[COMPLAINTS] = complaints  # type: ignore[attr-defined]
        else:
            self._armed |= armed
            self._keep(news)
            self._note_complaints(complaints)

    def _complaints(self) -> list[str]:
        """What this kernel complained of while no scenario ran."""
        if self._tracer is None:
            return []
        from harness.linux import health  # a controller does without

        return health.between()

    def _note_complaints(self, complaints: Sequence[str]) -> None:
        if complaints:
            self.broken.append(f"a kernel complained when no scenario ran: {escape(complaints[0])}")

    def cannot_use(self, error: pytest.UsageError) -> None:
        """In a worker, send to the controller why arguments cannot be used; xdist has no event for that."""
        if distribute.is_worker(self._config):
            self._config.workeroutput[UNUSABLE] = list(map(str, error.args))  # type: ignore[attr-defined]

    def summary(self) -> list[str]:
        """What was armed on each kernel, one line each."""
        return [escape(f"nft-harness: {armed} on kernel {release}") for release, armed in self._armed.items()]

    def close(self) -> None:
        """Disarm and free everything."""
        self._thread.shutdown()
        self._remove_lab()  # of a session that did not come to its finish
        if self._tracer and not armed.holds(self._tracer):
            self._tracer.close()

    # -- the controller ---------------------------------------------------------------------------

    def inform(self, given: dict[str, Any]) -> None:
        """Put into a worker's input what the controller knows."""
        given[COLOUR] = self.colour
        given[WANTED] = self.wants_results
        given[FRAMES] = self._prepared.result() if self._prepared else {}
        given[CASES] = pickle.dumps(self._loaded)
        given[PROJECT] = pickle.dumps(selection.project(self._config))

    def watch(self, node: Any) -> None:
        """Check what the worker ``node`` sends if it is in a guest, which may have been taken over."""
        distribution = self._config.stash.get(distribute.DISTRIBUTION, None)
        if guest := distribution and distribution.guest(node.gateway.id):
            from harness.pytest_plugin.workers import Watch

            files = frozenset(str(shortened(path)) for path in scenario_files(self._config).files)
            Watch(node, guest.image.release, files, self.broken.append)

    def worker_ended(self, name: str, output: dict[str, Any], error: object) -> None:
        """Keep what a worker learned; after a crash show the console of its kernel."""
        self._armed |= output.get(ARMED, {})
        self._keep(output.get(LEARNED, {}))
        self._note_complaints(output.get(COMPLAINTS, ()))
        self.unusable |= dict.fromkeys(output.get(UNUSABLE, ()))
        distribution = self._config.stash.get(distribute.DISTRIBUTION, None)
        if error and distribution and (words := distribution.last_words(name)):
            writer = self._config.get_terminal_writer()
            writer.line()
            writer.sep("-", f"console of {name}")
            writer.write(lines(words))

    def _prepare(self, files: Iterable[Path]) -> dict[str, bytes]:
        from harness.pytest_plugin import kept_frames

        return kept_frames.prepare(self._sent(files))

    def _sent(self, files: Iterable[Path]) -> Iterator[tuple[Send, Network]]:
        """The packets of scenario files, which it reads."""
        self._loaded = {path: self._read(path) for path in files}
        for loaded in self._loaded.values():
            for case in loaded.cases:
                if isinstance(case, Case):
                    yield from case.sends

    def _keep(self, news: dict[str, bytes]) -> None:
        store(cache_dir(), news)

    def _read(self, path: Path) -> LoadedFile:
        return self._loaded.get(path) or foreseen.read(self._config, path)


SESSION = pytest.StashKey[Session]()
