from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from harness.errors import BrokenMeasurement, Unsupported
from harness.linux import bpf, modules
from harness.tracer import contract, engines, program
from harness.tracer.base import NF_TABLES_BTF, constants_of
from harness.tracer.survey import Survey


@pytest.fixture(scope="module")
def values() -> dict[str, int]:
    """The constants of the kernel that this test runs on."""
    if os.geteuid():
        pytest.skip("BCC makes the maps while it compiles, which needs root")
    modules.load()
    try:
        return constants_of(Survey())
    except Unsupported as lacking:
        pytest.skip(f"this kernel lacks type information: {lacking} ({NF_TABLES_BTF})")


@pytest.fixture(scope="module")
def compiled(values: dict[str, int]) -> program.Object:
    pytest.importorskip("bcc", reason="python3-bpfcc is not installed")
    return program.compile_object(values)


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_every_offset_is_one(values: dict[str, int]) -> None:
    assert values.keys() >= program.OFFSETS.keys()
    assert all(0 <= value < 1 << 16 for name, value in values.items())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kill -KILL $$", "the compiler of the BPF program was killed, as the kernel ends"),
        ("echo MemoryError >&2; exit 1", "the BPF program can't be compiled: this process may not have more memory"),
        (
            "echo 'OSError: libLLVM-14.so.1: failed to map segment from shared object' >&2; exit 1",
            "the BPF program can't be compiled: this process may not have more memory",
        ),
        (
            "echo 'Too many open files' >&2; exit 1",
            "can't be compiled: this process may not open more files; raise its",
        ),
    ],
)
def test_a_compiler_that_gets_no_memory_is_a_broken_measurement(
    command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a machine that is unable, where the scenario would be skipped."""
    (python := tmp_path / "python").write_text(f"#!/bin/sh\n{command}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(BrokenMeasurement, match=said):
        program.compile_object({})


def test_it_compiles_without_kernel_headers(compiled: program.Object) -> None:
    assert compiled.programs.keys() >= {"on_entry", "on_return", "on_return_alloc", "on_kfree_skb"}
    maps = {spec.name: spec for spec in compiled.maps}
    assert maps.keys() >= {"events", "packets", "namespaces", "senders", "traits", "counters"}
    for code in compiled.programs.values():
        assert len(code.instructions) % bpf.INSTRUCTION.size == 0
        assert set(code.maps.values()) <= maps.keys()
        assert set(code.maps) == set(bpf.map_loads(code.instructions))


def test_every_engine_has_the_same_programs(values: dict[str, int], compiled: program.Object) -> None:
    for constants in (engine.constants for engine in engines.ENGINES if engine.constants):
        other = program.compile_object({**values, **constants})
        assert other.programs.keys() == compiled.programs.keys()
        assert other.maps == compiled.maps


def test_it_survives_being_stored(compiled: program.Object) -> None:
    stored = msgspec.msgpack.encode(compiled)
    assert msgspec.msgpack.decode(stored, type=program.Object) == compiled


def test_it_loads_and_leaves_no_descriptor(compiled: program.Object) -> None:
    before = descriptors()
    with program.LoadedProgram(compiled, ring_bytes=os.sysconf("SC_PAGESIZE")) as loaded:
        loaded.program("on_kfree_skb", bpf.PROG_TYPE_RAW_TRACEPOINT)
        assert loaded.maps.keys() == {spec.name for spec in compiled.maps}
        loaded.maps["namespaces"][(7).to_bytes(4, "little")] = (1).to_bytes(4, "little")
        assert loaded.maps["namespaces"].get((7).to_bytes(4, "little")) == (1).to_bytes(4, "little")
        loaded.maps["namespaces"].clear()
        assert loaded.maps["namespaces"].items() == []
    assert descriptors() == before


@pytest.mark.parametrize(("kib", "size"), [(None, 8 << 20), (1, 4096), (4, 4096), (5, 8192), (8192, 8 << 20)])
def test_a_buffer_has_a_size_that_the_kernel_takes(kib: int | None, size: int) -> None:
    assert program.ring_bytes(kib) == size


@pytest.mark.parametrize(("function", "position", "pktinfo"), [(0, 0, False), (8191, 4, True)])
def test_cookies_hold_all_three(function: int, position: int, pktinfo: bool) -> None:
    cookie = program.cookie(function, position, pktinfo=pktinfo)
    assert (cookie & 0xFFFF, cookie >> 16 & 0xFF, bool(cookie & contract.COOKIE_PKTINFO)) == (
        function,
        position,
        pktinfo,
    )
