"""C declarations of Python enums and tuples, so that what BPF C and Python share is written down once.

An enum is a :class:`CEnum`; a struct is a dictionary of :class:`C` types by name, or a :class:`~typing.NamedTuple`
annotated with them. Structs must have no padding; ``tests/tracer/test_contract.py`` has a compiler compare both sides.
"""

from __future__ import annotations

import enum
import struct
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple, Self, get_args, get_type_hints

TAB, COLUMN, WIDTH = 8, 32, 100
"""Of the C source: width of a tab, where comments begin, and where lines end."""


class C(NamedTuple):
    """The C side of a struct's member."""

    type: str
    """``u64``, ``u32``, ``u16``, ``u8``, ``s64`` or ``char``."""
    text: str = ""
    """What it is, for a reader of the C source."""
    length: int | None = None
    """Elements of an array; None for a single value."""
    bound: str = ""
    """How C writes ``length``, when it has a name for it."""

    @property
    def format(self) -> str:
        """The member for :mod:`struct`; arrays of ``char`` and ``u8`` are bytes."""
        code = {"u64": "Q", "u32": "I", "u16": "H", "u8": "B", "s64": "q", "char": "s"}[self.type]
        if self.length is None:
            return code
        return f"{self.length}s" if self.type in ("u8", "char") else f"{self.length}{code}"


class CEnum(enum.IntEnum):
    """Numbers that C knows as an enum: each member is its number and what it means."""

    text: str

    def __new__(cls, value: int, text: str = "") -> Self:
        """``text`` is for the reader of the C source."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member


def members(declared: type[Any]) -> dict[str, C]:
    """The members of a tuple that C knows, in order."""
    hints = get_type_hints(declared, include_extras=True)
    known = {name: [one for one in get_args(hints[name]) if isinstance(one, C)] for name in declared._fields}
    return {name: types[0] for name, types in known.items() if types}


def layout(fields: Mapping[str, C]) -> struct.Struct:
    """How members lie in memory (little-endian, no padding)."""
    return struct.Struct("<" + "".join(member.format for member in fields.values()))


def offsets(fields: Mapping[str, C]) -> dict[str, int]:
    """Offset of each member, bytes."""
    sizes = [struct.calcsize(f"<{member.format}") for member in fields.values()]
    return dict(zip(fields, accumulate(sizes, initial=0), strict=False))


def enum_declaration(declared: type[CEnum], name: str, prefix: str) -> str:
    """``enum name { … };``, the members' names behind ``prefix``."""
    lines = [_line(f"{prefix}{member.name} = {member.value},", member.text) for member in declared]
    return "\n".join([f"enum {name} {{", *lines, "};"])


def struct_declaration(name: str, lines: Iterable[str]) -> str:
    """``struct name { … };`` of lines such as :func:`field_lines` gives."""
    return "\n".join([f"struct {name} {{", *lines, "};"])


def field_lines(fields: Mapping[str, C]) -> Iterator[str]:
    """A line for each member."""
    for name, member in fields.items():
        array = "" if member.length is None else f"[{member.bound or member.length}]"
        yield _line(f"{member.type} {name}{array};", member.text)


def _line(declaration: str, text: str) -> str:
    """A declaration, and behind it the comment ``text``, in the kernel's style."""
    if not text:
        return f"\t{declaration}"
    first, *rest = textwrap.wrap(text, WIDTH - COLUMN - len("/*  */"))
    tabs = "\t" * max(1, (COLUMN - TAB - len(declaration) + TAB - 1) // TAB)
    margin = "\t" * (COLUMN // TAB) + "   "
    return "".join([f"\t{declaration}{tabs}/* {first}", *(f"\n{margin}{line}" for line in rest), " */"])
