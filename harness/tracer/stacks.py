"""The engine for a kernel without probes on functions: tracepoints, and the stack at each.

A dozen tracepoints have a packet as argument. The functions on the stack there have been entered, and those that take
a packet were called with this one, unless a function between them may have switched to another. A function that was
never on such a stack may have been called all the same: a recording of this engine is not whole. It proves that a
function was met, but never that it was not.

For each evaluation nf_tables queues a message of its trace to a socket of the lab, which is a tracepoint as well. That
ties evaluations to packets, and gives a stack in every hook in use. A kernel before that tracepoint (Linux commit
40e0b0908142 ("net/sock: Introduce trace_sk_data_ready()") (in v6.3)) shows the allocation of the message instead, which
others on the machine have too: whose it is must be guessed there from what else was seen on the CPU.
"""

from __future__ import annotations

import mmap
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import dropwhile, takewhile
from typing import Final, NamedTuple, cast

from harness.errors import Unsupported
from harness.linux import bpf, modules
from harness.linux.bpf import U32, U64
from harness.tracer import engines, events, program, symbols
from harness.tracer.base import BaseTracer, constants_of
from harness.tracer.contract import TAKEOVERS
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind, Record, StackEvent
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.session import TraceSession
from harness.tracer.traits import NOTIFY

PASSED_ON: Final = ("net_dev_queue", "net_dev_start_xmit", "netif_rx", "icmp_send")
"""Tracepoints with a packet as first argument and no special meaning; older kernels lack some."""
ENDS: Final = ("sk_data_ready", "kmem_cache_free")
"""Tracepoints that only mark the end of a packet; older kernels lack the first."""
SPECIAL: Final = (
    *("netif_receive_skb", "skb_copy_datagram_iovec", "consume_skb", "kfree_skb"),
    *("kmem_cache_alloc", "kmalloc"),
)
"""Tracepoints with a program of their own."""
BEFORE: Final = "_before"
AFTER: Final = "_after"
"""How the names of the programs end by which runs that were skipped are known and made up for (bpf/tracepoints.c)."""
MESSAGES: Final = "sk_data_ready"
"""Where a message of nf_tables' trace reaches its socket; older kernels lack it."""
NEAR: Final = 6
"""Innermost addresses of a stack among which nft_trace_notify() is searched for."""

MULTICAST: Final = frozenset(
    {"__netlink_sendskb", "do_one_broadcast", "netlink_broadcast", "netlink_broadcast_filtered"}
    | {"nlmsg_notify", "nlmsg_multicast", "nfnetlink_send"}
)
"""By these a message of nf_tables' trace reaches its socket (net/netlink/af_netlink.c)."""
SOFTIRQ: Final = frozenset({"handle_softirqs", "__do_softirq", "do_softirq", "__irq_exit_rcu"})
"""Callers of these were interrupted, and have nothing to do with what these call."""
RECEPTION: Final = frozenset({"process_backlog", "__napi_poll", "napi_poll", "net_rx_action"})
"""These pass on one packet at a time, through the tracepoint netif_receive_skb."""
SYSTEM_CALL: Final = frozenset({"do_syscall_64", "invoke_syscall", "el0_svc"})
"""Outermost of what a process calls the kernel for (arch/x86/entry, arch/arm64/kernel/syscall.c)."""
CORE: Final = "__netif_receive_skb_core"
"""The function with that tracepoint."""
TRANSMISSION: Final = "dev_hard_start_xmit"
"""The function with the tracepoint net_dev_start_xmit. The device that it calls may pass the packet on to another one:
a bridge's to a port, a VLAN's or a tunnel's to the interface below."""
ANSWERS: Final = frozenset(
    {"nf_send_reset", "nf_send_reset6", "nf_send_unreach", "nf_send_unreach6", "icmp_send", "__icmp_send", "icmp6_send"}
    | {"nft_reject_netdev_eval", "nft_reject_bridge_eval", "tcp_v4_send_reset", "tcp_v6_send_response"}
    | {"icmp_echo", "icmp_reply", "icmp_timestamp", "icmpv6_echo_reply", "tcp_v4_send_ack"}
    | {"tcp_v4_send_synack", "tcp_v6_send_synack", "synproxy_send_tcp", "synproxy_send_tcp_ipv6"}
    # arp_send_dst() may jump to arp_xmit(), and is not there then. Of two callers, arp_process() answers, and
    # arp_solicit() has the packet that waits for the address.
    | {"arp_send_dst", "arp_xmit"}
)
"""Within these the packet is an answer to the one that they were called with."""
COPIES: Final = frozenset(
    {"ip_do_fragment", "ip_fragment", "ip6_fragment", "nf_dup_ipv4", "nf_dup_ipv6", "nf_dup_netdev_egress"}
    | {"skb_copy", "skb_copy_expand", "__pskb_copy_fclone", "skb_segment", "ip_mr_forward", "br_flood", "deliver_clone"}
)
"""A packet first seen within these is a fragment or copy of the one that they were called with."""


