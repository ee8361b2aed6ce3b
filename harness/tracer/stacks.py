"""The engine for a kernel without probes on functions: tracepoints, and the stack at each.

Tracepoints are handed a packet in a dozen places. The functions on the stack there have been entered,
and those handed a packet were handed this one, as long as nothing between them may have turned to another.
What never stood on such a stack may have been met all the same: so a recording of this engine is not
whole, and proves that a function was met but never that it was not.

nf_tables allocates a message for each evaluation that it tells of in its trace, which is a tracepoint of
the allocator; so evaluations are tied to packets, and stacks are seen in every hook in use.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from itertools import takewhile
from typing import Any, Final, NamedTuple

from harness.errors import Unsupported
from harness.linux import bpf, modules
from harness.tracer import engines, events, program
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind, StackEvent
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import NOTIFY, U32, U64, BaseTracer, constants_of

HANDED: Final = ("net_dev_queue", "net_dev_start_xmit", "netif_rx", "skb_copy_datagram_iovec", "icmp_send")
"""Tracepoints that are handed a packet and mean nothing special by it; older kernels lack some."""
ENDS: Final = ("sk_data_ready", "kmem_cache_free")
"""Those that only say that the kernel is done with a packet; older kernels lack the first."""
SPECIAL: Final = ("netif_receive_skb", "consume_skb", "kfree_skb", "kmem_cache_alloc", "kmalloc")
"""Those that have a program of their own."""
NEAR: Final = 6
"""Innermost addresses of a stack among which nft_trace_notify() is searched for."""

SOFTIRQ: Final = frozenset({"handle_softirqs", "__do_softirq", "do_softirq", "__irq_exit_rcu"})
"""What stands outside of these was interrupted, and has nothing to do with what stands within."""
RECEPTION: Final = frozenset({"process_backlog", "__napi_poll", "napi_poll", "net_rx_action"})
"""These hand on one packet at a time, by the tracepoint netif_receive_skb."""
CORE: Final = "__netif_receive_skb_core"
"""Where that tracepoint stands."""
ANSWERS: Final = frozenset(
    {"nf_send_reset", "nf_send_reset6", "nf_send_unreach", "nf_send_unreach6", "icmp_send", "__icmp_send", "icmp6_send"}
    | {"nft_reject_netdev_eval", "nft_reject_bridge_eval", "tcp_v4_send_reset", "tcp_v6_send_response", "arp_send_dst"}
)
"""Within these the packet is an answer to that which they are handed."""
COPIES: Final = frozenset(
    {"ip_do_fragment", "ip_fragment", "ip6_fragment", "nf_dup_ipv4", "nf_dup_ipv6", "nf_dup_netdev_egress"}
    | {"skb_copy", "skb_copy_expand", "__pskb_copy_fclone", "skb_segment", "ip_mr_forward", "br_flood", "deliver_clone"}
)
"""A packet first seen within these is a piece or a copy of that which they are handed."""


class Stacks(BaseTracer):
    """Tracepoints, recording while a scenario watches; the same questions as to a :class:`Tracer`."""

    whole = False
    known_by = (*BaseTracer.known_by, "heads")
    engine_name = engines.TRACEPOINTS

    def __init__(self, kept: KernelCache, *, ring_bytes: int = program.RING_BYTES) -> None:
        """Raises :class:`Unsupported` when the kernel does not let us attach to tracepoints."""
        modules.load()
        constants = {
            **constants_of(kept.survey),
            "TRACEPOINTS": 1,
            "DEPTH": events.DEPTH,
            "NEAR": NEAR,
            "CACHE_NAME": kept.survey.layout().offset("kmem_cache", "name"),
            "SOCK_QUEUE_TAIL": kept.survey.layout().offset("sock", "sk_receive_queue.prev"),
        }
        with ExitStack() as undo:
            try:
                loaded = undo.enter_context(program.LoadedProgram(kept.object(constants), ring_bytes=ring_bytes))
                super().__init__(kept.survey, loaded, undo, ring_bytes, events.Shape.VISITS)
                attached = [self._attach(undo, "handed", name) for name in HANDED]
                attached += [self._attach(undo, name, name) for name in (*ENDS, *SPECIAL)]
                self._count = sum(attached)
            except PermissionError as error:
                raise Unsupported(
                    f"tracepoints of kernel {os.uname().release} can't be attached to ({error.strerror})",
                    remedy="run as root",
                ) from None
            self._undo = undo.pop_all()
        for number, address in enumerate(self.symbols.range(NOTIFY)):
            self.maps["notify"][U32.pack(number)] = U64.pack(address)

    def _attach(self, undo: ExitStack, name: str, tracepoint: str) -> bool:
        """Attach a program to a tracepoint; whether the kernel has that."""
        descriptor = self.loaded.program(name, bpf.PROG_TYPE_RAW_TRACEPOINT)
        try:
            undo.callback(os.close, bpf.open_raw_tracepoint(descriptor, tracepoint))
        except FileNotFoundError:
            return False
        return True

    def missed(self) -> int:
        """Runs of the programs that the kernel skipped, but for those of :data:`ENDS`.

        A raw tracepoint's program is skipped while the same program runs on that CPU (__bpf_trace_run in
        kernel/trace/bpf_trace.c), so in an interrupt that came in the middle of it. That is mostly the one for
        kmem_cache_free, when RCU frees a batch there. A skipped end of a packet takes nothing from what is recorded
        of it: the packet is only waited for longer, and its address is forgotten when it is given out anew.
        """
        return sum(
            bpf.recursion_misses(descriptor) for name, descriptor in self.loaded.programs.items() if name not in ENDS
        )

    def arm(self, named: Collection[str] = ()) -> None:
        """Know the functions of the modules loaded by now."""
        self.functions = list(self.survey.handed())

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are known when they stand on a stack."""
        return frozenset(function.name for function in self.functions)

    def __str__(self) -> str:
        return f"functions on the stacks at {self._count} tracepoints"

    def tell(self, seen: list[Any]) -> list[Event]:
        """See :class:`BaseTracer`."""
        return _StackHistory(self.functions, self.symbol).tell(seen)


