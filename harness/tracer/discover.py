"""Which functions of the running kernel are handed a packet, and which of them can be traced.

BTF knows the arguments of every function, ``available_filter_functions`` those that the kernel's
function tracer can stop at. What is left out is kept too, with the reason in words.

Covered are functions with an argument ``struct sk_buff *``, ``struct nft_pktinfo *`` or, where a
kernel has the latter in it, ``struct nft_traceinfo *`` that comes in a register. Not covered, because
the packet has to be searched for: ``struct sk_buff **``, lists of packets (``struct list_head *``, as
in ``ip_list_rcv``), and functions that have no more than a ``struct nf_hook_state *``.

Nothing here changes from one boot to the next, so it is asked once per kernel, and once per module:
:class:`Survey` remembers, and can be stored.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import msgspec

from harness.errors import Unsupported
from harness.linux.btf import Argument, Btf
from harness.model import layers

KERNEL = "vmlinux"
"""The kernel itself, where else a module is named."""

PACKETS = {"sk_buff *": "sk_buff", "nft_pktinfo *": "nft_pktinfo", "nft_traceinfo *": "nft_traceinfo"}
"""Arguments by which a packet can be found, the better one first, and the struct that they point to. The last
leads to a packet until v6.4 only; from then on whoever has it has a ``struct nft_pktinfo *`` too."""
ELSEWHERE = ("sk_buff **", "nf_hook_state *")
"""Arguments by which it can't."""
STRUCTS = (*PACKETS.values(), "nf_hook_state")

_OF_LISTS = re.compile(r"_(?:sub)?list(?:_|$)")
"""``ip_list_rcv``, ``netif_receive_skb_list_internal``, …: only their names tell, since lists are of anything."""

REGISTERS = 5
"""Arguments that a probe can read: rdi, rsi, rdx, rcx, r8 of the System V calling convention. No function
of the network stack has a struct passed by value before its packet, which would shift them."""

CLONES = ("isra", "constprop")
"""Copies that the compiler specialised. BTF describes such a function only when its arguments are still
in the registers that its prototype says (pahole's feature "optimized_func", see the kernel's
scripts/Makefile.btf; older kernels leave such functions out), so they count as the function itself. Other suffixes
(.part, .cold) are pieces from the middle of a function, whose arguments nobody knows."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function that can be traced."""

    name: str
    """As in the source, e.g. ``ip_fragment``."""
    kernel_name: str
    """As probes want it, e.g. ``ip_fragment.constprop.0``."""
    module: str = KERNEL
    position: int
    """Which argument leads to the packet, from 0."""
    carries: str
    """The struct that this argument points to: ``sk_buff``, ``nft_pktinfo`` or ``nft_traceinfo``."""
    layer: str
    priority: int
    """``CRITICAL``, ``IMPORTANT`` or ``OTHER`` of :mod:`harness.model.layers`."""


class Untraceable(msgspec.Struct, frozen=True, kw_only=True):
    """A function that is handed a packet and can't be traced."""

    name: str
    module: str = KERNEL
    reason: str


class Functions(msgspec.Struct, frozen=True, dict=True):
    """What was found: the kernel's functions and those of the modules that are loaded now."""

    traceable: tuple[Function, ...]
    untraceable: tuple[Untraceable, ...] = ()

    def __iter__(self) -> Iterator[Function]:
        return iter(self.traceable)

    def __len__(self) -> int:
        return len(self.traceable)

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all that can be traced."""
        return frozenset(function.name for function in self.traceable)

    def named(self, names: Iterable[str]) -> tuple[Function, ...]:
        """Those with one of ``names``; a name may have several (clones)."""
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
            return "it is handed a list of packets, if there is such a function: name what each of them meets later"
        return "it has no such function that is handed a packet"

    def near(self, name: str, count: int = 3) -> list[str]:
        """Names that ``name`` may be a slip of, the nearest first."""
        from difflib import get_close_matches

        return get_close_matches(name, sorted(self.names), count, 0.7)


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What BTF says of a struct's member."""

    bit: int
    bits: int
    """Width of a bitfield; 0 for an ordinary member."""
    size: int
    """In bytes."""


class Part(msgspec.Struct, kw_only=True):
    """What was learned of the kernel itself or of one module."""

    identity: str
    """A part with another one is another build."""
    functions: tuple[Function, ...] | None = None
    untraceable: tuple[Untraceable, ...] = ()
    members: dict[str, Answer | None] = {}
    """``struct.member`` → where it is; None for one that is not there."""
    sizes: dict[str, int] = {}
    enums: dict[str, dict[int, str]] = {}
    function_ids: dict[str, int] = {}
    handed: tuple[Function, ...] | None = None


