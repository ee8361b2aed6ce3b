"""The tracer: armed once per process, recording while a scenario watches.

Arming attaches the programs to every function that can be traced; nothing is recorded until
:meth:`Tracer.watch` names the namespaces and sockets of a scenario. A ruleset may pull in modules,
so it is armed again, for what has come since, when a scenario's ruleset is loaded.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from harness.errors import Unsupported
from harness.linux import bpf, modules
from harness.model import layers
from harness.model.observation import Counted, Loss
from harness.netfilter import family_name
from harness.tracer import engines, events, program
from harness.tracer.discover import KERNEL, Function, Functions, Survey
from harness.tracer.kernel_cache import KernelCache

# enum trait, enum choice and enum count in bpf/trace.c
RETURNS, COPIES, LISTS, RELEASES, CHAIN, NOTIFIES, CAPTURES, QUIET = (1 << bit for bit in range(8))
EVALUATES, HOOKS, ROUTES, FREES = (1 << bit for bit in range(8, 12))
OFF, LAB, LISTED, ANYWHERE = range(4)
ENTERED, REFUSED, UNTRACKED = range(3)

NOTIFY = "nft_trace_notify"

TRAITS = {
    NOTIFY: NOTIFIES,
    "nft_do_chain": RETURNS | CHAIN,
    "nf_hook_slow": RETURNS,
    "ip_route_input_noref": RETURNS,
    "packet_rcv": CAPTURES,
    "tpacket_rcv": CAPTURES,
    "skb_clone": COPIES,
    "skb_copy": COPIES,
    "skb_copy_expand": COPIES,
    "__pskb_copy_fclone": COPIES,
    "skb_morph": COPIES,
    "ip_frag_next": COPIES,
    "ip6_frag_next": COPIES,
    "skb_segment": COPIES | LISTS,
    "skb_segment_list": COPIES | LISTS,
    "skb_release_head_state": RELEASES,
    "__kfree_skb": RELEASES,
    "kfree_skbmem": RELEASES,
    "skb_attempt_defer_free": RELEASES,  # another CPU frees it, when that receives something
}
"""Functions of which more is wanted than that the packet met them."""

LIVE_TRAITS = {
    **dict.fromkeys(("ip_route_input_noref", "ip6_route_input"), ROUTES),
    "nf_hook_slow": HOOKS,
    "kfree_skbmem": FREES,
    **dict.fromkeys(
        (
            *("ipv4_conntrack_defrag", "ipv6_defrag"),
            *("ipv4_conntrack_in", "ipv4_conntrack_local", "ipv6_conntrack_in", "ipv6_conntrack_local"),
            *("nf_confirm", "ipv4_confirm", "ipv6_confirm", "nf_ct_bridge_pre", "nf_ct_bridge_post"),
            *("nf_nat_ipv4_pre_routing", "nf_nat_ipv4_in", "nf_nat_ipv4_local_in", "nf_nat_ipv4_local_fn"),
            *("nf_nat_ipv4_out", "nf_nat_ipv6_in", "nf_nat_ipv6_local_in", "nf_nat_ipv6_local_fn", "nf_nat_ipv6_out"),
            *("ipt_do_table", "ip6t_do_table", "arpt_do_table", "ebt_do_table"),
            *("ipv4_synproxy_hook", "ipv6_synproxy_hook", "nf_flow_offload_ip_hook", "nf_flow_offload_ipv6_hook"),
            *("br_nf_pre_routing", "br_nf_forward_ip", "br_nf_forward", "br_nf_post_routing", "br_nf_local_in"),
            *("selinux_ip_forward", "selinux_ip_postroute", "selinux_ip_output"),
        ),
        HOOKS | RETURNS,
    ),
}
"""What more is wanted of functions in a live trace; the many are hooks of netfilter that are not nf_tables'."""

SOURCES = {"skb_morph": 1}
"""Where the packet is copied from, when that is not the first ``struct sk_buff *``."""

ALLOCATORS = ("__alloc_skb", "__build_skb", "build_skb", "slab_build_skb", "napi_build_skb")
"""Functions that give out an address as a new sk_buff; only the first is there on every kernel."""

