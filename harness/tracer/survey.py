"""What the running kernel offers to trace: its functions, and the layout of its structs.

Nothing here changes from one boot to the next, so it is read once per build of the kernel and of each module:
a :class:`Survey` remembers, and can be stored.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec

from harness.errors import Unsupported
from harness.linux.btf import Btf
from harness.model import layers
from harness.tracer.discover import (
    EDITION,
    KERNEL,
    STRUCTS,
    Function,
    Functions,
    Stops,
    Untraceable,
    sort_out,
    takes_packet,
)


class MemberPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a struct's member is, from BTF."""

    bit: int
    bits: int
    """Width of a bitfield; 0 for an ordinary member."""
    size: int
    """In bytes."""


class Part(msgspec.Struct, kw_only=True):
    """What was learned of the kernel itself or of one module."""

    identity: str
    """Changes with each build."""
    functions: tuple[Function, ...] | None = None
    untraceable: tuple[Untraceable, ...] = ()
    members: dict[str, MemberPlace | None] = {}
    """Position by ``struct.member``; None for a member that does not exist."""
    sizes: dict[str, int] = {}
    enums: dict[str, dict[int, str]] = {}
    function_ids: dict[str, int] = {}
    takes_packet: tuple[Function, ...] | None = None


class Memory(msgspec.Struct, kw_only=True):
    """A survey as it is stored."""

    identity: str
    parts: dict[str, Part] = {}


class Survey:
    """What the running kernel offers to trace: read on demand, remembered, and stored by :meth:`to_bytes`.

    ``memory`` is the result of :meth:`to_bytes`; that of another kernel is ignored. ``sys`` is where sysfs and
    tracefs are mounted.
    """

    def __init__(self, memory: bytes = b"", sys: Path = Path("/sys")) -> None:
        self._sys = sys
        self._base: Btf | None = None
        self._btfs: dict[str, Btf] = {}
        self.learned = False
        """Whether there is something new to store."""
        self._functions: tuple[dict[str, int], Functions] | None = None
        self._takes_packet: tuple[dict[str, int], tuple[Function, ...]] | None = None
        self._parts: dict[str, tuple[int, Part]] = {}
        """Of the modules that were loaded at the last call of :meth:`functions`, with their numbers."""
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
        """Everything learned, in JSON, for a survey in another process on the same kernel."""
        return msgspec.json.encode(self._memory)

    # -- functions --------------------------------------------------------------------------------

    def functions(self) -> Functions:
        """Functions of the kernel and of the modules that are loaded now; the same object while those are the same.

        Raises :class:`~harness.errors.Unsupported` when the kernel has no BTF or its list of traceable
        functions can't be read.
        """
        loaded = self._modules()
        if self._functions and self._functions[0] == loaded:
            return self._functions[1]
        self._parts = {name: self._loaded_part(name, number) for name, number in loaded.items()}
        parts = {KERNEL: self._part(KERNEL)} | {name: part for name, (_, part) in self._parts.items()}
        unknown = {name: part for name, part in parts.items() if part.functions is None}
        if unknown:
            stops = Stops(self._tracefs("available_filter_functions"), self._blacklist())
            for name, part in unknown.items():
                part.functions, part.untraceable = sort_out(name, self._btf(name).arguments(STRUCTS), stops)
            self.learned = True
        found = Functions(
            tuple(function for part in parts.values() for function in part.functions or ()),
            tuple(function for part in parts.values() for function in part.untraceable),
        )
        self._functions = loaded, found
        return found

    def takes_packet(self) -> tuple[Function, ...]:
        """All functions that take a packet or a ``struct sk_buff **``, traceable or not; the same object likewise."""
        loaded = self._modules()
        if self._takes_packet and self._takes_packet[0] == loaded:
            return self._takes_packet[1]
        for name in (KERNEL, *loaded):
            part = self._part(name)
            if part.takes_packet is None:
                part.takes_packet = tuple(takes_packet(name, self._btf(name).arguments(STRUCTS)))
                self.learned = True
        found = tuple(function for part in self._memory.parts.values() for function in part.takes_packet or ())
        self._takes_packet = loaded, found
        return found

    def function_id(self, name: str, module: str = KERNEL) -> int:
        """BTF id of a function of ``module``; raises :class:`~harness.errors.Unsupported` when there is none."""
        ids = self._part(module).function_ids
        if name not in ids:
            ids[name] = self._btf(module).function(name)
            self.learned = True
        return ids[name]

    # -- layout of structs ------------------------------------------------------------------------

    def layout(self, module: str = KERNEL) -> Layout:
        """Offsets and sizes from the BTF of ``module``, each remembered once it was looked up."""
        return Layout(self, module)

    # -- the kernel's files -----------------------------------------------------------------------

    def _modules(self) -> dict[str, int]:
        """The modules loaded now, each with a number that no module loaded later has (``kernfs_ino``)."""
        try:
            with os.scandir(self._sys / "kernel/btf") as entries:
                return dict(sorted((entry.name, entry.inode()) for entry in entries if entry.name != KERNEL))
        except OSError:
            return {}

    def _part(self, module: str) -> Part:
        identity = "" if module == KERNEL else self._module_identity(module)
        part = self._memory.parts.get(module)
        if part is None or part.identity != identity:
            part = self._memory.parts[module] = Part(identity=identity)
        return part

    def _loaded_part(self, module: str, number: int) -> tuple[int, Part]:
        """``number`` and the part of a loaded module, whose identity is not read again while that is the same."""
        known = self._parts.get(module)
        return known if known and known[0] == number else (number, self._part(module))

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
        return f"{name.release} {build:08x} {layers.EDITION} {EDITION}"

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
                f"the list of traceable functions cannot be read: {name}: {error.strerror}",
                remedy="run as root, mount -t tracefs tracefs /sys/kernel/tracing; CONFIG_DYNAMIC_FTRACE=y is needed",
            ) from None

    def _blacklist(self) -> bytes:
        try:
            return (self._sys / "kernel/debug/kprobes/blacklist").read_bytes()
        except OSError:  # debugfs need not be mounted; none of the network stack is on it
            return b""


class Layout:
    """Structs and enums as :class:`~harness.linux.btf.Btf` has them; BTF is read only for what is not remembered."""

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

    def _answer(self, name: str, member: str) -> MemberPlace | None:
        key = f"{name}.{member}"
        if key not in self._part.members:
            btf = self._btf()
            answer = None
            if btf.has(name, member):
                field = btf.field(name, member)
                answer = MemberPlace(field.bit, field.bits, btf.sizeof(field.type))
            self._part.members[key] = answer
            self._survey.learned = True
        return self._part.members[key]
