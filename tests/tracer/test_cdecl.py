"""C declarations made of Python's; a compiler compares the real ones in test_contract.py."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import pytest

from harness.tracer.cdecl import C, CEnum, enum_declaration, field_lines, layout, members, offsets, struct_declaration


class Colour(CEnum):
    RED = 1, "as blood"
    BLUE = 2


class Shape(NamedTuple):
    sides: Annotated[int, C("u32", "how many")]
    name: Annotated[bytes, C("char", length=8, bound="NAME_LEN")]
    note: str
    area: Annotated[int, C("s64")]


def test_an_enum() -> None:
    assert enum_declaration(Colour, "colour", "COLOUR_") == (
        "enum colour {\n\tCOLOUR_RED = 1,\t\t/* as blood */\n\tCOLOUR_BLUE = 2,\n};"
    )
    assert Colour.RED == 1
    assert Colour(2) is Colour.BLUE


def test_what_python_alone_knows_is_no_member() -> None:
    assert list(members(Shape)) == ["sides", "name", "area"]


def test_members_lie_one_behind_the_other() -> None:
    fields = members(Shape)
    assert layout(fields).size == 20
    assert offsets(fields) == {"sides": 0, "name": 4, "area": 12}
    assert layout(fields).pack(3, b"tri", -1) == b"\3\0\0\0tri\0\0\0\0\0" + b"\xff" * 8


def test_a_struct_in_the_kernels_style() -> None:
    assert struct_declaration("shape", field_lines(members(Shape))) == (
        "struct shape {\n\tu32 sides;\t\t/* how many */\n\tchar name[NAME_LEN];\n\ts64 area;\n};"
    )


def test_a_long_comment_goes_on_in_the_next_line() -> None:
    (line,) = field_lines({"sides": C("u32", "how many " * 12)})
    first, *rest = line.split("\n")
    assert first.startswith("\tu32 sides;\t\t/* how many")
    assert rest
    assert line.endswith(" */")
    assert max(len(one.expandtabs(8)) for one in (first, *rest)) <= 100


@pytest.mark.parametrize(
    ("member", "code"),
    [(C("u8"), "B"), (C("u16", length=3), "3H"), (C("u8", length=6), "6s"), (C("char", length=16), "16s")],
)
def test_arrays_of_bytes_are_bytes(member: C, code: str) -> None:
    assert member.format == code