class _Chain(NamedTuple):
    """The functions on a stack that were handed one packet, the innermost first."""

    names: tuple[str, ...]
    border: str
    """The function that called the outermost of them."""

    @property
    def received(self) -> bool:
        """Whether it goes back to where packets come in."""
        return self.border in RECEPTION


class _StackHistory:
    """Makes of visits the events that probes on functions would have made."""

    def __init__(self, functions: Sequence[Function], symbol: Callable[[int], str]) -> None:
        self._symbol = symbol
        self._numbers = {function.name: number for number, function in enumerate(functions)}
        self._told: list[Event] = []
        self._births: dict[int, int] = {}
        """Where in what is told a packet's birth stands."""
        self._born: set[int] = set()
        """Packets of which no more than the birth was told."""
        self._same: dict[int, int] = {}
        """Packets that are copies or pieces of others."""
        self._received: dict[int, int] = {}
        """Packet that came in last, by CPU."""
        self._entered: dict[int, tuple[str, ...]] = {}
        """Functions that a packet was in when it was seen last, the outermost first."""
        self._places: dict[int, tuple[int, int]] = {}
        """Namespace and interface of a packet when it was seen last."""
        self._waiting: dict[int, list[StackEvent]] = defaultdict(list)
        """Evaluations on a CPU of a packet that is not known yet: one that is only being made there."""

    def tell(self, seen: Iterable[StackEvent]) -> list[Event]:
        for visit in seen:
            event = visit.event
            if event.kind == EventKind.BIRTH:
                self._births[event.packet] = len(self._told)
                self._born.add(event.packet)
                self._told.append(event)
            elif event.kind == EventKind.RULE:
                self._evaluation(visit)
            else:
                self._visit(visit)
        if any(self._waiting.values()):
            raise Unsupported(
                "stacks do not tell which packet an evaluation was about", remedy="run with --nft-tracer auto"
            )
        return sorted(self._told, key=lambda event: event.time)

    def _visit(self, visit: StackEvent) -> None:
        event, chain = visit.event, self._chain(visit)
        if event.packet in self._born:
            self._begin(event, chain)
        packet = self._same.get(event.packet, event.packet)
        if event.kind == EventKind.RECEIVED:
            self._received[event.cpu] = packet
        sure = self._received.get(event.cpu) == packet if chain.received else self._made_by_us(packet)
        names = chain.names if sure and not ANSWERS.intersection(chain.names) else chain.names[:1]
        self._hops(event, packet, names, fresh=event.kind == EventKind.RECEIVED and chain.names.count(CORE) == 1)
        self._places[packet] = (event.netns, event.ifindex)
        if event.kind in (EventKind.RECEIVED, EventKind.DROP):
            self._told.append(event._replace(packet=packet))

    def _begin(self, event: Event, chain: _Chain) -> None:
        """What is first seen of a packet: it is new, or made of another."""
        self._born.discard(event.packet)
        at = self._births[event.packet]
        waiting = self._waiting.pop(event.cpu, [])
        if not self._told[at].a and COPIES.intersection(chain.names):
            if not chain.received or event.cpu not in self._received:
                raise Unsupported("stacks do not tell what a packet is a copy of", remedy="run with --nft-tracer auto")
            self._same[event.packet] = self._received[event.cpu]
            self._told[at] = self._told[at]._replace(kind=EventKind.COPY, packet=self._received[event.cpu])
        elif waiting:
            # Its birth is where it first was seen, by nf_tables.
            self._told[at] = self._told[at]._replace(time=waiting[0].event.time)
        for visit in waiting:
            self._told.append(
                visit.event._replace(packet=self._same.get(event.packet, event.packet), netns=event.netns)
            )

    def _evaluation(self, visit: StackEvent) -> None:
        event, chain = visit.event._replace(a=0, b=0), self._chain(visit)
        received, ours = visit.event.a, visit.event.b
        if not (received or (ours and not chain.received)):
            return  # of another's packet: whoever on this machine traces a ruleset has such messages as well
        packet = self._received.get(event.cpu)
        if packet is None or not chain.received or ANSWERS.intersection(chain.names):
            self._waiting[event.cpu].append(visit._replace(event=event))
            return
        netns, _ = self._places[packet]
        self._hops(event._replace(netns=netns), packet, chain.names)
        self._told.append(event._replace(packet=packet, netns=netns))

    def _made_by_us(self, packet: int) -> bool:
        return bool(self._told[self._births[packet]].a)

    def _chain(self, visit: StackEvent) -> _Chain:
        # A return address is behind the call, which may be the last instruction of its function.
        names = [self._symbol(address - 1).partition(".")[0] for address in visit.stack]
        names = list(takewhile(lambda name: name not in SOFTIRQ, names))
        # The innermost may be the allocator or the tracer itself.
        first = next((place for place, name in enumerate(names) if name in self._numbers), len(names))
        chain = tuple(takewhile(self._numbers.__contains__, names[first:]))
        rest = names[first + len(chain) :]
        return _Chain(chain, rest[0] if rest else "")

    def _hops(self, event: Event, packet: int, names: tuple[str, ...], *, fresh: bool = False) -> None:
        """Tell of the functions that the packet has entered since it was seen last."""
        inward = names[::-1]
        before = () if fresh else self._entered.get(packet, ())
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, inward, strict=False)))
        self._entered[packet] = inward
        netns, ifindex = self._places.get(packet, (event.netns, event.ifindex))
        new = inward[kept:]
        if netns != event.netns and not fresh:
            new = new[-1:]  # the others it entered before it changed namespaces, or after
        for number, name in enumerate(new, 1):
            # So may the device have been another one.
            here = fresh or number == len(new) or ifindex == event.ifindex
            self._told.append(
                event._replace(
                    kind=EventKind.HOP,
                    packet=packet,
                    function=self._numbers[name],
                    ifindex=event.ifindex if here else 0,
                    a=0,
                    b=0,
                )
            )
