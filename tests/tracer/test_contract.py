"""What Python declares of the BPF program is what a C compiler makes of the generated header."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.tracer import contract, program
from harness.tracer.cdecl import C, CEnum, layout, members, offsets
from harness.tracer.contract import CHAIN, PACKET, VIEW, Counter, Scope, Trait
from harness.tracer.events import (
    DEPTH,
    HEADER,
    RECORD,
    SNAP,
    SNAPPED_RECORD,
    STACK,
    VISITED_RECORD,
    Event,
    EventKind,
    EventWithBytes,
)

HEADER_FILE = program.SOURCES / "contract.h"
ENUMS: dict[str, type[CEnum]] = {"EVENT": EventKind, "TRAIT": Trait, "SCOPE": Scope, "COUNT": Counter}
STRUCTS: dict[str, Mapping[str, C]] = {"packet": PACKET, "chain": CHAIN, "packet_view": VIEW}


def compiled(folder: Path, prints: str, **defines: int) -> dict[str, int]:
    """Run a program that includes the header and prints lines of a name and a number."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler is installed")
    (folder / "layout.c").write_text(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"
        "typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32; typedef uint16_t u16; typedef uint8_t u8;\n"
        f'#include "{HEADER_FILE}"\n'
        '#define N(name, value) printf(name " %lld\\n", (long long)(value));\n'
        f"int main(void) {{ {prints} }}\n"
    )
    flags = [f"-D{name}={value}" for name, value in defines.items()]
    subprocess.run([compiler, *flags, "layout.c", "-o", "layout"], cwd=folder, check=True)
    lines = subprocess.run([folder / "layout"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: int(number) for name, _, number in (line.rpartition(" ") for line in lines)}


def of_struct(name: str, fields: Mapping[str, C]) -> str:
    """Print size and offsets."""
    places = "".join(f'N("{field}", offsetof(struct {name}, {field}))' for field in fields)
    return f'N("size", sizeof(struct {name})) {places}'


def test_the_committed_header_is_the_generated_one() -> None:
    assert HEADER_FILE.read_text() == contract.header() + "\n"


@pytest.mark.parametrize("name", STRUCTS)
def test_structs(tmp_path: Path, name: str) -> None:
    fields = STRUCTS[name]
    assert compiled(tmp_path, of_struct(name, fields)) == {"size": layout(fields).size, **offsets(fields)}


def test_events(tmp_path: Path) -> None:
    fields = members(Event)
    assert tuple(fields) == Event._fields
    assert compiled(tmp_path, of_struct("event", fields)) == {"size": layout(fields).size, **offsets(fields)}


def test_events_with_bytes(tmp_path: Path) -> None:
    fields = {**members(Event), **members(EventWithBytes)}
    assert tuple(fields) == EventWithBytes._fields
    found = compiled(tmp_path, of_struct("event", fields), SNAP=SNAP)
    assert found == {"size": layout(fields).size, **offsets(fields)}


@pytest.mark.parametrize(
    ("size", "defines"),
    [
        (RECORD.size, {}),
        (SNAPPED_RECORD.size, {"SNAP": SNAP}),
        (VISITED_RECORD.size, {"TRACEPOINTS": 1, "STACK_DEPTH": DEPTH}),
    ],
)
def test_records(tmp_path: Path, size: int, defines: dict[str, int]) -> None:
    assert compiled(tmp_path, 'N("size", sizeof(struct record))', **defines) == {"size": size - HEADER.size}


def test_a_record_at_a_tracepoint_has_its_stack_behind_the_event(tmp_path: Path) -> None:
    found = compiled(tmp_path, of_struct("record", STACK), TRACEPOINTS=1, STACK_DEPTH=DEPTH)
    before = layout(members(Event)).size
    assert found == {"size": VISITED_RECORD.size - HEADER.size} | {
        name: before + at for name, at in offsets(STACK).items()
    }


@pytest.mark.parametrize("prefix", ENUMS)
def test_enums(tmp_path: Path, prefix: str) -> None:
    values = {f"{prefix}_{member.name}": member.value for member in ENUMS[prefix]}
    assert compiled(tmp_path, "".join(f'N("{name}", {name})' for name in values)) == values


def test_numbers(tmp_path: Path) -> None:
    names = re.findall(r"#define (\w+) ", HEADER_FILE.read_text())
    assert "COOKIE_PKTINFO" in names
    found = compiled(tmp_path, "".join(f'N("{name}", {name})' for name in names))
    assert found == {name: getattr(contract, name) for name in names}


def test_nothing_of_the_contract_is_repeated_in_the_sources() -> None:
    """Neither a number nor a struct of the header is declared again by hand."""
    shared = set(re.findall(r"(?:#define|struct) (\w+) [^;\n]*\n", HEADER_FILE.read_text()))
    assert shared >= {"NAME_LEN", "event", "packet"}
    for source in program.SOURCES.glob("*.c"):
        assert not shared & set(re.findall(r"^(?:#define|struct) (\w+) [\w{(]", source.read_text(), re.M)), source.name


def test_every_source_says_what_it_hooks_and_what_it_emits() -> None:
    sources = {source.name: source.read_text() for source in program.SOURCES.glob("*.c")}
    used = {name for values in ((), ("LIVE",), ("TRACEPOINTS",)) for name in program.source_files(values)}
    assert used == {*sources, HEADER_FILE.name}
    for name, text in sources.items():
        opening = text[: text.index("*/")].lower()
        assert "hook" in opening, name
        assert "emits" in opening, name


def test_lines_are_as_long_as_the_kernel_allows() -> None:
    for source in (*program.SOURCES.glob("*.c"), HEADER_FILE):
        long = [line for line in source.read_text().splitlines() if len(line.expandtabs(8)) > 100]
        assert not long, source.name