class Memory(msgspec.Struct, kw_only=True):
    """A survey as it is stored."""

    identity: str
    parts: dict[str, Part] = {}


class Survey:
    """What the running kernel offers to trace; asked when wanted, remembered, and stored on demand.

    ``memory`` is what :meth:`to_bytes` gave for some kernel; of another kernel it is not used.
    ``sys`` is where sysfs and tracefs are.
    """

    def __init__(self, memory: bytes = b"", sys: Path = Path("/sys")) -> None:
        self._sys = sys
        self._base: Btf | None = None
        self._btfs: dict[str, Btf] = {}
        self.learned = False
        """Whether there is something new to store."""
        identity = self._kernel_identity()
        self._memory = Memory(identity=identity)
        if memory:
            try:
                stored = msgspec.json.decode(memory, type=Memory)
            except msgspec.DecodeError:  # an older version's
                return
            if stored.identity == identity:
                self._memory = stored

    def to_bytes(self) -> bytes:
        """All that is known, in JSON, for a survey in another process on the same kernel."""
        return msgspec.json.encode(self._memory)

    # -- functions --------------------------------------------------------------------------------

    def functions(self) -> Functions:
        """Functions of the kernel and of the modules loaded now; call it again when there may be more.

        Raises :class:`~harness.errors.Unsupported` when the kernel has no BTF or its list of traceable
        functions can't be read.
        """
        parts = {name: self._part(name) for name in (KERNEL, *self._modules())}
        unknown = {name: part for name, part in parts.items() if part.functions is None}
        if unknown:
            stops = Stops(self._tracefs("available_filter_functions"), self._blacklist())
            for name, part in unknown.items():
                part.functions, part.untraceable = sort_out(name, self._btf(name).arguments(STRUCTS), stops)
            self.learned = True
        return Functions(
            tuple(function for part in parts.values() for function in part.functions or ()),
            tuple(function for part in parts.values() for function in part.untraceable),
        )

    def handed(self) -> tuple[Function, ...]:
        """All functions that are handed a packet, traceable or not, or a ``struct sk_buff **``."""
        for name in (KERNEL, *self._modules()):
            part = self._part(name)
            if part.handed is None:
                part.handed = tuple(everything(name, self._btf(name).arguments(STRUCTS)))
                self.learned = True
        return tuple(function for part in self._memory.parts.values() for function in part.handed or ())

    def function_id(self, name: str, module: str = KERNEL) -> int:
        """Number of a function in the BTF of ``module``; Unsupported when that has none of this name."""
        ids = self._part(module).function_ids
        if name not in ids:
            ids[name] = self._btf(module).function(name)
            self.learned = True
        return ids[name]

    # -- layout of structs ------------------------------------------------------------------------

    def layout(self, module: str = KERNEL) -> Layout:
        """Offsets and sizes, as the BTF of ``module`` has them, remembered question by question."""
        return Layout(self, module)

    # -- the kernel's files -----------------------------------------------------------------------

    def _modules(self) -> list[str]:
        try:
            return sorted(path.name for path in (self._sys / "kernel/btf").iterdir() if path.name != KERNEL)
        except OSError:
            return []

    def _part(self, module: str) -> Part:
        identity = "" if module == KERNEL else self._module_identity(module)
        part = self._memory.parts.get(module)
        if part is None or part.identity != identity:
            part = self._memory.parts[module] = Part(identity=identity)
        return part

    def _btf(self, module: str) -> Btf:
        folder = self._sys / "kernel/btf"
        if self._base is None:
            self._base = Btf.vmlinux(folder)
        if module == KERNEL:
            return self._base
        if module not in self._btfs:
            self._btfs[module] = Btf.module(module, self._base, folder)
        return self._btfs[module]

    def _kernel_identity(self) -> str:
        """Release and build: the notes hold the build id, a checksum that the linker made of the whole kernel."""
        name = os.uname()
        try:
            notes = (self._sys / "kernel/notes").read_bytes()
        except OSError:
            notes = b""
        build = zlib.crc32(notes, zlib.crc32(name.version.encode()))
        return f"{name.release} {build:08x} {layers.EDITION}"

    def _module_identity(self, module: str) -> str:
        try:
            return (self._sys / "module" / module / "notes/.note.gnu.build-id").read_bytes().hex()
        except OSError:
            return f"{(self._sys / 'kernel/btf' / module).stat().st_size}"

    def _tracefs(self, name: str) -> bytes:
        try:
            return (self._sys / "kernel/tracing" / name).read_bytes()
        except OSError as error:
            raise Unsupported(
                f"the kernel does not tell which functions can be traced: {name}: {error.strerror}",
                remedy="run as root, mount -t tracefs tracefs /sys/kernel/tracing; CONFIG_DYNAMIC_FTRACE=y is needed",
            ) from None

    def _blacklist(self) -> bytes:
        try:
            return (self._sys / "kernel/debug/kprobes/blacklist").read_bytes()
        except OSError:  # debugfs need not be mounted; none of the network stack is on it
            return b""


