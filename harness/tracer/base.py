"""What all ways to trace have in common: the loaded program, its maps, and recordings."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self, cast

from harness.linux import bpf
from harness.linux.bpf import U32, U64
from harness.netfilter import family_name
from harness.tracer import contract, events, program, symbols
from harness.tracer.contract import Counter, Lives, Scope
from harness.tracer.discover import KERNEL, Function
from harness.tracer.session import Counts, TraceSession
from harness.tracer.survey import Survey

NF_TABLES_BTF = Path("/sys/kernel/btf/nf_tables")
"""Exists when nf_tables is a loaded module; where it is built in, its types are in the kernel's own BTF."""


def constants_of(survey: Survey) -> dict[str, int]:
    """The constants of the program for the running kernel, see :func:`program.constants`."""
    home = NF_TABLES_BTF.name if NF_TABLES_BTF.exists() else KERNEL
    return program.constants(survey.layout(home))


class BaseTracer:
    """A program in the kernel, its maps and its ring buffer; subclasses attach it."""

    whole = True
    """Whether it sees every call of the functions that it traces."""
    known_by: tuple[str, ...] = ("senders", "namespaces", "packets", "calls")
    """Maps by which packets are known; emptied before each recording."""
    functions: list[Function]
    """By the number that events carry."""
    engine_name: str
    """How functions are traced, e.g. ``kprobe.multi``."""
    half_armed = False
    """Whether :meth:`arm` was left by an exception, so that functions may be called without an event."""

    def __init__(
        self, survey: Survey, loaded: program.LoadedProgram, undo: ExitStack, ring_bytes: int, shape: events.Shape
    ) -> None:
        """``shape`` is that of the records in the ring buffer of ``ring_bytes``; ``undo`` closes what this opens."""
        self.kernel = os.uname().release
        self.survey = survey
        self.loaded = loaded
        self.maps = loaded.maps
        self.ring = events.Ring(self.maps[program.RING].descriptor, ring_bytes, shape)
        undo.callback(self.ring.close)
        self._lives = undo.enter_context(self.maps["lives"].memory())
        self.functions = []
        self.untraceable: dict[str, str] = {}
        """Functions in the last call of :meth:`arm` that cannot be traced, and why."""
        self._undo = ExitStack()
        self._recordings = 0
        self._cleared = 0
        """Number of sk_buffs that :meth:`watch` has deleted from the map ``alive``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and free everything."""
        self.let_go()
        self._undo.close()

    def arm(self, named: Collection[str] = ()) -> None:
        """Trace all functions of the kernel and of the loaded modules; where only some can be, those ``named`` too.

        Raises :class:`~harness.errors.Unsupported` where the kernel refuses the program.
        """
        raise NotImplementedError

    def let_go(self) -> None:
        """Detach from what :meth:`arm` has attached to while modules were loaded that will be unloaded."""

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are traced."""
        raise NotImplementedError

    def to_events(self, records: list[events.Record]) -> list[events.Event]:
        """The events in the decoded records of the ring buffer, whose shape is that of this tracer."""
        return cast("list[events.Event]", records)

    def bare(self, records: list[events.Record]) -> list[events.Event]:
        """The events in the decoded records as they were recorded, without the stack that a record may have."""
        return cast("list[events.Event]", records)

    @contextmanager
    def watch(
        self, *, hosts: Iterable[int], senders: Iterable[int], listeners: Iterable[int] = ()
    ) -> Iterator[TraceSession]:
        """Record the packets of the namespaces ``hosts`` (inode numbers).

        ``senders`` are the cookies (SO_COOKIE) of the sockets that inject, ``listeners`` those of the sockets that
        receive nf_tables' trace.
        """
        keys = {"senders": map(U64.pack, senders), "namespaces": map(U32.pack, hosts)}
        if "listeners" in self.known_by:
            keys["listeners"] = map(U64.pack, listeners)
        try:
            yield self._start({name: tuple(packed) for name, packed in keys.items()})
        finally:
            self.stop()

    def _start(self, keys: Mapping[str, Collection[bytes]]) -> TraceSession:
        """Forget the packets of earlier recordings, and begin one with ``keys`` in the maps of these names."""
        self.stop()
        for name in (*self.known_by, "chains"):
            self.maps[name].clear()
        if left := self.alive():
            self.maps["alive"].clear()
            self._cleared += left
        self.ring.read()
        for name, packed in keys.items():
            for key in packed:
                self.maps[name][key] = U32.pack(1)
        self._prepare()
        session = TraceSession(self)
        self._record(Scope.LAB)
        return session

    def _prepare(self) -> None:
        """Get ready to count what is lost in the next recording."""

    def stop(self) -> None:
        """Stop recording. What is known of packets is forgotten when the next recording begins."""
        self._record(Scope.OFF)

    def _record(self, scope: Scope) -> None:
        self._recordings = self._recordings + 1 & 0xFFFF
        self.maps["recording"][U32.pack(0)] = U32.pack(scope | self._recordings << contract.RECORDING_NUMBER_SHIFT)

    def counts(self) -> Counts:
        """What was counted since the program was loaded."""
        entered, refused, untracked = (
            [count for (count,) in U64.iter_unpack(self.maps["counters"].get(U32.pack(which)) or b"")]
            for which in Counter
        )
        return Counts(entered, refused, untracked, self.missed())

    def alive(self) -> int:
        """Number of sk_buffs that are followed and that the kernel has not released, those in the map ``alive``.

        Read without bpf(2), since packets are under way; see :meth:`~harness.linux.bpf.Map.memory`.
        """
        # In this order: what ends between the two has been alive, and what begins is.
        ended, begun = (U64.unpack_from(self._lives, U64.size * which)[0] for which in (Lives.ENDED, Lives.BEGUN))
        return int(begun - ended) - self._cleared

    def missed(self) -> int:
        """Number of runs of the programs that the kernel skipped."""
        return sum(map(bpf.recursion_misses, self.loaded.programs.values()))

    def chains(self) -> dict[int, str]:
        """``family table chain`` of the chains met, by address."""
        names = {}
        for address, chain in self.maps["chains"].items():
            family, _, *texts = contract.CHAIN_LAYOUT.unpack(chain)
            table, name = (text.partition(b"\0")[0].decode() for text in texts)
            names[U64.unpack(address)[0]] = f"{family_name(family)} {table} {name}"
        return names

    @cached_property
    def drop_reasons(self) -> dict[int, str]:
        """``enum skb_drop_reason`` of the kernel, prefix left out."""
        reasons = self.survey.layout().enum("skb_drop_reason")
        return {number: name.removeprefix("SKB_DROP_REASON_") for number, name in reasons.items()}

    def symbol(self, address: int) -> str:
        """Name of the function that contains ``address``."""
        return symbols.running(address).name(address)

    def listing(self) -> str:
        """The programs' instructions, in hexadecimal, one a line: opcode, registers, offset, constant."""
        return "\n".join(
            f"{name}:\n"
            + "\n".join(
                f"{number:6} {opcode:02x} {registers:02x} {offset:6} {constant:#x}"
                for number, (opcode, registers, offset, constant) in enumerate(bpf.INSTRUCTION.iter_unpack(code))
            )
            for name, code in self.loaded.instructions().items()
        )
