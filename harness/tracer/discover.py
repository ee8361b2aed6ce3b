"""Which kernel functions take a packet as argument, and which of them can be traced.

BTF has the arguments of every function, ``available_filter_functions`` lists those that the kernel's function tracer
can attach to. Functions that cannot be traced are kept too, with the reason as a sentence.

Covered are functions with an argument ``struct sk_buff *``, ``struct nft_pktinfo *`` or, where a kernel has the
latter in it, ``struct nft_traceinfo *`` that is passed in a register. Not covered, because the packet would have to
be searched for: ``struct sk_buff **``, lists of packets (``struct list_head *``, as in ``ip_list_rcv``), and
functions that have only a ``struct nf_hook_state *``.

:class:`harness.tracer.survey.Survey` does this for the running kernel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property

import msgspec

from harness.linux.btf import Argument
from harness.model import layers

KERNEL = "vmlinux"
"""The kernel itself, in place of a module's name."""

PACKETS = {"sk_buff *": "sk_buff", "nft_pktinfo *": "nft_pktinfo", "nft_traceinfo *": "nft_traceinfo"}
"""Types of arguments by which a packet is found, the preferred first, and the struct that they point to. The last
leads to a packet until v6.4 only; later functions that have it also have a ``struct nft_pktinfo *``."""
ELSEWHERE = ("sk_buff **", "nf_hook_state *")
"""Types of arguments by which it is not."""
STRUCTS = (*PACKETS.values(), "nf_hook_state")

TRACING = ("__traceiter_", "__probestub_", "__bpf_trace_")
"""Functions of tracepoints begin like this (include/linux/tracepoint.h, include/trace/bpf_probe.h). The kernel calls
them for those who trace: ``__traceiter_kfree_skb`` stands between a function and its tracepoint as soon as two
programs are attached there, of whomever. They are no part of a packet's path."""
FILLING = ("__build_skb_around", "__finalize_skb_around", "__copy_skb_header", "skb_copy_header", "__skb_clone")
"""Functions that fill in a new sk_buff, their first argument (net/core/skbuff.c). Until it is filled in, its address
and its memory may be those of an earlier packet, so that the function would be recorded for that one."""
EDITION = 3
"""Raised whenever other functions of the same kernel are found."""

_OF_LISTS = re.compile(r"_(?:sub)?list(?:_|$)")
"""``ip_list_rcv``, ``netif_receive_skb_list_internal``, …: known by name only, as the type does not say of what."""

REGISTERS = 5
"""Arguments that a probe can read: rdi, rsi, rdx, rcx, r8 of the System V calling convention. No function
of the network stack has a struct passed by value before its packet, which would shift them."""

CLONES = ("isra", "constprop")
"""Copies that the compiler specialised. BTF describes such a function only when its arguments are still
in the registers that its prototype says (pahole's feature "optimized_func", see the kernel's
scripts/Makefile.btf; older kernels leave such functions out), so they count as the function itself. Other suffixes
(.part, .cold) are pieces from the middle of a function, whose arguments are unknown."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function that can be traced."""

    name: str
    """As in the source, e.g. ``ip_fragment``."""
    kernel_name: str
    """The symbol to probe, e.g. ``ip_fragment.constprop.0``."""
    module: str = KERNEL
    position: int
    """Which argument leads to the packet, from 0."""
    carries: str
    """The struct that this argument points to: ``sk_buff``, ``nft_pktinfo`` or ``nft_traceinfo``."""
    layer: str
    priority: int
    """``CRITICAL``, ``IMPORTANT`` or ``OTHER`` of :mod:`harness.model.layers`."""


class Untraceable(msgspec.Struct, frozen=True, kw_only=True):
    """A function that takes a packet and cannot be traced."""

    name: str
    module: str = KERNEL
    reason: str


class Functions(msgspec.Struct, frozen=True, dict=True):
    """The functions of the kernel and of the loaded modules."""

    traceable: tuple[Function, ...]
    untraceable: tuple[Untraceable, ...] = ()

    def __iter__(self) -> Iterator[Function]:
        return iter(self.traceable)

    def __len__(self) -> int:
        return len(self.traceable)

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the traceable functions."""
        return frozenset(function.name for function in self.traceable)

    def named(self, names: Iterable[str]) -> tuple[Function, ...]:
        """The traceable functions with one of ``names``; a name may have several (compiler clones)."""
        wanted = frozenset(names)
        return tuple(function for function in self.traceable if function.name in wanted)

    def why_not(self, name: str) -> str:
        """Why ``name`` can't be traced, as the end of a sentence; "" when it can."""
        if name in self.names:
            return ""
        for function in self.untraceable:
            if function.name == name:
                return function.reason
        if _OF_LISTS.search(name):
            return "it takes a list of packets, if it exists: name a function that each packet passes later"
        return "the kernel has no such function that takes a packet"

    def near(self, name: str, count: int = 3) -> list[str]:
        """Names that ``name`` may be a typo of, the closest first."""
        from difflib import get_close_matches

        return get_close_matches(name, sorted(self.names), count, 0.7)