NF_TABLES_BTF = Path("/sys/kernel/btf/nf_tables")
"""There when nf_tables is loaded as a module; part of a kernel, its types are the kernel's."""

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
PACKET = struct.Struct("<QIIIIIIQ")
CHAIN_NAMES = struct.Struct("<II256s256s")
"""``struct packet`` and ``struct chain`` in bpf/trace.c."""
RELEASED = 4
"""Number of that member of ``struct packet``."""

WAITING_BYTES = 256 << 20
"""Of events read and not yet taken."""


class Counts(NamedTuple):
    """What a program has counted, by CPU, and how often the kernel has skipped it."""

    entered: list[int]
    refused: list[int]
    untracked: list[int]
    missed: int

    def since(self, before: Counts, *, received: int) -> Loss:
        """What was lost since ``before``, ``received`` being the events that have arrived."""
        rows = zip(*self[:3], *before[:3], strict=True)
        cpus = {
            cpu: Counted(entered=row[0] - row[3], refused=row[1] - row[4], untracked=row[2] - row[5])
            for cpu, row in enumerate(rows)
            if row[:3] != row[3:]
        }
        return Loss(
            entered=sum(cpu.entered for cpu in cpus.values()),
            received=received,
            refused=sum(cpu.refused for cpu in cpus.values()),
            untracked=sum(cpu.untracked for cpu in cpus.values()),
            missed=self.missed - before.missed,
            cpus=cpus,
        )


