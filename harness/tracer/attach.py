"""Engines: ways to have a BPF program called for kernel functions.

Every engine calls the same programs with the same cookies, so the same events come out of each;
they differ in how many functions they can carry and in what they know of missed calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol

from harness.errors import Unsupported
from harness.kernel import bpf, features


class Engine(Protocol):
    """A way to attach programs to functions, holding what it attached until closed."""

    name: str
    everything: bool
    """Whether it can carry every traceable function, or only a chosen few."""

    def attach(self, program: int, cookies: Mapping[str, int], *, returns: bool = False) -> dict[str, str]:
        """Call ``program`` on entry to (or return from) the functions; reasons for those refused."""

    def missed(self) -> int:
        """Calls that the kernel skipped, as far as it tells per attachment."""

    def close(self) -> None:
        """Detach everything."""


class KprobeMulti:
    """One link for all functions of a program (kprobe.multi, from v5.18)."""

    name = "kprobe.multi"
    everything = True

    def __init__(self) -> None:
        self._links: list[int] = []

    def attach(self, program: int, cookies: Mapping[str, int], *, returns: bool = False) -> dict[str, str]:
        """See :class:`Engine`. A refused function refuses the link, so it is searched for by halves."""
        names = list(cookies)
        if not names:
            return {}
        try:
            self._links.append(bpf.link_functions(program, names, list(cookies.values()), returns=returns))
        except OSError as error:
            if len(names) == 1:
                return {names[0]: error.strerror or str(error)}
            half = len(names) // 2
            parts = ({name: cookies[name] for name in part} for part in (names[:half], names[half:]))
            return {name: why for part in parts for name, why in self.attach(program, part, returns=returns).items()}
        return {}

    def missed(self) -> int:
        """See :class:`Engine`; the kernel tells from v6.7."""
        return sum(bpf.link_misses(link) for link in self._links)

    def close(self) -> None:
        """See :class:`Engine`."""
        while self._links:
            os.close(self._links.pop())


class Kprobe:
    """A kprobe for each function: slow to attach, so for a chosen few."""

    name = "kprobe"
    everything = False

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def attach(self, program: int, cookies: Mapping[str, int], *, returns: bool = False) -> dict[str, str]:
        """See :class:`Engine`."""
        refused = {}
        for name, cookie in cookies.items():
            try:
                self._descriptors += bpf.link_function(program, name, cookie, returns=returns)
            except OSError as error:
                refused[name] = error.strerror or str(error)
        return refused

    def missed(self) -> int:
        """See :class:`Engine`; the kernel does not tell."""
        return 0

    def close(self) -> None:
        """See :class:`Engine`."""
        while self._descriptors:
            os.close(self._descriptors.pop())


AUTO = "auto"
ENGINES: tuple[tuple[type[KprobeMulti | Kprobe], Callable[[], features.Answer]], ...] = (
    (KprobeMulti, features.kprobe_multi),
    (Kprobe, features.kprobe),
)
"""The engines, the best first, each with the question whether this kernel allows it."""
NAMES = (AUTO, *(engine.name for engine, _ in ENGINES))


def engine(name: str = AUTO) -> Engine:
    """The engine called ``name``, or the best that this kernel allows.

    Raises :class:`Unsupported` when the kernel does not allow it, or has no function probes at all.
    """
    for make, allowed in ENGINES:
        if name == make.name:
            allowed().require(f"leave out --nft-tracer {name}")
        if name in (AUTO, make.name) and allowed().able:
            return make()
    raise Unsupported(
        features.function_probes().reason, remedy="choose a kernel image with --nft-kernel, for example 6.12"
    )
