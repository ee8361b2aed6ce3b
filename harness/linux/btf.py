"""BTF, the kernel's own description of its types and functions, read in plain Python.

The tracer looks up offsets such as that of ``sk_buff.dev``, and the functions that take a packet, so it needs neither
kernel headers nor a table of kernel versions. :mod:`harness.linux.btf_types` reads the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from harness import untrusted
from harness.errors import Unsupported
from harness.linux.btf_types import (
    ENUMS,
    FUNCTIONS,
    HEADER_WORDS,
    QUALIFIERS,
    STRUCTS,
    VLEN,
    Member,
    TypeKind,
    Types,
)

FOLDER = Path("/sys/kernel/btf")

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


class Parameter(NamedTuple):
    """A parameter of a function."""

    name: str
    type: str
    """As C writes it: ``struct sk_buff *``; ``...`` for variable arguments."""


class Argument(NamedTuple):
    """A parameter of a function that is a pointer to one of the given structs."""

    function: str
    position: int
    """From 0."""
    type: str
    """``sk_buff *`` or ``sk_buff **``, qualifiers left out."""


class _Pointers(NamedTuple):
    """Pointers to certain structs in one BTF and its base."""

    spelled: dict[int, str]
    """Type id → ``sk_buff ``, ``sk_buff *``, ``sk_buff **``."""
    prototypes: dict[int, list[tuple[int, str]]]
    """Id of a function's prototype → positions and spellings of such parameters."""


_bounded = untrusted.boundary("the kernel's description of its types, BTF, is damaged", remedy="use another kernel")


