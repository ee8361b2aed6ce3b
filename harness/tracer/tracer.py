"""The tracer: armed once per process, recording while a scenario watches.

Arming attaches the programs to every function that can be traced; nothing is recorded until
:meth:`~harness.tracer.base.BaseTracer.watch` is called with the namespaces and sockets of a scenario. A ruleset may
load modules, so the tracer is armed again, for functions of new modules, after a scenario's ruleset was loaded.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from harness.errors import Unsupported, shortage
from harness.linux import bpf, modules
from harness.linux.bpf import U32, U64
from harness.model import layers
from harness.tracer import engines, events, program
from harness.tracer.base import BaseTracer, constants_of
from harness.tracer.contract import Scope, Trait
from harness.tracer.discover import Function, Functions
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.session import TraceSession
from harness.tracer.traits import ALLOCATORS, LIVE_TRAITS, SOURCES, TRAITS, evaluates, is_of_nf_tables

RETURN_SEEN = Trait.RETURNS | Trait.COPIES | Trait.EVALUATES | Trait.ROUTES
"""Traits of functions whose return is probed as well."""


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``nft-harness trace`` needs of the program beyond what scenarios need."""

    expression: str = ""
    """Of pcap-filter(7); every packet when empty."""
    stacks: bool = False
    """Whether each event is followed by its stack."""
    bytes: bool = False
    """Whether events hold bytes of their packet; they are :class:`events.EventWithBytes` then."""

    @property
    def constants(self) -> dict[str, int]:
        """The constants that the program must be compiled with; filter and stacks are put in later."""
        return {"LIVE": 1, **({"SNAP": events.SNAP} if self.bytes else {})}

    def apply(self, source: program.Object) -> program.Object:
        """The compiled program with the filter inserted, and with room for stacks only if they are wanted."""
        filtered = program.with_filter(source, self.expression)
        maps = (
            msgspec.structs.replace(spec, max_entries=1) if spec.name == "stacks" and not self.stacks else spec
            for spec in filtered.maps
        )
        return msgspec.structs.replace(filtered, maps=tuple(maps))


