"""Live traces of all matching packets, of a machine or beside a command: ``nft-harness trace``."""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

import msgspec

from harness.errors import HarnessError
from harness.model import layers
from harness.model.observation import Loss
from harness.tracer import listing, packet_filter, program
from harness.tracer.discover import Function, Functions
from harness.tracer.events import ProbeEvent
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.session import TraceSession
from harness.tracer.tracer import LiveOptions, Tracer

Events = Sequence[ProbeEvent]

TICK_S = 0.02
"""Interval between two reads of the ring buffer, seconds; 3 million events a second fill it in three times that."""
SETTLED_S = 0.1
"""After a command has ended, seconds without an event until all its packets are considered done."""
SETTLING_S = 2.0
"""Timeout for that, seconds: on a busy network there is always another event."""
PART = 4096
"""Events that are decoded and printed before the ring buffer is read again."""
DEPTH = 127
"""Functions of a stack; PERF_MAX_STACK_DEPTH."""
MOST = program.MAX_FUNCTIONS
NAMED = Path("/run/netns")
"""Network namespaces with names, see ip-netns(8)."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What to trace."""

    functions: Sequence[str] = ()
    """Names or globs; all when empty."""
    max_functions: int | None = None
    netns: Sequence[str] = ()
    """Names below /run/netns, process ids, or paths; all namespaces when empty."""
    netns_to_come: bool = False
    """Whether to wait for a name that does not exist yet: the command may create it."""
    expression: str = ""
    """Of pcap-filter(7); every packet when empty."""
    stack: bool = False
    bytes: bool = False
    """Whether bytes of the packets are wanted."""
    engine: str = "auto"
    buffer: int | None = None
    """Size of the ring buffer, KiB; None for the default."""

    @property
    def ring_bytes(self) -> int:
        """Size of the ring buffer: a power of two, of one page at least."""
        if self.buffer is None:
            return program.RING_BYTES * (4 if self.bytes else 1)  # such events are three times as long
        return program.ring_bytes(self.buffer)

    def check(self) -> None:
        """Validate what can be validated before anything starts; raises :class:`HarnessError`."""
        packet_filter.compiled(self.expression)


def expression(text: str, protocols: Sequence[str]) -> str:
    """One pcap expression from the user's filter ``text`` and the protocols of ``--proto``."""
    parts = [part for part in (" or ".join(protocols), text) if part]
    return " and ".join(f"({part})" for part in parts) if len(parts) > 1 else "".join(parts)


def select_functions(functions: Functions, choice: Selection, *, everything: bool) -> list[Function]:
    """The functions to trace: those selected by name, else all, or the critical ones unless ``everything``.

    ``max_functions`` keeps the most informative ones. Raises :class:`HarnessError` for a name or glob without a
    match, and for more functions than the program has room for.
    """
    if choice.functions:
        chosen: dict[str, Function] = {}
        for glob in choice.functions:
            found = [function for function in functions if fnmatchcase(function.name, glob)]
            if not found:
                raise HarnessError(
                    f"{glob} can't be traced: {_why_not(functions, glob)}", remedy=_near(functions, glob)
                )
            chosen |= {function.kernel_name: function for function in found}
        selected = list(chosen.values())
    else:
        selected = [function for function in functions if everything or function.priority == layers.CRITICAL]
    if choice.max_functions is not None:
        selected = listing.most_informative(selected, choice.max_functions)
    if len(selected) > MOST:
        raise HarnessError(f"{len(selected)} functions cannot be traced at once", remedy=f"at most {MOST}")
    return selected


def _why_not(functions: Functions, glob: str) -> str:
    if any(character in glob for character in "*?["):
        return "no function that takes a packet has such a name"
    return functions.why_not(glob)


def _near(functions: Functions, glob: str) -> str:
    near = functions.near(glob.strip("*"))
    return f"did you mean {', '.join(near)}?" if near else "nft-harness discover lists those that can be"


def read_config(path: Path) -> list[str]:
    """Names of the functions in a file as written by ``nft-harness discover``.

    It holds an object whose ``functions`` (or ``traceable``) are names or objects with a ``name``. Raises
    :class:`HarnessError`.
    """
    remedy = 'write {"functions": ["ip_rcv", …]}, or make one by nft-harness discover --config FILE'
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path} can't be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise HarnessError(f"{path} is not JSON: {error}", remedy=remedy) from None
    try:
        listed = msgspec.convert(content, Config)
    except msgspec.ValidationError as error:
        raise HarnessError(f"{path}: {error}", remedy=remedy) from None
    names = [entry if isinstance(entry, str) else entry.name for entry in listed.functions or listed.traceable]
    if not names:
        raise HarnessError(f"{path} names no functions", remedy=remedy)
    return names


class Named(msgspec.Struct, frozen=True):
    """A function in such a file; its other keys are ignored."""

    name: str


class Config(msgspec.Struct, frozen=True):
    """The content of such a file."""

    functions: list[str | Named] = []
    traceable: list[str | Named] = []


