"""Engines: ways to have a BPF program called for kernel functions.

Every engine calls the same programs with the same cookies, so each produces the same events; they differ in how many
functions they can attach to, and in whether they count missed calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from harness.errors import Unsupported, shortage
from harness.linux import bpf, features
from harness.tracer.discover import KERNEL
from harness.tracer.program import LoadedProgram
from harness.tracer.survey import Survey


class Symbol(NamedTuple):
    """A function as in /proc/kallsyms."""

    name: str
    module: str = KERNEL

    @property
    def qualified(self) -> str:
        """As the kernel takes it apart: ``ip_rcv``, ``nf_tables:nft_do_chain``."""
        return self.name if self.module == KERNEL else f"{self.module}:{self.name}"


class Engine(Protocol):
    """A way to attach the programs of ``loaded`` to functions; they stay attached until it is closed."""

    name: str
    everything: bool
    """Whether it can attach to every traceable function, or only to a limited number."""
    constants: Mapping[str, int]
    """Constants that the program must be compiled with."""

    def __init__(self, loaded: LoadedProgram, survey: Survey) -> None: ...

    def attach(self, program: str, cookies: Mapping[Symbol, int], *, returns: bool = False) -> dict[str, str]:
        """Attach ``program`` to the entry (or return) of functions, each with its cookie.

        Returns the reasons for those that the kernel refused, by name.
        """

    def missed(self) -> int:
        """Number of calls that the kernel skipped, as far as it counts them per attachment."""

    def close(self) -> None:
        """Detach everything."""


class KprobeMulti:
    """One link for all functions of a program (kprobe.multi, from v5.18)."""

    name = "kprobe.multi"
    everything = True
    constants: Mapping[str, int] = {}

    def __init__(self, loaded: LoadedProgram, survey: Survey) -> None:
        self._loaded = loaded
        self._links: list[int] = []

    def attach(self, program: str, cookies: Mapping[Symbol, int], *, returns: bool = False) -> dict[str, str]:
        """See :class:`Engine`. By their addresses, since the kernel takes long to find names; by names where that is
        refused. One refused function refuses the whole link, so it is searched for by bisection.
        """
        if not cookies:
            return {}
        descriptor = self._loaded.program(program, bpf.PROG_TYPE_KPROBE, bpf.TRACE_KPROBE_MULTI)
        addresses = self._loaded.addresses([symbol.qualified for symbol in cookies])
        if all(addresses):
            with suppress(OSError):
                values = list(cookies.values())
                self._links.append(bpf.link_functions(descriptor, addresses, values, returns=returns))
                return {}
        return self._link(descriptor, [(symbol.name, cookie) for symbol, cookie in cookies.items()], returns)

    def _link(self, program: int, functions: list[tuple[str, int]], returns: bool) -> dict[str, str]:
        names, cookies = zip(*functions, strict=True)
        try:
            self._links.append(bpf.link_functions(program, names, cookies, returns=returns))
        except OSError as error:
            if len(functions) == 1:
                return {names[0]: error.strerror or str(error)}
            half = len(functions) // 2
            return self._link(program, functions[:half], returns) | self._link(program, functions[half:], returns)
        return {}

    def missed(self) -> int:
        """See :class:`Engine`; counted from v6.7."""
        return sum(bpf.link_misses(link) for link in self._links)

    def close(self) -> None:
        """See :class:`Engine`."""
        while self._links:
            os.close(self._links.pop())


class Fentry:
    """A trampoline for each function, and a program loaded for each: for a limited number.

    The cheapest per call, and every skipped run is counted. Attaching is slow, because the verifier checks the
    program once for each function.
    """

    name = "fentry"
    everything = False
    constants: Mapping[str, int] = {"FENTRY": 1}

    def __init__(self, loaded: LoadedProgram, survey: Survey) -> None:
        self._loaded = loaded
        self._survey = survey
        self._btfs: dict[str, int] = {}
        """Descriptors of the modules' BTF."""
        self._programs: list[int] = []
        self._links: list[int] = []

    def attach(self, program: str, cookies: Mapping[Symbol, int], *, returns: bool = False) -> dict[str, str]:
        """See :class:`Engine`."""
        refused = {}
        for symbol, cookie in cookies.items():
            try:
                self._attach(program, symbol, cookie, returns)
            except Unsupported as error:
                refused[symbol.name] = str(error)
            except OSError as error:
                if shortage(error):
                    raise
                refused[symbol.name] = error.strerror or str(error)
        return refused

    def _attach(self, program: str, symbol: Symbol, cookie: int, returns: bool) -> None:
        if "." in symbol.name:
            raise Unsupported(
                "the compiler specialised it, and fentry attaches only to functions as they are in the source"
            )
        number = self._survey.function_id(symbol.name, symbol.module)
        if symbol.module != KERNEL and symbol.module not in self._btfs:
            self._btfs[symbol.module] = bpf.open_btf(symbol.module)
        descriptor = self._loaded.load(
            program,
            bpf.PROG_TYPE_TRACING,
            bpf.TRACE_FEXIT if returns else bpf.TRACE_FENTRY,
            function=number,
            btf=self._btfs.get(symbol.module, 0),
        )
        self._programs.append(descriptor)
        self._links.append(bpf.link_trampoline(descriptor, cookie, returns=returns))

    def missed(self) -> int:
        """See :class:`Engine`."""
        return sum(map(bpf.recursion_misses, self._programs))

    def close(self) -> None:
        """See :class:`Engine`."""
        for descriptors in (self._links, self._programs):
            while descriptors:
                os.close(descriptors.pop())
        while self._btfs:
            os.close(self._btfs.popitem()[1])


class Kprobe:
    """A kprobe for each function: slow to attach, so for a limited number."""

    name = "kprobe"
    everything = False
    constants: Mapping[str, int] = {}

    def __init__(self, loaded: LoadedProgram, survey: Survey) -> None:
        self._loaded = loaded
        self._descriptors: list[int] = []

    def attach(self, program: str, cookies: Mapping[Symbol, int], *, returns: bool = False) -> dict[str, str]:
        """See :class:`Engine`."""
        descriptor = self._loaded.program(program, bpf.PROG_TYPE_KPROBE)
        refused = {}
        for symbol, cookie in cookies.items():
            try:
                self._descriptors += bpf.link_function(descriptor, symbol.name, cookie, returns=returns)
            except OSError as error:
                refused[symbol.name] = error.strerror or str(error)
        return refused

    def missed(self) -> int:
        """See :class:`Engine`; the kernel does not count them."""
        return 0

    def close(self) -> None:
        """See :class:`Engine`."""
        while self._descriptors:
            os.close(self._descriptors.pop())


AUTO = "auto"
ENGINES: tuple[type[Engine], ...] = (KprobeMulti, Kprobe, Fentry)
"""The engines, the best first."""
NAMES = (AUTO, *(engine.name for engine in ENGINES))
TRACEPOINTS = features.TRACEPOINTS
"""Without probes on functions; only used when selected explicitly: :mod:`harness.tracer.stacks`."""


def candidates(name: str = AUTO) -> Iterator[type[Engine]]:
    """The engines to try, the best first: the one called ``name``, or all."""
    return (engine for engine in ENGINES if name in (AUTO, engine.name))