class TraceData(msgspec.Struct, frozen=True, kw_only=True):
    """What the tracer recorded of one scenario, before anything is made of it."""

    events: list[events.Event]
    functions: tuple[Function, ...]
    """By the number that events carry."""
    chains: Mapping[int, str]
    """``family table chain`` by address, of the chains met."""
    symbol: Callable[[int], str]
    """Name of the function that a code address lies in, as in ``DROP`` events; asking may take a second."""
    loss: Loss
    whole: bool = True
    """Whether every call of ``functions`` is in ``events``, or only those that were found out about."""


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace of whatever passes wants of the program, beyond what one of a lab does."""

    expression: str = ""
    """Of pcap-filter(7); every packet when empty."""
    stacks: bool = False
    """Whether each event is followed by its stack."""
    bytes: bool = False
    """Whether events have bytes of their packet: they are :class:`events.EventWithBytes` then."""

    @property
    def constants(self) -> dict[str, int]:
        """The constants of bpf/trace.c that make a program for this; what else there is is put in later."""
        return {"LIVE": 1, **({"SNAP": events.SNAP} if self.bytes else {})}

    def put_in(self, source: program.Object) -> program.Object:
        """The compiled program with the expression, and with room for stacks only if they are wanted."""
        filtered = program.with_filter(source, self.expression)
        maps = (
            msgspec.structs.replace(spec, max_entries=1) if spec.name == "stacks" and not self.stacks else spec
            for spec in filtered.maps
        )
        return msgspec.structs.replace(filtered, maps=tuple(maps))


class TraceSession:
    """One scenario being recorded; made by :meth:`BaseTracer.watch`."""

    def __init__(self, tracer: BaseTracer) -> None:
        self._tracer = tracer
        self._batches: deque[bytes | memoryview] = deque()
        self._waiting = 0
        self._taken = 0
        self._before = tracer.counts()

    def drain(self) -> None:
        """Take what the ring buffer holds."""
        self._batches.append(batch := self._tracer.ring.read())
        self._waiting += len(batch)

    def alive(self) -> int:
        """Number of sk_buffs of this scenario that the kernel has not released yet."""
        self.drain()
        return sum(not PACKET.unpack(packet)[RELEASED] for _, packet in self._tracer.maps["packets"].items())

    def take(self, most: int) -> Sequence[events.Event | events.EventWithBytes]:
        """The next events, ``most`` of them or all, oldest first; for who does not want to wait for the end.

        Decoding takes longer than the kernel takes to fill the buffer: so few at a time, and the buffer is
        emptied before each; unless so much is waiting already that memory would not hold it. Then the
        kernel counts what it can't put there.
        """
        if self._waiting < WAITING_BYTES:
            self.drain()
        size = most * self._tracer.ring.record
        while self._batches and not self._batches[0]:
            self._batches.popleft()
        if not self._batches:
            return []
        batch = memoryview(self._batches.popleft())
        self._batches.appendleft(batch[size:])
        taken = self._tracer.ring.decode(batch[:size])
        self._waiting -= len(batch[:size])
        self._taken += len(taken)
        return taken

    def finish(self) -> TraceData:
        """Stop recording and give what was recorded and not taken."""
        seen, loss = self.rest()
        return TraceData(
            events=self._tracer.tell(seen),
            functions=tuple(self._tracer.functions),
            chains=self._tracer.chains(),
            symbol=self._tracer.symbol,
            loss=loss,
            whole=self._tracer.whole,
        )

    def rest(self) -> tuple[list[Any], Loss]:
        """:meth:`finish` for who has taken the other events, and wants to know what was lost."""
        self._tracer.silence()
        while True:
            # A program may still have been running on another CPU.
            after = self._tracer.counts()
            self.drain()
            if self._tracer.counts() == after:
                break
        seen = self._tracer.ring.decode(b"".join(self._batches))
        return seen, after.since(self._before, received=self._taken + len(seen))


class BaseTracer:
    """A program in the kernel and what it tells of packets: all that one way to trace has in common with another."""

    whole = True
    """Whether it sees every call of the functions that it traces."""
    known_by: tuple[str, ...] = ("senders", "hosts", "packets", "calls")
    """Maps by which packets are known."""
    functions: list[Function]
    """By the number that events carry."""
    engine_name: str
    """How functions are traced, e.g. ``kprobe.multi``."""

    def __init__(
        self, survey: Survey, loaded: program.LoadedProgram, undo: ExitStack, ring_bytes: int, shape: events.Shape
    ) -> None:
        """``shape`` is what its ring buffer, of ``ring_bytes``, holds; what must be undone goes to ``undo``."""
        self.kernel = os.uname().release
        self.survey = survey
        self.loaded = loaded
        self.maps = loaded.maps
        self.ring = events.Ring(self.maps[program.RING].descriptor, ring_bytes, shape)
        undo.callback(self.ring.close)
        self.functions = []
        self.untraceable: dict[str, str] = {}
        """Functions last named to :meth:`arm` that are not armed, and why."""
        self._undo = ExitStack()
        self._recordings = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and free everything."""
        self._undo.close()

    def arm(self, named: Collection[str] = ()) -> None:
        """Trace all functions of the kernel and of the modules loaded by now, or at least those ``named``."""
        raise NotImplementedError

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are traced."""
        raise NotImplementedError

    def tell(self, seen: list[Any]) -> list[events.Event]:
        """The events in what the ring buffer held."""
        return seen

    @contextmanager
    def watch(self, *, hosts: Iterable[int], senders: Iterable[int]) -> Iterator[TraceSession]:
        """Record the packets of the namespaces ``hosts`` (inode numbers).

        ``senders`` are the cookies (SO_COOKIE) of the sockets that inject.
        """
        self.silence()
        self.maps["chains"].clear()
        self.ring.read()
        watch = TraceSession(self)
        try:
            for cookie in senders:
                self.maps["senders"][U64.pack(cookie)] = U32.pack(1)
            for inum in hosts:
                self.maps["hosts"][U32.pack(inum)] = U32.pack(1)
            self._record(LAB)
            yield watch
        finally:
            self.silence()

    def silence(self) -> None:
        """Know no packet any more, and none as new."""
        self._record(OFF)
        for name in self.known_by:
            self.maps[name].clear()

    def _record(self, choice: int) -> None:
        self._recordings = self._recordings + 1 & 0xFFFF
        self.maps["recording"][U32.pack(0)] = U32.pack(choice | self._recordings << 8)

    def counts(self) -> Counts:
        """What was counted since arming."""
        entered, refused, untracked = (
            [count for (count,) in U64.iter_unpack(self.maps["counts"].get(U32.pack(which)) or b"")]
            for which in (ENTERED, REFUSED, UNTRACKED)
        )
        return Counts(entered, refused, untracked, self.missed())

    def missed(self) -> int:
        """Runs of the programs that the kernel skipped."""
        return sum(map(bpf.recursion_misses, self.loaded.programs.values()))

    def chains(self) -> dict[int, str]:
        """Names of the chains met, by address."""
        names = {}
        for address, chain in self.maps["chains"].items():
            family, _, *texts = CHAIN_NAMES.unpack(chain)
            table, name = (text.partition(b"\0")[0].decode() for text in texts)
            names[U64.unpack(address)[0]] = f"{family_name(family)} {table} {name}"
        return names

    @cached_property
    def drop_reasons(self) -> dict[int, str]:
        """The kernel's own reasons to drop a packet: ``enum skb_drop_reason``, prefix left out."""
        reasons = self.survey.layout().enum("skb_drop_reason")
        return {number: name.removeprefix("SKB_DROP_REASON_") for number, name in reasons.items()}

    def symbol(self, address: int) -> str:
        """Name of the function that ``address`` lies in."""
        return self.symbols.name(address)

    @cached_property
    def symbols(self) -> Symbols:
        """The functions of the kernel by address."""
        return Symbols(Path("/proc/kallsyms").read_text())

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
        """``engine`` is one of :data:`engines.NAMES`; what is made with ``live`` is for :meth:`live` alone."""
        modules.load()  # before nf_tables' layout is asked for
        self.refused: dict[str, str] = {}
        """Functions that the kernel would not let us trace, and why."""
        self._live = live
        with ExitStack() as undo:
            loaded, self.engine = undo.enter_context(_started(engine, kept, ring_bytes, live))
            shape = events.Shape.SNAPPED if live and live.bytes else events.Shape.EVENTS
            super().__init__(kept.survey, loaded, undo, ring_bytes, shape)
            self.engine_name = self.engine.name
            if live and live.stacks:
                self.maps["with_stacks"][U32.pack(0)] = U32.pack(1)
            drops = loaded.program("dropped", bpf.PROG_TYPE_RAW_TRACEPOINT)
            undo.callback(os.close, bpf.open_raw_tracepoint(drops, "kfree_skb"))
            self._undo = undo.pop_all()

    def arm(self, named: Collection[str] = ()) -> None:
        """Arm every traceable function of the kernel and of the modules loaded by now.

        An engine that cannot carry all of them gets the critical ones, and those ``named``.
        """
        armed = {function.kernel_name for function in self.functions}
        functions = self.survey.functions()
        self._arm(
            [
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
        )
        lacking = set(named) - self.traced
        refused = {f.name: self.refused[f.kernel_name] for f in self.functions if f.kernel_name in self.refused}
        self.untraceable = {
            name: f"it refuses a probe there ({refused[name]})" if name in refused else functions.why_not(name)
            for name in sorted(lacking)
        }

    def known(self) -> Functions:
        """The functions of the kernel and of the modules loaded by now."""
        return self.survey.functions()

    def arm_only(self, functions: Collection[Function]) -> None:
        """Arm ``functions`` and, without events, those that are needed to understand what they tell.

        That is: through copies and to their end packets are known by some functions, and the rules
        of a chain by the expressions in them.
        """
        chosen = {function.kernel_name for function in functions}
        rules = self._live and any(map(_is_of_nf_tables, functions))
        self._arm(functions)
        self._arm(
            [
                function
                for function in self.survey.functions()
                if function.kernel_name not in chosen
                and (self._trait(function) & (COPIES | FREES) or (rules and _is_of_nf_tables(function)))
            ],
            QUIET,
        )

    def _arm(self, functions: Collection[Function], quiet: int = 0) -> None:
        first = len(self.functions)
        self.functions += functions
        entries: dict[str, dict[engines.Symbol, int]] = {}
        """Cookies of the functions by the program that is called on their entry."""
        returns: dict[str, dict[engines.Symbol, int]] = {}
        for number, function in enumerate(functions, first):
            position = SOURCES.get(function.name, function.position)
            pktinfo = function.carries != "sk_buff"
            trait = self._trait(function) | quiet
            plain = not trait and not pktinfo and position == 0
            cookies = entries.setdefault("met" if plain else "entered", {})
            symbol = engines.Symbol(function.kernel_name, function.module)
            cookies[symbol] = program.cookie(number, position, pktinfo=pktinfo)
            if trait:
                self.maps["traits"][U32.pack(number)] = U32.pack(trait)
            if trait & (RETURNS | COPIES | EVALUATES | ROUTES):
                name = "evaluated" if trait & EVALUATES else "listed" if trait & LISTS else "returned"
                returns.setdefault(name, {})[symbol] = number
        # Returns first: a call whose return is not seen would be taken for one still under way.
        for name, numbers in returns.items():
            self.refused |= self.engine.attach(name, numbers, returns=True)
        for name, cookies in entries.items():
            self.refused |= self.engine.attach(name, cookies)

    def _trait(self, function: Function) -> int:
        trait = TRAITS.get(function.name, 0)
        if self._live:
            trait |= LIVE_TRAITS.get(function.name, 0) | (EVALUATES if _evaluates(function) else 0)
        return trait

    def __str__(self) -> str:
        """How functions are traced, e.g. ``1654 functions by kprobe.multi``, ``231 of 1571 functions by kprobe``."""
        known = len(self.survey.functions().names)
        some = f"{len(self.traced)} of {known}" if len(self.traced) < known else f"{known}"
        return f"{some} functions by {self.engine.name}"

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are armed."""
        return frozenset(f.name for f in self.functions if f.kernel_name not in self.refused)

    def missed(self) -> int:
        """See :class:`BaseTracer`."""
        return super().missed() + self.engine.missed()

    @contextmanager
    def live(self, hosts: Collection[int] | None) -> Iterator[TraceSession]:
        """Record whatever packet is wanted, with its addresses, in the namespaces ``hosts`` or, if None, in all."""
        with self.watch(hosts=hosts or (), senders=()) as watch:
            self._record(ANYWHERE if hosts is None else LISTED)
            yield watch

    def admit(self, host: int) -> None:
        """From now on record in the namespace ``host`` as well."""
        self.maps["hosts"][U32.pack(host)] = U32.pack(1)

    def device(self, netns: int, index: int) -> str:
        """Name of an interface that a packet of a live trace was at; "" for others."""
        name = self.maps["devices"].get(U64.pack(netns << 32 | index)) or b""
        return name.partition(b"\0")[0].decode(errors="replace")


def _evaluates(function: Function) -> bool:
    """Whether it runs an expression of a rule: ``void eval(expr, regs, pkt)`` of ``struct nft_expr_ops``."""
    return (function.carries, function.position) == ("nft_pktinfo", 2) and function.name.endswith(
        ("_eval", "_eval_xt", "_eval_bridge")
    )


def _is_of_nf_tables(function: Function) -> bool:
    return _evaluates(function) or bool(TRAITS.get(function.name, 0) & CHAIN)


def constants_of(survey: Survey) -> dict[str, int]:
    """What bpf/trace.c must know of this kernel's structs, nf_tables' own included."""
    home = NF_TABLES_BTF.name if NF_TABLES_BTF.exists() else KERNEL
    return program.constants(survey.layout(home))


@contextmanager
def _started(
    name: str, kept: KernelCache, ring_bytes: int, live: LiveOptions | None
) -> Iterator[tuple[program.LoadedProgram, engines.Engine]]:
    """The program loaded, and the first of the engines called ``name`` that this kernel lets watch where packets begin.

    To try it there tells more than a trial elsewhere, and costs nothing.
    """
    constants = {**constants_of(kept.survey), **(live.constants if live else {})}
    whys = {}
    for make in engines.candidates(name):
        with ExitStack() as undo:
            try:
                source = kept.object({**constants, **make.constants})
                if live:
                    source = live.put_in(source)
                loaded = undo.enter_context(program.LoadedProgram(source, ring_bytes=ring_bytes))
                engine = make(loaded, kept.survey)
                undo.callback(engine.close)
                refused = engine.attach("allocated", {engines.Symbol(name): 0 for name in ALLOCATORS}, returns=True)
            except OSError as error:
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


class Symbols:
    """The functions of ``/proc/kallsyms`` by address."""

    def __init__(self, text: str) -> None:
        functions = sorted(
            (int(line[:16], 16), line[19:].partition("\t")[0]) for line in text.splitlines() if line[17] in "tTwW"
        )
        self._addresses = [address for address, _ in functions]
        self._names = [name for _, name in functions]

    def range(self, name: str) -> tuple[int, int]:
        """Where a function begins, and where the next one does; zeros when there is none."""
        try:
            index = self._names.index(name)
        except ValueError:
            return 0, 0
        return self._addresses[index], self._addresses[index + 1]

    def name(self, address: int) -> str:
        """The function that ``address`` lies in; "" below all of them."""
        index = bisect_right(self._addresses, address) - 1
        return self._names[index] if index >= 0 else ""