def namespace(name: str) -> int:
    """Inode number of a network namespace, given a name below /run/netns, a process id or a path.

    Raises :class:`HarnessError`.
    """
    path = Path(f"/proc/{name}/ns/net") if name.isdecimal() else Path(name) if "/" in name else NAMED / name
    try:
        if not _is_namespace(path):
            raise HarnessError(f"{path} is not a network namespace", remedy="give a name of ip netns, or a process id")
        return path.stat().st_ino
    except OSError as error:
        known = sorted(entry.name for entry in NAMED.iterdir()) if NAMED.is_dir() else []
        near = get_close_matches(name, known, 1) or known
        remedy = f"there is {', '.join(near)}" if near else "give a process id or a path, such as /proc/PID/ns/net"
        raise HarnessError(f"there is no network namespace {name}: {path}: {error.strerror}", remedy=remedy) from None


def _is_namespace(path: Path) -> bool:
    """Whether a namespace is mounted at ``path``; ip-netns(8) first creates an empty file there."""
    return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev


def _exists(name: str) -> bool:
    return (NAMED / name).exists() and _is_namespace(NAMED / name)


class LiveTrace:
    """A tracer attached as selected, its events, and the names of what they refer to."""

    def __init__(self, kept: KernelCache, choice: Selection) -> None:
        self._hosts: list[int] = []
        self._to_come: list[str] = []
        for name in choice.netns:  # before anything that takes long
            if choice.netns_to_come and not ("/" in name or name.isdecimal() or _exists(name)):
                self._to_come.append(name)
            else:
                self._hosts.append(namespace(name))
        wants = LiveOptions(expression=choice.expression, stacks=choice.stack, bytes=choice.bytes)
        self._tracer = Tracer(kept, engine=choice.engine, ring_bytes=choice.ring_bytes, live=wants)
        try:
            everything = self._tracer.engine.everything
            functions = select_functions(self._tracer.known(), choice, everything=everything)
            self._tracer.arm_only(functions)
        except BaseException:
            self._tracer.close()
            raise
        chosen = {function.kernel_name for function in functions}
        self.refused = {name: why for name, why in self._tracer.refused.items() if name in chosen}
        """Functions on which the kernel refused a probe, and why."""
        self.armed = len(chosen) - len(self.refused)
        self.engine = self._tracer.engine.name
        self.functions = self._tracer.functions
        """By the number that events carry."""
        self.symbol = self._tracer.symbol
        self.reasons = self._tracer.drop_reasons
        self.loss = Loss()
        """What was lost; complete once :meth:`events` has ended."""
        self._chains: dict[int, str] = {}
        self._devices: dict[tuple[int, int], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tracer.close()

    def events(
        self, over: Callable[[], bool], ready: Callable[[], None], *, settle: bool
    ) -> Generator[Events, None, None]:
        """Batches of events in order, until ``over()`` returns true.

        With ``settle`` also those that follow, until none arrives for :data:`SETTLED_S`, at most for
        :data:`SETTLING_S`. ``ready()`` is called once recording has started. Sets :attr:`loss` at the end.
        """
        everywhere = not (self._hosts or self._to_come)

        def looked_and_over() -> bool:
            self._look_for_namespaces()
            return over()

        with self._tracer.live(None if everywhere else self._hosts) as watch:
            ready()
            yield from _batches(watch, looked_and_over, settle=settle)
            rest, self.loss = watch.rest()
        yield rest
        for name in self._to_come:
            namespace(name)  # raises, with a sentence

    def _look_for_namespaces(self) -> None:
        for name in filter(_exists, list(self._to_come)):
            self._tracer.admit(namespace(name))
            self._to_come.remove(name)

    def program(self) -> str:
        """The instructions as loaded, for ``--dump-program``."""
        return self._tracer.listing()

    def chain(self, address: int) -> str:
        """``family table chain`` of a chain met, by address."""
        if address not in self._chains:
            self._chains = self._tracer.chains()
        return self._chains.get(address, "")

    def renamed(self, address: int) -> None:
        """Forget the name of a chain, which has changed."""
        self._chains.pop(address, None)

    def device(self, netns: int, index: int) -> str:
        """Name of an interface met; ``#`` and its index if it is unknown."""
        if (netns, index) not in self._devices:
            self._devices[netns, index] = self._tracer.device(netns, index) or f"#{index}"
        return self._devices[netns, index]

    def stack(self, number: int) -> tuple[str, ...]:
        """The functions of a stack, innermost first."""
        raw = self._tracer.maps["stacks"].get(struct.pack("<I", number & 0xFFFFFFFF)) if number < 1 << 31 else None
        addresses = struct.unpack(f"<{len(raw) // 8}Q", raw) if raw else ()
        return tuple(self._tracer.symbol(address) for address in addresses[:DEPTH] if address)


def _batches(watch: TraceSession, over: Callable[[], bool], *, settle: bool) -> Generator[Events, None, None]:
    while not over():
        yield from _some(watch)
    # What the ring buffer holds after this is not lost: TraceSession.rest() returns it.
    last = time.monotonic()
    end = last + SETTLING_S if settle else last
    while time.monotonic() < min(end, last + SETTLED_S):
        for events in _some(watch):
            yield events
            last = time.monotonic()


def _some(watch: TraceSession) -> Generator[Events, None, None]:
    """The next events, if any; waits for :data:`TICK_S` after the last."""
    if events := watch.take(PART):
        yield events
    if len(events) < PART:
        select.select([], [], [], TICK_S)


def metadata(functions: Collection[Function]) -> Mapping[str, Any]:
    """The traced functions by number, for ``--dump-metadata``."""
    return {str(number): msgspec.to_builtins(function) for number, function in enumerate(functions)}
