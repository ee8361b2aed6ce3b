"""The types in a BTF section: where each begins, of what kind it is, and how it is found by name.

Most of vmlinux's 120,000 types are never looked up. They are therefore not turned into objects: one pass records
where each begins and of what kind it is, everything else is decoded on demand from the words as they are in memory.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import compress
from typing import NamedTuple, Self

from harness import untrusted
from harness.errors import Unsupported

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_LAYOUT = struct.Struct("=II")
HEADER_WORDS = 3
"""``struct btf_type``: name, info, and size or type."""
VLEN = 0xFFFFFF
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

STRUCTS = frozenset({TypeKind.STRUCT, TypeKind.UNION})
ENUMS = frozenset({TypeKind.ENUM, TypeKind.ENUM64})
_TYPEDEFS = frozenset({TypeKind.TYPEDEF})
FUNCTIONS = frozenset({TypeKind.FUNC})
QUALIFIERS = frozenset({TypeKind.TYPEDEF, TypeKind.VOLATILE, TypeKind.CONST, TypeKind.RESTRICT, TypeKind.TYPE_TAG})
_QUALIFIED = 64
"""Most typedefs and qualifiers in a row; more are a circle in damaged data."""


class Member(NamedTuple):
    """A member of a struct or union, wherever it is nested."""

    bit: int
    """Offset in bits from the beginning of the outermost struct."""
    bits: int
    """Width of a bitfield in bits; 0 for an ordinary member."""
    type: int
    """BTF id of its type."""


class Types:
    """A BTF section; with ``base``, that of a module, whose ids and strings continue those of the kernel."""

    def __init__(self, data: bytes, base: Self | None = None, name: str = "vmlinux") -> None:
        self.name = name
        self._base = base
        self._first_id: int = len(base) if base else 0
        self._first_string: int = base._first_string + len(base._strings) if base else 0
        with untrusted.boundary(f"the BTF of {self.name} is damaged", remedy="use another kernel"):
            self._index(self._sections(data))
        self._names_known: dict[frozenset[TypeKind], dict[bytes, int]] = {}

    def __len__(self) -> int:
        """The id after the last type's; ids of a module continue those of the kernel."""
        return self._first_id + len(self._positions)

    # -- reading ----------------------------------------------------------------------------------

    def _sections(self, data: bytes) -> bytes:
        """Store the sections of types and strings; return the section with the layout of kinds, if any."""
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
        """Record where each type begins, and its kind.

        The only loop over all types; it also runs under emulation, so its body is kept short.
        """
        fixed = [HEADER_WORDS] * 256
        element = [0] * 256
        for kind, count in _INFO_WORDS.items():
            fixed[kind] += count
        for kind, count in _ELEMENT_WORDS.items():
            element[kind] = count
        # A kernel with kinds not listed here states how long they are.
        for number, (info, each, _flags) in enumerate(struct.iter_unpack("=BBH", layout)):
            if number > max(TypeKind):
                fixed[number], element[number] = HEADER_WORDS + info // 4, each // 4
        fixed[_KIND_FLAG:] = fixed[:_KIND_FLAG]
        element[_KIND_FLAG:] = element[:_KIND_FLAG]

        words = self._words
        positions: list[int] = []
        kinds = bytearray()
        if self._base is None:  # id 0 is void and is not in the section
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
            raise Unsupported(f"the BTF of {self.name} is damaged: its last type exceeds the section")
        self._positions = positions
        self._kinds = bytes(kinds).translate(bytes(kind & ~_KIND_FLAG for kind in range(256)))

    # -- looking up -------------------------------------------------------------------------------

    def _of(self, kinds: AbstractSet[TypeKind]) -> Iterator[tuple[int, int]]:
        """Id and position of each type of these kinds, the base's left out."""
        mask = self._kinds.translate(bytes(kind in kinds for kind in range(256)))
        return compress(enumerate(self._positions, self._first_id), mask)

    def _locate(self, type_id: int) -> tuple[Self, int]:
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
            if btf._kind(type_id) not in QUALIFIERS:
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
        """Id of a type by name; the base's takes precedence over a module's, as in the kernel's own lookup."""
        if self._base is not None and (found := self._base._find(kinds, name)) is not None:
            return found
        return self._names(kinds).get(name.encode())

    def _struct(self, name: str) -> int:
        """Id of a struct or union, also of an anonymous one with a typedef."""
        found = self._find(STRUCTS, name)
        if found is None and (alias := self._find(_TYPEDEFS, name)) is not None:
            found = self._bare(alias)
            btf, _ = self._locate(found)
            if btf._kind(found) not in STRUCTS:
                found = None
        if found is None:
            raise Unsupported(f"the BTF of {self.name} has no struct {name}")
        return found

    def _member(self, type_id: int, name: bytes) -> Member | None:
        """The member of a struct; ``name`` ends with a zero byte, as the strings of BTF do."""
        type_id = self._bare(type_id)
        btf, at = self._locate(type_id)
        if btf._kind(type_id) not in STRUCTS:
            return None
        words = btf._words
        info = words[at + 1]
        for member in range(at + HEADER_WORDS, at + HEADER_WORDS + 3 * (info & VLEN), 3):
            label, member_type, bit = words[member : member + 3]
            bits = 0
            if info >> 31:
                bit, bits = bit & 0xFFFFFF, bit >> 24
            if not label:
                if inner := btf._member(member_type, name):
                    return Member(bit + inner.bit, inner.bits, inner.type)
            elif btf._named(label, name):
                return Member(bit, bits, member_type)
        return None

    def _named(self, offset: int, name: bytes) -> bool:
        """Whether the string at ``offset`` is ``name``, without creating an object for it."""
        btf = self
        while offset < btf._first_string:
            assert btf._base is not None
            btf = btf._base
        return btf._strings.startswith(name, offset - btf._first_string)
