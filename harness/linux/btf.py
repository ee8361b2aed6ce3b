"""BTF, the kernel's own description of its types and functions, read in plain Python.

The tracer asks here where ``sk_buff.dev`` lies and which functions are handed a packet, so that
it needs neither kernel headers nor a table of kernel versions.

Most of vmlinux's 120,000 types are never asked for. They are therefore not turned into objects:
one pass notes where each begins and of what kind it is, everything else is decoded on demand
from the words as they lie in memory.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from harness import untrusted
from harness.errors import Unsupported

FOLDER = Path("/sys/kernel/btf")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_LAYOUT = struct.Struct("=II")
_HEADER_WORDS = 3
"""``struct btf_type``: name, info, and size or type."""
_VLEN = 0xFFFFFF
_KIND_FLAG = 0x80


class TypeKind(enum.IntEnum):
    """``BTF_KIND_*``."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_INFO_WORDS = {TypeKind.INT: 1, TypeKind.ARRAY: 3, TypeKind.VAR: 1, TypeKind.DECL_TAG: 1}
"""Words after the header of a type, once."""
_ELEMENT_WORDS = {
    TypeKind.STRUCT: 3,
    TypeKind.UNION: 3,
    TypeKind.ENUM: 2,
    TypeKind.FUNC_PROTO: 2,
    TypeKind.DATASEC: 3,
    TypeKind.ENUM64: 3,
}
"""Words after that, for each of the type's ``vlen`` elements."""

_STRUCTS = frozenset({TypeKind.STRUCT, TypeKind.UNION})
_ENUMS = frozenset({TypeKind.ENUM, TypeKind.ENUM64})
_TYPEDEFS = frozenset({TypeKind.TYPEDEF})
_FUNCTIONS = frozenset({TypeKind.FUNC})
_QUALIFIERS = frozenset({TypeKind.TYPEDEF, TypeKind.VOLATILE, TypeKind.CONST, TypeKind.RESTRICT, TypeKind.TYPE_TAG})
_QUALIFIER_NAMES: dict[int, str] = {
    TypeKind.CONST: "const",
    TypeKind.VOLATILE: "volatile",
    TypeKind.RESTRICT: "restrict",
}
_TAG_NAMES: dict[int, str] = {
    TypeKind.STRUCT: "struct ",
    TypeKind.UNION: "union ",
    TypeKind.ENUM: "enum ",
    TypeKind.ENUM64: "enum ",
}


class Field(NamedTuple):
    """A member of a struct or union, wherever it is nested."""

    bit: int
    """Offset in bits from the beginning of the outermost struct."""
    bits: int
    """Width of a bitfield in bits; 0 for an ordinary member."""
    type: int
    """BTF id of its type."""


class Parameter(NamedTuple):
    """A parameter of a function."""

    name: str
    type: str
    """As C writes it: ``struct sk_buff *``; ``...`` for variable arguments."""


class Argument(NamedTuple):
    """A place where a function is handed a pointer that was looked for."""

    function: str
    position: int
    """From 0."""
    type: str
    """``sk_buff *`` or ``sk_buff **``, qualifiers left out."""


class _Handed(NamedTuple):
    """Where pointers to certain structs turn up in one BTF and its base."""

    spelled: dict[int, str]
    """Type id → ``sk_buff ``, ``sk_buff *``, ``sk_buff **``."""
    prototypes: dict[int, list[tuple[int, str]]]
    """Id of a function's prototype → positions and spellings of such parameters."""


_QUALIFIED = 64
"""Typedefs and qualifiers behind one another."""

_bounded = untrusted.boundary("the kernel's description of its types, BTF, is damaged", remedy="use another kernel")


