"""The tracer: armed once per process, recording while a scenario watches.

Arming attaches the programs to every function that can be traced; nothing is recorded until
:meth:`Tracer.watch` names the namespaces and sockets of a scenario. When a ruleset pulls in a
module, :meth:`Tracer.extend` arms its functions too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import msgspec

from harness.errors import Unsupported
from harness.kernel import bpf
from harness.observation import Loss
from harness.tracer import attach, events, program
from harness.tracer.discover import Function

if TYPE_CHECKING:
    from bcc import BPF

# enum trait and enum count in bpf/trace.c
RETURNS, COPIES, LISTS, RELEASES, CHAIN = 1, 2, 4, 8, 16
ENTERED, REFUSED, UNTRACKED = range(3)

TRAITS = {
    "nft_do_chain": RETURNS | CHAIN,
    "nf_hook_slow": RETURNS,
    "ip_route_input_noref": RETURNS,
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
}
"""Functions of which more is wanted than that the packet met them."""

SOURCES = {"skb_morph": 1}
"""Where the packet is copied from, when that is not the first ``struct sk_buff *``."""

ALLOCATORS = ("__alloc_skb", "__build_skb", "build_skb", "slab_build_skb", "napi_build_skb")
"""Functions that give out an address as a new sk_buff; only the first is there on every kernel."""

NOTIFY = "nft_trace_notify"

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""enum nfproto, as nft(8) calls them."""

RING_BYTES = 8 << 20


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What the tracer recorded of one scenario, before anything is made of it."""

    events: list[events.Event]
    functions: tuple[Function, ...]
    """By the number that events carry."""
    chains: Mapping[int, str]
    """``family table chain`` by address, of the chains met."""
    symbols: Mapping[int, str]
    """Function names of the code addresses in ``DROP`` events."""
    loss: Loss


class Watch:
    """One scenario being recorded; made by :meth:`Tracer.watch`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._batches: list[bytes] = []
        self._before = tracer.counts()

    def drain(self) -> None:
        """Take what the ring buffer holds."""
        self._batches.append(self._tracer.ring.read())

    def alive(self) -> int:
        """Number of sk_buffs of this scenario that the kernel has not released yet."""
        self.drain()
        return sum(not packet.released for packet in self._tracer.table("packets").values())

    def finish(self) -> Recording:
        """Stop recording and give what was recorded."""
        self._tracer.silence()
        while True:
            # A program may still have been running on another CPU.
            after = self._tracer.counts()
            self.drain()
            if self._tracer.counts() == after:
                break
        seen = events.decode(b"".join(self._batches))
        counts = [now - before for now, before in zip(after, self._before, strict=True)]
        entered, refused, untracked, missed = counts
        return Recording(
            events=seen,
            functions=tuple(self._tracer.functions),
            chains=self._tracer.chains(),
            symbols=self._tracer.symbols(event.a for event in seen if event.kind == events.Kind.DROP),
            loss=Loss(entered=entered, received=len(seen), refused=refused, untracked=untracked, missed=missed),
        )


class Tracer:
    """The compiled program and everything it is attached to."""

    def __init__(self, constants: Mapping[str, int], *, ring_bytes: int = RING_BYTES) -> None:
        self.engine = attach.engine()
        self.functions: list[Function] = []
        self.refused: dict[str, str] = {}
        """Functions that the kernel would not let us trace, and why."""
        self._programs: dict[str, int] = {}
        with ExitStack() as undo:
            self._bpf: BPF = program.compile_program(constants, ring_bytes=ring_bytes)
            undo.callback(self._bpf.cleanup)
            self.ring = events.Ring(self.table("events").map_fd, ring_bytes)
            undo.callback(self.ring.close)
            undo.callback(self.engine.close)
            allocators = {name: 0 for name in ALLOCATORS}
            refused = self.engine.attach(self._load("allocated"), allocators, returns=True)
            if ALLOCATORS[0] in refused:
                raise Unsupported(
                    f"{ALLOCATORS[0]} cannot be traced ({refused[ALLOCATORS[0]]}), so packets cannot be told apart",
                    remedy="choose another kernel with --nft-kernel",
                )
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and free everything."""
        self._undo.close()

    def extend(self, functions: Collection[Function]) -> None:
        """Arm more functions; those the kernel refuses are kept in :attr:`refused`."""
        first = len(self.functions)
        self.functions += functions
        numbered = list(enumerate(self.functions))[first:]
        groups: dict[str, dict[str, int]] = {}
        returns: dict[str, int] = {}
        for number, function in numbered:
            trait = TRAITS.get(function.name, 0)
            if trait:
                self.table("traits")[ctypes.c_uint32(number)] = ctypes.c_uint32(trait)
            if trait & (RETURNS | COPIES):
                returns[function.kernel_name] = number
            groups.setdefault(_entry_program(function), {})[function.kernel_name] = number
        # Returns first: a call whose return is not seen would be taken for one still under way.
        self.refused |= self.engine.attach(self._load("returned"), returns, returns=True)
        for name, cookies in groups.items():
            self.refused |= self.engine.attach(self._load(name), cookies)

    @property
    def traced(self) -> frozenset[str]:
        """Names of the functions that are armed."""
        return frozenset(f.name for f in self.functions if f.kernel_name not in self.refused)

    @contextmanager
    def watch(self, *, hosts: Iterable[int], senders: Iterable[int]) -> Iterator[Watch]:
        """Record the packets of the namespaces ``hosts`` (inode numbers).

        ``senders`` are the cookies (SO_COOKIE) of the sockets that inject.
        """
        self.silence()
        self.table("chains").clear()
        self.ring.read()
        watch = Watch(self)
        try:
            for cookie in senders:
                self.table("senders")[ctypes.c_uint64(cookie)] = ctypes.c_uint32(1)
            for inum in hosts:
                self.table("hosts")[ctypes.c_uint32(inum)] = ctypes.c_uint32(1)
            yield watch
        finally:
            self.silence()

    def silence(self) -> None:
        """Know no packet any more, and none as new."""
        for name in ("senders", "hosts", "packets", "calls"):
            self.table(name).clear()

    def counts(self) -> tuple[int, ...]:
        """Since arming: events entered, refused, packets untracked; program runs missed."""
        table = self.table("counts")
        counted = [sum(table[ctypes.c_int(which)]) for which in (ENTERED, REFUSED, UNTRACKED)]
        missed = sum(map(bpf.recursion_misses, self._programs.values())) + self.engine.missed()
        return *counted, missed

    def chains(self) -> dict[int, str]:
        """Names of the chains met, by address."""
        return {
            address.value: " ".join([FAMILIES.get(chain.family, "?"), chain.table.decode(), chain.name.decode()])
            for address, chain in self.table("chains").items()
        }

    def symbols(self, addresses: Iterable[int]) -> dict[int, str]:
        """Names of the functions that the addresses lie in."""
        return {address: self._bpf.ksym(address).decode() for address in set(addresses)}

    def table(self, name: str) -> Any:
        """A map of the program, as BCC presents it."""
        return self._bpf[name]

    def _load(self, name: str) -> int:
        if name not in self._programs:
            kind = bpf.BPF_TRACE_KPROBE_MULTI if self.engine.everything else -1
            self._programs[name] = self._bpf.load_func(name, self._bpf.KPROBE, attach_type=kind).fd
        return self._programs[name]


def _entry_program(function: Function) -> str:
    if function.name == NOTIFY:
        return "trace_notify"
    position = SOURCES.get(function.name, function.position)
    return program.FUNCTION_PROGRAMS[function.carries, position]