class Btf(Types):
    """The types of the kernel (:meth:`vmlinux`), or of a module on top of them (:meth:`module`).

    Names are those of the kernel's source. A struct's members may be dotted
    (``__sk_common.skc_cookie``); unions and structs without a name need not be written. Whatever
    this kernel does not have raises :class:`~harness.errors.Unsupported` with a sentence.
    """

    def __init__(self, data: bytes, base: Self | None = None, name: str = "vmlinux") -> None:
        super().__init__(data, base, name)
        self._pointers_known: dict[tuple[str, ...], _Pointers] = {}

    @classmethod
    def vmlinux(cls, folder: Path = FOLDER) -> Btf:
        """The types of the kernel itself.

        Raises :class:`~harness.errors.Unsupported` where the kernel was built without BTF.
        """
        try:
            return cls((folder / "vmlinux").read_bytes())
        except OSError as error:
            raise Unsupported(
                f"the kernel has no description of its types: {folder / 'vmlinux'}: {error.strerror}",
                remedy="use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            ) from None

    @classmethod
    def module(cls, name: str, base: Self, folder: Path = FOLDER) -> Btf:
        """The types of a loaded module on top of ``base``, in which all others are looked up.

        Raises :class:`~harness.errors.Unsupported` when the module is not loaded or has no BTF.
        """
        try:
            return cls((folder / name).read_bytes(), base, name)
        except OSError as error:
            raise Unsupported(
                f"there is no description of the types of module {name}: {folder / name}: {error.strerror}",
                remedy=f"run modprobe {name}; the kernel must be built with CONFIG_DEBUG_INFO_BTF_MODULES=y",
            ) from None

    def __repr__(self) -> str:
        return f"<Btf {self.name}: {len(self._positions)} types>"

    # -- structs, enums, functions ----------------------------------------------------------------

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
    def field(self, name: str, member: str) -> Member:
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
        return Member(bit, field.bits, field.type)

    def member_size(self, name: str, member: str) -> int:
        """Size of ``member`` of struct or union ``name`` in bytes."""
        return self.sizeof(self.field(name, member).type)

    @_bounded
    def enum(self, name: str) -> dict[int, str]:
        """The values of an enum and their names; of two names with one value the last is returned."""
        found = self._find(ENUMS, name)
        if found is None:
            raise Unsupported(f"this kernel has no enum {name}")
        btf, at = self._locate(found)
        info = btf._words[at + 1]
        start, count = at + HEADER_WORDS, info & VLEN
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
        found = self._find(FUNCTIONS, function)
        if found is None:
            raise Unsupported(f"the BTF of {self.name} has no function {function}")
        btf, at = self._locate(found)
        btf, at = btf._locate(btf._words[at + 2])
        count = btf._words[at + 1] & VLEN
        rows = btf._words[at + HEADER_WORDS : at + HEADER_WORDS + 2 * count]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        return tuple(Parameter(btf._text(name), btf._spell(kind) if kind else "...") for name, kind in pairs)

    @_bounded
    def function(self, name: str) -> int:
        """BTF id of one of this BTF's own functions, for loading a tracing program."""
        found = self._names(FUNCTIONS).get(name.encode())
        if found is None:
            raise Unsupported(f"the BTF of {self.name} has no function {name}")
        return found

    @_bounded
    def arguments(self, structs: Sequence[str]) -> list[Argument]:
        """Parameters of functions that are a pointer to one of ``structs``, or a pointer to such a pointer.

        Only of functions of this BTF itself, not of its base; a function with several is listed several times.
        """
        return list(self._arguments(structs))

    def _arguments(self, structs: Sequence[str]) -> Iterator[Argument]:
        prototypes = self._pointers(tuple(structs)).prototypes
        words, text = self._words, self._text
        for _, at in self._of(FUNCTIONS):
            if found := prototypes.get(words[at + 2]):
                name = text(words[at])
                for position, spelled in found:
                    yield Argument(name, position, spelled)

    @_bounded
    def sizeof(self, type_id: int) -> int:
        """Size of a type in bytes; a pointer has the size of a machine word."""
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

    def _pointers(self, structs: tuple[str, ...]) -> _Pointers:
        """Types that lead to one of ``structs``, and prototypes with parameters of such a type."""
        if (known := self._pointers_known.get(structs)) is not None:
            return known
        base = self._base._pointers(structs) if self._base is not None else _Pointers({}, {})
        spelled = self._spelled(structs, base.spelled)
        pointers = {type_id: text for type_id, text in spelled.items() if text.endswith("*")}
        prototypes = {**base.prototypes, **dict(self._prototypes(pointers))}
        return self._pointers_known.setdefault(structs, _Pointers(spelled, prototypes))

    def _spelled(self, structs: tuple[str, ...], known: Mapping[int, str]) -> dict[int, str]:
        """How C writes the types that lead to one of ``structs``, by number, besides those ``known`` of the base."""
        words, names = self._words, self._names(STRUCTS)
        spelled = {**known, **{names[key]: f"{name} " for name in structs if (key := name.encode()) in names}}
        links = [(type_id, words[at + 2], "*") for type_id, at in self._of({TypeKind.PTR})]
        links += [(type_id, words[at + 2], "") for type_id, at in self._of(QUALIFIERS)]
        while found := {
            type_id: spelled[target] + star
            for type_id, target, star in links
            if target in spelled and type_id not in spelled
        }:
            spelled.update(found)
        return spelled

    def _prototypes(self, pointers: Mapping[int, str]) -> Iterator[tuple[int, list[tuple[int, str]]]]:
        """The prototypes that have a parameter of a type in ``pointers``: the positions of these, from 0, and texts."""
        words, keys = self._words, pointers.keys()
        for type_id, at in self._of({TypeKind.FUNC_PROTO}):
            start = at + HEADER_WORDS
            types = words[start + 1 : start + 2 * (words[at + 1] & VLEN) : 2]
            if not keys.isdisjoint(types):
                yield type_id, [(n, pointers[kind]) for n, kind in enumerate(types) if kind in pointers]

    def _spell(self, type_id: int) -> str:
        """A type as C writes it, function pointers abbreviated."""
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