class Stacks(BaseTracer):
    """A tracer by tracepoints, with the interface of :class:`~harness.tracer.tracer.Tracer`."""

    whole = False
    known_by = (*BaseTracer.known_by, "heads", "listeners")
    engine_name = engines.TRACEPOINTS
    _surveyed: tuple[Function, ...] = ()
    _traced: frozenset[str] = frozenset()

    def __init__(self, kept: KernelCache, *, ring_bytes: int = program.RING_BYTES) -> None:
        """Raises :class:`Unsupported` when the kernel refuses to attach to tracepoints."""
        modules.load()
        constants = {
            **constants_of(kept.survey),
            "TRACEPOINTS": 1,
            "NEAR_FRAMES": NEAR,
            "CACHE_NAME": kept.survey.layout().offset("kmem_cache", "name"),
            "SOCK_QUEUE_TAIL": kept.survey.layout().offset("sock", "sk_receive_queue.prev"),
        }
        with ExitStack() as undo:
            try:
                loaded = undo.enter_context(program.LoadedProgram(kept.object(constants), ring_bytes=ring_bytes))
                super().__init__(kept.survey, loaded, undo, ring_bytes, events.Shape.VISITS)
                attached = [self._attach(undo, "on_tracepoint", name) for name in PASSED_ON]
                attached += [self._attach(undo, name, name) for name in (*ENDS, *SPECIAL)]
                self._takeovers = _Takeovers(undo.enter_context(loaded.maps["takeovers"].memory()))
                self.knows_listeners = self._attach(undo, "on_message", MESSAGES)
                """Whether an evaluation is identified by the socket that receives its trace message, or guessed."""
                if not self.knows_listeners:
                    self._attach(undo, "on_allocated_message", "kmem_cache_alloc")
                self._count = sum(attached)
            except PermissionError as error:
                raise Unsupported(
                    f"tracepoints of kernel {os.uname().release} can't be attached to ({error.strerror})",
                    remedy="run as root",
                ) from None
            self._undo = undo.pop_all()
        for number, address in enumerate(symbols.running().range(NOTIFY)):
            self.maps["notify_range"][U32.pack(number)] = U64.pack(address)

    def _attach(self, undo: ExitStack, name: str, tracepoint: str) -> bool:
        """Attach a program to a tracepoint, and those that make up for it; returns whether the kernel has it.

        They are called in the order in which they are attached (func_add() in kernel/tracepoint.c).
        """
        for one in (name,) if name in ENDS else (name + BEFORE, name, name + AFTER):
            descriptor = self.loaded.program(one, bpf.PROG_TYPE_RAW_TRACEPOINT)
            try:
                undo.callback(os.close, bpf.open_raw_tracepoint(descriptor, tracepoint))
            except FileNotFoundError:
                return False
        return True

    def _start(self, keys: Mapping[str, Collection[bytes]]) -> TraceSession:
        """See :class:`BaseTracer`. It is begun anew where a run announced before it was skipped and taken over while it
        began: that would be a skip of this recording, and taken over in none.
        """
        while True:
            session = super()._start(keys)
            if not self._takeovers.strayed():
                return session

    def _prepare(self) -> None:
        self._takeovers.begin(self._recordings + 1)

    def missed(self) -> int:
        """Number of runs of the programs that the kernel skipped and no other took over, except those of :data:`ENDS`.

        A raw tracepoint's program is skipped while the same program runs on that CPU (__bpf_trace_run in
        kernel/trace/bpf_trace.c), that is in an interrupt during it. The one after it takes over where it can
        (bpf/tracepoints.c). Skipping the end of a packet loses nothing of what is recorded of it: it is only waited
        for longer, and its address is forgotten when it is allocated again.
        """
        while True:
            # In this order: the kernel counts a run as skipped before it is taken over.
            taken_over = self._takeovers.count()
            skipped = self.skipped()
            if self._takeovers.count() == taken_over:
                return skipped - taken_over

    def skipped(self) -> int:
        """Number of runs of the programs that the kernel skipped, taken over or not, except those of :data:`ENDS`."""
        return sum(
            bpf.recursion_misses(descriptor)
            for name, descriptor in self.loaded.programs.items()
            if name not in ENDS and not name.endswith((BEFORE, AFTER))
        )

    def arm(self, named: Collection[str] = ()) -> None:
        """Load the names of the functions of the kernel and of the loaded modules."""
        functions = self.survey.takes_packet()
        if functions is not self._surveyed:
            self._surveyed = functions
            self.functions = list(functions)
            self._traced = frozenset(function.name for function in functions)

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are recognised on a stack."""
        return self._traced

    def __str__(self) -> str:
        return f"functions on the stacks at {self._count} tracepoints"

    def to_events(self, records: list[Record]) -> list[Event]:
        """See :class:`BaseTracer`."""
        return _StackHistory(self.functions, self.symbol).to_events(cast("list[StackEvent]", records))

    def bare(self, records: list[Record]) -> list[Event]:
        """See :class:`BaseTracer`."""
        return [visit.event for visit in cast("list[StackEvent]", records)]


class _Takeovers:
    """Runs that were skipped and taken over, each counted for the recording in which it was announced."""

    def __init__(self, memory: mmap.mmap) -> None:
        """``memory`` is that of the map ``takeovers``, a count for each recording."""
        self._memory = memory
        self._earlier = 0
        """What was counted for earlier recordings, until :meth:`begin`."""
        self._own: tuple[int, ...] = ()
        self._previous: tuple[int, ...] = ()
        """Numbers for which the runs of this recording are counted, and the two before them."""
        self._own_before = self._previous_before = 0

    def begin(self, number: int) -> None:
        """Count for the recording ``number``, which is to begin, and for the time after it, which has the next one.

        What is taken over for an earlier one from here on is not counted: its skip came before this recording.
        """
        self._earlier = self.count()
        self._own, self._previous = (number, number + 1), (number - 2, number - 1)
        self._own_before, self._previous_before = self._of(self._own), self._of(self._previous)

    def count(self) -> int:
        """How many runs were taken over, those for earlier recordings included as far as they were counted."""
        return self._earlier + self._of(self._own) - self._own_before

    def strayed(self) -> bool:
        """Whether a run that was announced before the recording was taken over since :meth:`begin`."""
        return self._of(self._previous) != self._previous_before

    def _of(self, numbers: Iterable[int]) -> int:
        return sum(int(U64.unpack_from(self._memory, number % TAKEOVERS * U64.size)[0]) for number in numbers)


class _Chain(NamedTuple):
    """The functions on a stack that were called with one packet, innermost first."""

    names: tuple[str, ...]
    border: str
    """The function that called the outermost of them."""
    beneath_reception: bool
    """Whether further out a packet was received, of which this one may be an answer."""
    in_system_call: bool
    """Whether the process that runs has called the kernel for this."""

    @property
    def received(self) -> bool:
        """Whether it starts where packets are received."""
        return self.border in RECEPTION


class _StackHistory:
    """Converts events with stacks to those that probes on functions would have recorded."""

    def __init__(self, functions: Sequence[Function], symbol: Callable[[int], str]) -> None:
        self._symbol = symbol
        self._numbers = {function.name: number for number, function in enumerate(functions)}
        self._events: list[Event] = []
        self._births: dict[int, int] = {}
        """Index of a packet's birth in the events."""
        self._born: set[int] = set()
        """Packets of which only the birth was seen so far."""
        self._same: dict[int, int] = {}
        """Packets that are copies or fragments of others, and of which."""
        self._received: dict[int, int] = {}
        """Packet received last, by CPU."""
        self._entered: dict[int, tuple[str, ...]] = {}
        """Functions that a packet was in when last seen, outermost first."""
        self._places: dict[int, tuple[int, int]] = {}
        """Namespace and interface of a packet when last seen."""
        self._transmitted: dict[tuple[int, tuple[str, ...]], int] = {}
        """Packet that a device was given last, by CPU and the functions from there on."""
        self._waiting: dict[int, list[StackEvent]] = defaultdict(list)
        """Evaluations, by CPU, of a packet that is not known yet, because it is still being built."""

    def to_events(self, records: Iterable[StackEvent]) -> list[Event]:
        for visit in records:
            event = visit.event
            if event.kind == EventKind.BIRTH:
                self._births[event.packet] = len(self._events)
                self._born.add(event.packet)
                self._events.append(event)
            elif event.kind == EventKind.RULE:
                self._evaluation(visit)
            else:
                self._visit(visit)
        if any(self._waiting.values()):
            raise Unsupported(
                "the stacks do not show which packet an evaluation was about", remedy="run with --nft-tracer auto"
            )
        return sorted(self._events, key=lambda event: event.time)

    def _visit(self, visit: StackEvent) -> None:
        event, chain = visit.event, self._chain(visit)
        if event.packet in self._born:
            self._begin(event, chain)
        packet = self._same.get(event.packet, event.packet)
        if event.kind == EventKind.RECEIVED:
            self._received[event.cpu] = packet
        certain = self._received.get(event.cpu) == packet if chain.received else self._made_by_us(packet)
        names = chain.names if certain and not ANSWERS.intersection(chain.names) else chain.names[:1]
        if TRANSMISSION in chain.names[:2]:  # behind xmit_one(), where that is not inlined
            self._transmitted[event.cpu, _within_device(chain.names)[1]] = packet
        self._hops(event, packet, names, fresh=event.kind == EventKind.RECEIVED and chain.names.count(CORE) == 1)
        self._places[packet] = (event.netns, event.ifindex)
        if event.kind in (EventKind.RECEIVED, EventKind.DROP):
            self._events.append(event._replace(packet=packet))

    def _begin(self, event: Event, chain: _Chain) -> None:
        """A packet is seen for the first time: it is new, or made from another."""
        self._born.discard(event.packet)
        at = self._births[event.packet]
        waiting = self._waiting.pop(event.cpu, [])
        if not self._events[at].a and COPIES.intersection(chain.names):
            if not chain.received or event.cpu not in self._received:
                raise Unsupported(
                    "the stacks do not show what a packet is a copy of", remedy="run with --nft-tracer auto"
                )
            self._same[event.packet] = self._received[event.cpu]
            self._events[at] = self._events[at]._replace(kind=EventKind.COPY, packet=self._received[event.cpu])
        elif waiting:
            # It was born where it was first seen, by nf_tables.
            self._events[at] = self._events[at]._replace(time=waiting[0].event.time)
        for visit in waiting:
            self._events.append(
                visit.event._replace(packet=self._same.get(event.packet, event.packet), netns=event.netns)
            )

    def _evaluation(self, visit: StackEvent) -> None:
        event, chain = visit.event._replace(a=0, b=0), self._chain(visit)
        received, own = visit.event.a, visit.event.b
        if chain.beneath_reception:  # by a softirq, which runs on top of any process
            ours = received
        elif chain.in_system_call:
            ours = own
        else:  # by a timer or a thread of the kernel
            ours = received or own
        if not ours:
            return  # of a packet outside the lab: others on this machine may trace rulesets as well
        packet, names = self._received.get(event.cpu), chain.names
        if packet is None or not chain.received or ANSWERS.intersection(names):
            inner, outer = _within_device(names)
            packet = None if ANSWERS.intersection(inner) else self._transmitted.get((event.cpu, outer))
            if packet is None:
                self._waiting[event.cpu].append(visit._replace(event=event))
                return
            if ANSWERS.intersection(outer) or not self._made_by_us(packet):
                names = names[:1]
        netns, _ = self._places[packet]
        self._hops(event._replace(netns=netns), packet, names)
        self._events.append(event._replace(packet=packet, netns=netns))

    def _made_by_us(self, packet: int) -> bool:
        return bool(self._events[self._births[packet]].a)

    def _chain(self, visit: StackEvent) -> _Chain:
        # A return address follows the call, which may be the last instruction of its function.
        names = [self._symbol(address - 1).partition(".")[0] for address in visit.stack]
        names = list(takewhile(lambda name: name not in SOFTIRQ, names))
        if visit.event.kind == EventKind.RULE:
            # The message has an sk_buff of its own; nft_trace_notify() may jump to what sends it, and not be there.
            sending = next((place for place, name in enumerate(names) if name in MULTICAST), 0)
            names = list(dropwhile(MULTICAST.__contains__, names[sending:]))
        # Innermost may be the allocator, or the tracer itself.
        first = next((place for place, name in enumerate(names) if name in self._numbers), len(names))
        chain = tuple(takewhile(self._numbers.__contains__, names[first:]))
        rest = names[first + len(chain) :]
        border = rest[0] if rest else ""
        return _Chain(chain, border, bool(RECEPTION.intersection(rest)), bool(SYSTEM_CALL.intersection(rest)))

    def _hops(self, event: Event, packet: int, names: tuple[str, ...], *, fresh: bool = False) -> None:
        """Add a hop for each function that the packet has entered since it was last seen."""
        inward = names[::-1]
        before = () if fresh else self._entered.get(packet, ())
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, inward, strict=False)))
        self._entered[packet] = inward
        netns, ifindex = self._places.get(packet, (event.netns, event.ifindex))
        new = inward[kept:]
        if netns != event.netns and not fresh:
            new = new[-1:]  # the others may have been entered before it changed namespaces
        for number, name in enumerate(new, 1):
            # The device may have been another one as well.
            here = fresh or number == len(new) or ifindex == event.ifindex
            self._events.append(
                event._replace(
                    kind=EventKind.HOP,
                    packet=packet,
                    function=self._numbers[name],
                    ifindex=event.ifindex if here else 0,
                    a=0,
                    b=0,
                )
            )


def _within_device(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The functions on a stack within the innermost :data:`TRANSMISSION`; and that and those around it, () if none."""
    at = names.index(TRANSMISSION) if TRANSMISSION in names else len(names)
    return names[:at], names[at:]