class Stops:
    """Where the function tracer can attach.

    ``available`` is ``available_filter_functions``, lines of ``name`` or ``name [module]``;
    ``blacklist`` that of kprobes, lines of ``address-address name``.
    """

    def __init__(self, available: bytes, blacklist: bytes = b"") -> None:
        lines = available.split(b"\n")
        self._lines = Counter(lines)
        self._in_modules = Counter(line.partition(b" ")[0] for line in lines if line.endswith(b"]"))
        self._clones: dict[bytes, list[bytes]] = {}
        for line in lines:
            if b"." in line:
                self._clones.setdefault(line.partition(b".")[0], []).append(line)
        self._blacklist = frozenset(line.split()[-1] for line in blacklist.split(b"\n") if line)

    def names(self, function: str, module: str) -> list[str]:
        """The symbols of a function, compiler clones included; empty when it cannot be traced."""
        name = function.encode()
        place = b"" if module == KERNEL else b" [%s]" % module.encode()
        found = [name] if name + place in self._lines else []
        for line in self._clones.get(name, ()):
            clone, _, _ = line.partition(b" ")
            if clone + place == line and clone.split(b".")[1].decode() in CLONES:
                found.append(clone)
        return [clone.decode() for clone in found]

    def count(self, kernel_name: str) -> int:
        """Number of functions with this symbol, modules included."""
        name = kernel_name.encode()
        return self._lines[name] + self._in_modules[name]

    def forbids(self, kernel_name: str) -> bool:
        """Whether it is on the kprobe blacklist."""
        return kernel_name.encode() in self._blacklist


def takes_packet(module: str, arguments: Iterable[Argument]) -> Iterator[Function]:
    """All functions with one of ``arguments`` that leads to a packet, traceable or not, by the first such argument."""
    carriers = {**PACKETS, ELSEWHERE[0]: "sk_buff"}
    known = set()
    for argument in arguments:
        if argument.function.startswith(TRACING):
            continue
        if argument.type in carriers and argument.function not in known:
            known.add(argument.function)
            place = layers.classify(argument.function)
            yield Function(
                name=argument.function,
                kernel_name=argument.function,
                module=module,
                position=argument.position,
                carries=carriers[argument.type],
                layer=place.layer,
                priority=place.priority,
            )


def sort_out(
    module: str, arguments: Iterable[Argument], stops: Stops
) -> tuple[tuple[Function, ...], tuple[Untraceable, ...]]:
    """Divide the functions that have ``arguments`` into traceable and untraceable ones."""
    packets: dict[str, Argument] = {}
    elsewhere: dict[str, Argument] = {}
    order = list(PACKETS)
    for argument in arguments:
        if argument.function.startswith(TRACING):
            continue
        if argument.type in PACKETS:
            best = packets.setdefault(argument.function, argument)
            if (order.index(argument.type), argument.position) < (order.index(best.type), best.position):
                packets[argument.function] = argument
        elif argument.type in ELSEWHERE:
            elsewhere.setdefault(argument.function, argument)

    traceable: list[Function] = []
    untraceable: list[Untraceable] = []

    def refuse(name: str, reason: str) -> None:
        untraceable.append(Untraceable(name=name, module=module, reason=reason))

    for name, argument in packets.items():
        if name in FILLING:
            refuse(name, "its packet is a new one, which it fills in")
            continue
        if argument.position >= REGISTERS:
            refuse(name, f"its packet is argument {argument.position + 1}, which is not passed in a register")
            continue
        found = stops.names(name, module)
        if not found:
            refuse(name, "it is inlined, or marked notrace: not in available_filter_functions")
        place = layers.classify(name)
        for kernel_name in found:
            if stops.forbids(kernel_name):
                refuse(name, "it is on the kprobe blacklist")
            elif (count := stops.count(kernel_name)) > 1:
                refuse(name, f"{count} functions have this name, probes cannot distinguish them")
            else:
                traceable.append(
                    Function(
                        name=name,
                        kernel_name=kernel_name,
                        module=module,
                        position=argument.position,
                        carries=PACKETS[argument.type],
                        layer=place.layer,
                        priority=place.priority,
                    )
                )
    for name, argument in elsewhere.items():
        if name not in packets:
            refuse(name, f"it has no packet, only a struct {argument.type}")
    return tuple(traceable), tuple(untraceable)