class Layout:
    """Answers :class:`~harness.linux.btf.Btf`'s questions on structs, without BTF where it was asked before."""

    def __init__(self, survey: Survey, module: str) -> None:
        self._survey = survey
        self._part = survey._part(module)
        self.name = module

    def has(self, name: str, member: str) -> bool:
        """See :meth:`Btf.has`."""
        return self._answer(name, member) is not None

    def offset(self, name: str, member: str) -> int:
        """See :meth:`Btf.offset`."""
        answer = self._answer(name, member)
        if answer is None or answer.bits or answer.bit % 8:
            return self._btf().offset(name, member)  # raises, and knows how to say it
        return answer.bit // 8

    def bitfield(self, name: str, member: str) -> tuple[int, int]:
        """See :meth:`Btf.bitfield`."""
        answer = self._answer(name, member)
        if answer is None:
            return self._btf().bitfield(name, member)
        return answer.bit, answer.bits or 8 * answer.size

    def member_size(self, name: str, member: str) -> int:
        """See :meth:`Btf.member_size`."""
        answer = self._answer(name, member)
        return self._btf().member_size(name, member) if answer is None else answer.size

    def size(self, name: str) -> int:
        """See :meth:`Btf.size`."""
        if name not in self._part.sizes:
            self._part.sizes[name] = self._btf().size(name)
            self._survey.learned = True
        return self._part.sizes[name]

    def enum(self, name: str) -> dict[int, str]:
        """See :meth:`Btf.enum`."""
        if name not in self._part.enums:
            self._part.enums[name] = self._btf().enum(name)
            self._survey.learned = True
        return self._part.enums[name]

    def _btf(self) -> Btf:
        return self._survey._btf(self.name)

    def _answer(self, name: str, member: str) -> Answer | None:
        key = f"{name}.{member}"
        if key not in self._part.members:
            btf = self._btf()
            answer = None
            if btf.has(name, member):
                field = btf.field(name, member)
                answer = Answer(field.bit, field.bits, btf.sizeof(field.type))
            self._part.members[key] = answer
            self._survey.learned = True
        return self._part.members[key]


class Stops:
    """Where the function tracer can stop.

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
        """The names under which probes find a function; empty when it is nowhere."""
        name = function.encode()
        place = b"" if module == KERNEL else b" [%s]" % module.encode()
        found = [name] if name + place in self._lines else []
        for line in self._clones.get(name, ()):
            clone, _, _ = line.partition(b" ")
            if clone + place == line and clone.split(b".")[1].decode() in CLONES:
                found.append(clone)
        return [clone.decode() for clone in found]

    def count(self, kernel_name: str) -> int:
        """How many functions have this name, the modules' included."""
        name = kernel_name.encode()
        return self._lines[name] + self._in_modules[name]

    def forbids(self, kernel_name: str) -> bool:
        """Whether kprobes must not be set there."""
        return kernel_name.encode() in self._blacklist


def everything(module: str, arguments: Iterable[Argument]) -> Iterator[Function]:
    """A function for each that has one of ``arguments``, by the first that leads to a packet."""
    carriers = {**PACKETS, ELSEWHERE[0]: "sk_buff"}
    known = set()
    for argument in arguments:
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
    """Divide the functions that have ``arguments`` into those that can be traced and those that can't."""
    packets: dict[str, Argument] = {}
    elsewhere: dict[str, Argument] = {}
    order = list(PACKETS)
    for argument in arguments:
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
        if argument.position >= REGISTERS:
            refuse(name, f"its packet is argument {argument.position + 1}, beyond those that a probe can read")
            continue
        found = stops.names(name, module)
        if not found:
            refuse(name, "it is inlined, or marked notrace: not in available_filter_functions")
        place = layers.classify(name)
        for kernel_name in found:
            if stops.forbids(kernel_name):
                refuse(name, "it is on the kprobe blacklist")
            elif (count := stops.count(kernel_name)) > 1:
                refuse(name, f"{count} functions have this name, probes can't tell them apart")
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