class Tracer(BaseTracer):
    """Probes on functions: the compiled program and everything it is attached to."""

    def __init__(
        self,
        kept: KernelCache,
        *,
        ring_bytes: int = program.RING_BYTES,
        engine: str = engines.AUTO,
        live: LiveOptions | None = None,
    ) -> None:
        """``engine`` is one of :data:`engines.NAMES`; with ``live`` the tracer is for :meth:`live` alone."""
        modules.load()  # before the layout of nf_tables' structs is read
        self.refused: dict[str, str] = {}
        """Functions on which the kernel refused a probe, and why."""
        self._surveyed: Functions | None = None
        """What :meth:`arm` has chosen from before, with ``_named``."""
        self._passing: tuple[engines.Engine, int] | None = None
        """By what functions are traced that :meth:`let_go` detaches, and how many others there are."""
        self._named: set[str] = set()
        self._traced: frozenset[str] | None = None
        self._live = live
        with ExitStack() as undo:
            loaded, self.engine = undo.enter_context(_started(engine, kept, ring_bytes, live))
            shape = events.Shape.SNAPPED if live and live.bytes else events.Shape.EVENTS
            super().__init__(kept.survey, loaded, undo, ring_bytes, shape)
            self.engine_name = self.engine.name
            if live and live.stacks:
                self.maps["with_stacks"][U32.pack(0)] = U32.pack(1)
            drops = loaded.program("on_kfree_skb", bpf.PROG_TYPE_RAW_TRACEPOINT)
            undo.callback(os.close, bpf.open_raw_tracepoint(drops, "kfree_skb"))
            self._undo = undo.pop_all()

    def arm(self, named: Collection[str] = ()) -> None:
        """Attach to every traceable function of the kernel and of the loaded modules that is not attached yet; to those
        of modules that will be unloaded, and what comes behind them, until :meth:`let_go`.

        With an engine that is limited to some, to the critical ones and those ``named``.
        """
        functions = self.survey.functions()
        if functions is not self._surveyed or not (self.engine.everything or self._named.issuperset(named)):
            armed = {function.kernel_name for function in self.functions}
            new = [
                function
                for function in functions
                if function.kernel_name not in armed
                and (
                    self.engine.everything
                    or function.priority == layers.CRITICAL
                    or function.name in TRAITS
                    or function.name in named
                )
            ]
            if not self._passing:
                self._arm([function for function in new if function.module not in modules.passing])
                new = [function for function in new if function.module in modules.passing]
                if new:
                    self._passing = type(self.engine)(self.loaded, self.survey), len(self.functions)
            self._arm(new)
            self._surveyed = functions
            self._named.update(named)
        self.untraceable = {name: self._why_not(name, functions) for name in sorted(set(named) - self.traced)}

    def let_go(self) -> None:
        """See :class:`BaseTracer`: a probe on a function of a module, and a program made for it, keep it loaded."""
        if self._passing is None:
            return
        engine, others = self._passing
        self._passing = self._surveyed = self._traced = None
        engine.close()
        for number, function in enumerate(self.functions[others:], others):
            self.refused.pop(function.kernel_name, None)
            self.maps["traits"][U32.pack(number)] = U32.pack(0)
        del self.functions[others:]

    def _why_not(self, name: str, functions: Functions) -> str:
        asked = [function.kernel_name for function in self.functions if function.name == name]
        reasons = [self.refused[one] for one in asked if one in self.refused]
        return f"it refuses a probe there ({reasons[-1]})" if reasons else functions.why_not(name)

    def known(self) -> Functions:
        """The functions of the kernel and of the loaded modules."""
        return self.survey.functions()

    def arm_only(self, functions: Collection[Function]) -> None:
        """Attach to ``functions`` and, without events of their own, to those needed to interpret their events.

        Those are the functions by which packets are followed through copies and to their end and, if any of
        ``functions`` belongs to nf_tables, the expressions by which rules are known.
        """
        chosen = {function.kernel_name for function in functions}
        rules = self._live and any(map(is_of_nf_tables, functions))
        self._arm(functions)
        self._arm(
            [
                function
                for function in self.survey.functions()
                if function.kernel_name not in chosen
                and (self._trait(function) & (Trait.COPIES | Trait.FREES) or (rules and is_of_nf_tables(function)))
            ],
            Trait.QUIET,
        )

    def _arm(self, functions: Collection[Function], quiet: int = 0) -> None:
        self.half_armed = True
        try:
            self._attach(functions, quiet)
        except OSError as refused:
            raise Unsupported(
                f"kernel {self.kernel} refuses the tracer's program: {refused.strerror or refused}",
                remedy="choose another kernel with --nft-kernel, for example 6.12",
            ) from None
        self.half_armed = False

    def _attach(self, functions: Collection[Function], quiet: int) -> None:
        first = len(self.functions)
        self.functions += functions
        self._traced = None
        entries: dict[str, dict[engines.Symbol, int]] = {}
        """Cookies of the functions by the program that is called on their entry."""
        returns: dict[str, dict[engines.Symbol, int]] = {}
        for number, function in enumerate(functions, first):
            position = SOURCES.get(function.name, function.position)
            pktinfo = function.carries != "sk_buff"
            trait = self._trait(function) | quiet
            plain = not trait and not pktinfo and position == 0
            cookies = entries.setdefault("on_entry_plain" if plain else "on_entry", {})
            symbol = engines.Symbol(function.kernel_name, function.module)
            cookies[symbol] = program.cookie(number, position, pktinfo=pktinfo)
            if trait:
                self.maps["traits"][U32.pack(number)] = U32.pack(trait)
            if trait & RETURN_SEEN:
                name = (
                    "on_return_eval"
                    if trait & Trait.EVALUATES
                    else "on_return_list"
                    if trait & Trait.LISTS
                    else "on_return"
                )
                returns.setdefault(name, {})[symbol] = number
        engine = self._passing[0] if self._passing else self.engine
        # Returns first: a call whose return is missed would count as still under way.
        for name, numbers in returns.items():
            self.refused |= engine.attach(name, numbers, returns=True)
        for name, cookies in entries.items():
            self.refused |= engine.attach(name, cookies)

    def _trait(self, function: Function) -> int:
        trait = TRAITS.get(function.name, 0)
        if self._live:
            trait |= LIVE_TRAITS.get(function.name, 0) | (Trait.EVALUATES if evaluates(function) else 0)
        return trait

    def __str__(self) -> str:
        """How functions are traced, e.g. ``1654 functions by kprobe.multi``, ``231 of 1571 functions by kprobe``."""
        known = len(self.survey.functions().names)
        some = f"{len(self.traced)} of {known}" if len(self.traced) < known else f"{known}"
        return f"{some} functions by {self.engine.name}"

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are armed."""
        if self._traced is None:
            self._traced = frozenset(f.name for f in self.functions if f.kernel_name not in self.refused)
        return self._traced

    def missed(self) -> int:
        """See :class:`BaseTracer`."""
        passing = self._passing[0].missed() if self._passing else 0
        return super().missed() + self.engine.missed() + passing

    @contextmanager
    def live(self, hosts: Collection[int] | None) -> Iterator[TraceSession]:
        """Record packets that match the filter, with addresses, in the namespaces ``hosts`` or, if None, in all."""
        with self.watch(hosts=hosts or (), senders=()) as watch:
            self._record(Scope.ANYWHERE if hosts is None else Scope.LISTED)
            yield watch

    def admit(self, host: int) -> None:
        """Record in the namespace ``host`` (inode number) as well."""
        self.maps["namespaces"][U32.pack(host)] = U32.pack(1)

    def device(self, netns: int, index: int) -> str:
        """Name of an interface at which a packet of a live trace was seen; "" for others."""
        name = self.maps["dev_names"].get(U64.pack(netns << 32 | index)) or b""
        return name.partition(b"\0")[0].decode(errors="replace")


@contextmanager
def _started(
    name: str, kept: KernelCache, ring_bytes: int, live: LiveOptions | None
) -> Iterator[tuple[program.LoadedProgram, engines.Engine]]:
    """Load the program, and attach the first of the engines ``name`` that works to the allocators of packets.

    Attaching to these is needed anyway, so it serves as the test of the engine. Raises :class:`Unsupported` with the
    reason for each engine.
    """
    constants = {**constants_of(kept.survey), **(live.constants if live else {})}
    whys = {}
    for make in engines.candidates(name):
        with ExitStack() as undo:
            try:
                source = kept.object({**constants, **make.constants})
                if live:
                    source = live.apply(source)
                loaded = undo.enter_context(program.LoadedProgram(source, ring_bytes=ring_bytes))
                engine = make(loaded, kept.survey)
                undo.callback(engine.close)
                refused = engine.attach(
                    "on_return_alloc", {engines.Symbol(name): 0 for name in ALLOCATORS}, returns=True
                )
            except OSError as error:
                if shortage(error):
                    raise
                refused = {ALLOCATORS[0]: error.strerror or str(error)}
            if ALLOCATORS[0] not in refused:
                yield loaded, engine
                return
            whys[make.name] = refused[ALLOCATORS[0]]
    raise Unsupported(
        f"kernel {os.uname().release} refuses probes on functions by "
        + ", ".join(f"{engine} ({why})" for engine, why in whys.items()),
        remedy=f"leave out --nft-tracer {name}, or choose another kernel with --nft-kernel, for example 6.12"
        if name != engines.AUTO
        else "choose a kernel with --nft-kernel, for example 6.12",
    )