class Btf:
    """The types of the kernel (:meth:`vmlinux`), or of a module on top of them (:meth:`module`).

    Names are those of the kernel's source. A struct's members may be dotted
    (``__sk_common.skc_cookie``); unions and structs without a name need not be written. Whatever
    this kernel does not have raises :class:`~harness.errors.Unsupported` with a sentence.
    """

    def __init__(self, data: bytes, base: Btf | None = None, name: str = "vmlinux") -> None:
        self.name = name
        self._base = base
        self._first_id: int = len(base) if base else 0
        self._first_string: int = base._first_string + len(base._strings) if base else 0
        with untrusted.boundary(f"the BTF of {self.name} is damaged", remedy="use another kernel"):
            self._index(self._sections(data))
        self._names_known: dict[frozenset[TypeKind], dict[bytes, int]] = {}
        self._handed_known: dict[tuple[str, ...], _Handed] = {}

    @classmethod
    def vmlinux(cls, folder: Path = FOLDER) -> Btf:
        """The kernel's own types; raises Unsupported where it was built without BTF."""
        try:
            return cls((folder / "vmlinux").read_bytes())
        except OSError as error:
            raise Unsupported(
                f"the kernel does not describe its types: {folder / 'vmlinux'}: {error.strerror}",
                remedy="use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            ) from None

    @classmethod
    def module(cls, name: str, base: Btf, folder: Path = FOLDER) -> Btf:
        """The types of a loaded module, which build on ``base``; what it lacks is looked up there.

        Raises Unsupported when the module is not loaded or has no BTF.
        """
        try:
            return cls((folder / name).read_bytes(), base, name)
        except OSError as error:
            raise Unsupported(
                f"module {name} does not describe its types: {folder / name}: {error.strerror}",
                remedy=f"run modprobe {name}; the kernel must be built with CONFIG_DEBUG_INFO_BTF_MODULES=y",
            ) from None

    def __len__(self) -> int:
        """The id after the last type's; ids of a module go on where the kernel's end."""
        return self._first_id + len(self._positions)

    def __repr__(self) -> str:
        return f"<Btf {self.name}: {len(self._positions)} types>"

    # -- what the tracer asks ---------------------------------------------------------------------

    def has(self, name: str, member: str = "") -> bool:
        """Whether there is a struct or union ``name`` and, when given, ``member`` in it."""
        try:
            if member:
                self.field(name, member)
            else:
                self._struct(name)
        except Unsupported:
            return False
        return True

    @_bounded
    def size(self, name: str) -> int:
        """Size of a struct or union in bytes."""
        btf, at = self._locate(self._struct(name))
        return btf._words[at + 2]

    def offset(self, name: str, member: str) -> int:
        """Offset of ``member`` in struct or union ``name``, in bytes."""
        field = self.field(name, member)
        if field.bits or field.bit % 8:
            raise Unsupported(f"{name}.{member} is a bitfield in this kernel, it has no address")
        return field.bit // 8

    def bitfield(self, name: str, member: str) -> tuple[int, int]:
        """Offset and width of a bitfield, both in bits; an ordinary member counts as one of its whole width."""
        field = self.field(name, member)
        return field.bit, field.bits or 8 * self.sizeof(field.type)

    @_bounded
    def field(self, name: str, member: str) -> Field:
        """The member of struct or union ``name`` with a simple or dotted name."""
        type_id = self._struct(name)
        bit = 0
        field = None
        for part in member.split("."):
            field = self._member(type_id, part.encode() + b"\0")
            if field is None:
                raise Unsupported(f"struct {name} has no member {member!r} in this kernel")
            bit += field.bit
            type_id = field.type
        assert field is not None  # split() gives at least one part
        return Field(bit, field.bits, field.type)

    def member_size(self, name: str, member: str) -> int:
        """Size of ``member`` of struct or union ``name`` in bytes."""
        return self.sizeof(self.field(name, member).type)

    @_bounded
    def enum(self, name: str) -> dict[int, str]:
        """The values of an enum and their names; of two names with one value the last is given."""
        found = self._find(_ENUMS, name)
        if found is None:
            raise Unsupported(f"this kernel has no enum {name}")
        btf, at = self._locate(found)
        info = btf._words[at + 1]
        start, count = at + _HEADER_WORDS, info & _VLEN
        wide = btf._kind(found) == TypeKind.ENUM64
        if not wide:
            rows = btf._words[start : start + 2 * count].tobytes()
            pairs = struct.iter_unpack("=Ii" if info >> 31 else "=II", rows)
        else:
            rows = btf._words[start : start + 3 * count].tobytes()
            pairs = struct.iter_unpack("=Iq" if info >> 31 else "=IQ", rows)
        return {value: btf._text(name) for name, value in pairs}

    @_bounded
    def parameters(self, function: str) -> tuple[Parameter, ...]:
        """The parameters of a function, in order."""
        found = self._find(_FUNCTIONS, function)
        if found is None:
            raise Unsupported(f"the BTF of {self.name} has no function {function}")
        btf, at = self._locate(found)
        btf, at = btf._locate(btf._words[at + 2])
        count = btf._words[at + 1] & _VLEN
        rows = btf._words[at + _HEADER_WORDS : at + _HEADER_WORDS + 2 * count]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        return tuple(Parameter(btf._text(name), btf._spell(kind) if kind else "...") for name, kind in pairs)

    @_bounded
    def function(self, name: str) -> int:
        """Number of one of this BTF's own functions, by which programs are loaded for it."""
        found = self._names(_FUNCTIONS).get(name.encode())
        if found is None:
            raise Unsupported(f"the BTF of {self.name} has no function {name}")
        return found

    @_bounded
    def arguments(self, structs: Sequence[str]) -> list[Argument]:
        """Where functions are handed a pointer to one of ``structs``, or a pointer to such a pointer.

        Only functions of this BTF itself, not of its base; a function handed several comes several times.
        """
        return list(self._arguments(structs))

    def _arguments(self, structs: Sequence[str]) -> Iterator[Argument]:
        prototypes = self._handed(tuple(structs)).prototypes
        words, text = self._words, self._text
        for _, at in self._of(_FUNCTIONS):
            if found := prototypes.get(words[at + 2]):
                name = text(words[at])
                for position, spelled in found:
                    yield Argument(name, position, spelled)

    @_bounded
    def sizeof(self, type_id: int) -> int:
        """Size of a type in bytes; a pointer has that of the kernel's word."""
        type_id = self._bare(type_id)
        btf, at = self._locate(type_id)
        kind = btf._kind(type_id)
        if kind == TypeKind.PTR:
            return struct.calcsize("P")
        if kind == TypeKind.ARRAY:
            element, _, count = btf._words[at + 3 : at + 6]
            return count * btf.sizeof(element)
        if kind in (TypeKind.VOID, TypeKind.FWD, TypeKind.FUNC_PROTO):
            return 0
        return btf._words[at + 2]

    # -- reading ----------------------------------------------------------------------------------

    def _sections(self, data: bytes) -> bytes:
        """Keep the sections of types and strings; return that of the kinds' layout, if any."""
        try:
            magic, version, _, header, types, types_length, strings, strings_length = _HEADER.unpack_from(data)
        except struct.error:
            raise Unsupported(f"the BTF of {self.name} is cut short ({len(data)} bytes)") from None
        if magic != _MAGIC or version != 1:
            raise Unsupported(f"the BTF of {self.name} is of an unknown kind (magic {magic:#x}, version {version})")
        end = header + max(types + types_length, strings + strings_length)
        if len(data) < end:
            raise Unsupported(f"the BTF of {self.name} is cut short ({len(data)} of {end} bytes)")
        self._words = array("I", data[header + types : header + types + types_length])
        self._strings = data[header + strings : header + strings + strings_length]
        if header < _HEADER.size + _LAYOUT.size:
            return b""
        layout, length = _LAYOUT.unpack_from(data, _HEADER.size)
        return data[header + layout : header + layout + length]

    def _index(self, layout: bytes) -> None:
        """Note where each type begins, and its kind.

        The one loop over all types, run under emulation too: its body counts.
        """
        fixed = [_HEADER_WORDS] * 256
        element = [0] * 256
        for kind, count in _INFO_WORDS.items():
            fixed[kind] += count
        for kind, count in _ELEMENT_WORDS.items():
            element[kind] = count
        # A kernel that knows more kinds than we do says how long they are.
        for number, (info, each, _flags) in enumerate(struct.iter_unpack("=BBH", layout)):
            if number > max(TypeKind):
                fixed[number], element[number] = _HEADER_WORDS + info // 4, each // 4
        fixed[_KIND_FLAG:] = fixed[:_KIND_FLAG]
        element[_KIND_FLAG:] = element[:_KIND_FLAG]

        words = self._words
        positions: list[int] = []
        kinds = bytearray()
        if self._base is None:  # id 0 is void and is not written down
            positions.append(0)
            kinds.append(TypeKind.VOID)
        add_position, add_kind = positions.append, kinds.append
        at, end = 0, len(words)
        try:
            while at < end:
                add_position(at)
                info = words[at + 1]
                head = info >> 24
                add_kind(head)
                at += fixed[head] + element[head] * (info & 0xFFFFFF)
        except IndexError:
            at = -1
        if at != end:
            raise Unsupported(f"the BTF of {self.name} is damaged: its last type does not end where they all do")
        self._positions = positions
        self._kinds = bytes(kinds).translate(bytes(kind & ~_KIND_FLAG for kind in range(256)))

    # -- looking up -------------------------------------------------------------------------------

    def _of(self, kinds: AbstractSet[TypeKind]) -> Iterator[tuple[int, int]]:
        """Id and position of each type of these kinds, the base's left out."""
        mask = self._kinds.translate(bytes(kind in kinds for kind in range(256)))
        return compress(enumerate(self._positions, self._first_id), mask)

    def _locate(self, type_id: int) -> tuple[Btf, int]:
        """The BTF that holds a type, and the type's position there."""
        btf = self
        while type_id < btf._first_id:
            assert btf._base is not None  # only a module's ids begin above 0
            btf = btf._base
        return btf, btf._positions[type_id - btf._first_id]

    def _kind(self, type_id: int) -> int:
        """The kind of one of this BTF's own types."""
        return self._kinds[type_id - self._first_id]

    def _bare(self, type_id: int) -> int:
        """Id of the type behind typedefs and qualifiers."""
        for _ in range(_QUALIFIED):
            btf, at = self._locate(type_id)
            if btf._kind(type_id) not in _QUALIFIERS:
                return type_id
            type_id = btf._words[at + 2]
        raise ValueError(type_id)

    def _text(self, offset: int) -> str:
        btf = self
        while offset < btf._first_string:
            assert btf._base is not None
            btf = btf._base
        offset -= btf._first_string
        return btf._strings[offset : btf._strings.index(0, offset)].decode()

    def _names(self, kinds: frozenset[TypeKind]) -> dict[bytes, int]:
        """Name → id of this BTF's own types of these kinds; the first of several with one name."""
        if (known := self._names_known.get(kinds)) is not None:
            return known
        words, strings, first = self._words, self._strings, self._first_string
        names: dict[bytes, int] = {}
        for type_id, at in self._of(kinds):
            offset = words[at] - first
            if offset >= 0:
                names.setdefault(strings[offset : strings.index(0, offset)], type_id)
            else:  # a module's type with a name that is also in its base
                names.setdefault(self._text(words[at]).encode(), type_id)
        return self._names_known.setdefault(kinds, names)

    def _find(self, kinds: frozenset[TypeKind], name: str) -> int | None:
        """Id of a type by name; the base's goes before a module's, as in the kernel's own look-up."""
        if self._base is not None and (found := self._base._find(kinds, name)) is not None:
            return found
        return self._names(kinds).get(name.encode())

    def _struct(self, name: str) -> int:
        """Id of a struct or union, also of one that has only a typedef's name."""
        found = self._find(_STRUCTS, name)
        if found is None and (alias := self._find(_TYPEDEFS, name)) is not None:
            found = self._bare(alias)
            btf, _ = self._locate(found)
            if btf._kind(found) not in _STRUCTS:
                found = None
        if found is None:
            raise Unsupported(f"the BTF of {self.name} has no struct {name}")
        return found

    def _member(self, type_id: int, name: bytes) -> Field | None:
        """The member of a struct; ``name`` ends with a zero byte, as the strings of BTF do."""
        type_id = self._bare(type_id)
        btf, at = self._locate(type_id)
        if btf._kind(type_id) not in _STRUCTS:
            return None
        words = btf._words
        info = words[at + 1]
        for member in range(at + _HEADER_WORDS, at + _HEADER_WORDS + 3 * (info & _VLEN), 3):
            label, member_type, bit = words[member : member + 3]
            bits = 0
            if info >> 31:
                bit, bits = bit & 0xFFFFFF, bit >> 24
            if not label:
                if inner := btf._member(member_type, name):
                    return Field(bit + inner.bit, inner.bits, inner.type)
            elif btf._named(label, name):
                return Field(bit, bits, member_type)
        return None

    def _named(self, offset: int, name: bytes) -> bool:
        """Whether the string at ``offset`` is ``name``, without making an object of it."""
        btf = self
        while offset < btf._first_string:
            assert btf._base is not None
            btf = btf._base
        return btf._strings.startswith(name, offset - btf._first_string)

    def _handed(self, structs: tuple[str, ...]) -> _Handed:
        """Types that lead to one of ``structs``, and prototypes with parameters of such a type."""
        if (known := self._handed_known.get(structs)) is not None:
            return known
        spelled: dict[int, str] = {}
        prototypes: dict[int, list[tuple[int, str]]] = {}
        if self._base is not None:
            base = self._base._handed(structs)
            spelled.update(base.spelled)
            prototypes.update(base.prototypes)
        words = self._words
        names = self._names(_STRUCTS)
        spelled.update({names[key]: f"{name} " for name in structs if (key := name.encode()) in names})
        links = [(type_id, words[at + 2], "*") for type_id, at in self._of({TypeKind.PTR})]
        links += [(type_id, words[at + 2], "") for type_id, at in self._of(_QUALIFIERS)]
        while found := {
            type_id: spelled[target] + star
            for type_id, target, star in links
            if target in spelled and type_id not in spelled
        }:
            spelled.update(found)
        pointers = {type_id: text for type_id, text in spelled.items() if text.endswith("*")}
        keys = pointers.keys()
        for type_id, at in self._of({TypeKind.FUNC_PROTO}):
            start = at + _HEADER_WORDS
            types = words[start + 1 : start + 2 * (words[at + 1] & _VLEN) : 2]
            if not keys.isdisjoint(types):
                prototypes[type_id] = [(n, pointers[kind]) for n, kind in enumerate(types) if kind in pointers]
        return self._handed_known.setdefault(structs, _Handed(spelled, prototypes))

    def _spell(self, type_id: int) -> str:
        """A type as C writes it, arrays and function pointers in short."""
        btf, at = self._locate(type_id)
        kind = btf._kind(type_id)
        if kind == TypeKind.VOID:
            return "void"
        name = btf._text(btf._words[at])
        target = btf._words[at + 2]
        if kind == TypeKind.PTR:
            inner = btf._spell(target)
            return inner + ("*" if inner.endswith("*") else " *")
        if kind == TypeKind.ARRAY:
            return f"{btf._spell(btf._words[at + 3])} [{btf._words[at + 5]}]"
        if kind in _QUALIFIER_NAMES:
            inner = btf._spell(target)
            word = _QUALIFIER_NAMES[kind]
            return f"{inner} {word}" if inner.endswith("*") else f"{word} {inner}"
        if kind == TypeKind.TYPE_TAG:
            return btf._spell(target)
        if kind == TypeKind.FUNC_PROTO:
            return f"{btf._spell(target)} ()"
        if kind == TypeKind.FWD:
            return f"{'union' if btf._words[at + 1] >> 31 else 'struct'} {name}"
        return _TAG_NAMES.get(kind, "") + (name or "{...}")
