from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cache import accepted_from_guest, store
from harness.tracer import kernel_cache, program
from harness.tracer.kernel_cache import KernelCache

OBJECT = program.Object(
    maps=(program.MapSpec("events", 27, 0, 0, 4096),),
    programs={"on_entry": program.Code(b"\x95" + bytes(7), {})},
)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What the compiler was called with."""
    calls: list[dict[str, int]] = []

    def compile_object(values: dict[str, int]) -> program.Object:
        calls.append(values)
        return OBJECT

    monkeypatch.setattr(program, "compile_object", compile_object)
    return calls


def test_what_was_compiled_once_is_not_compiled_again(tmp_path: Path, compiled: list[dict[str, int]]) -> None:
    first = KernelCache(tmp_path)
    assert first.object({"SKB_DEV": 16}) == OBJECT
    store(tmp_path, first.news())
    again = KernelCache(tmp_path)
    assert again.object({"SKB_DEV": 16}) == OBJECT
    assert compiled == [{"SKB_DEV": 16}]
    assert again.news() == {}


def test_another_kernel_has_a_program_of_its_own(tmp_path: Path, compiled: list[dict[str, int]]) -> None:
    kept = KernelCache(tmp_path)
    kept.object({"SKB_DEV": 16})
    kept.object({"SKB_DEV": 24})
    assert len(compiled) == len(kept.news()) == 2


def test_other_sources_make_another_program(
    tmp_path: Path, compiled: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "bpf"
    sources.mkdir()
    (sources / "core.c").write_text("/* one */")
    monkeypatch.setattr(program, "SOURCES", sources)
    kept = KernelCache(tmp_path)
    kept.object({})
    (sources / "core.c").write_text("/* two */")
    kept.object({})
    assert len(kept.news()) == 2


def test_a_damaged_file_is_made_anew(tmp_path: Path, compiled: list[dict[str, int]]) -> None:
    kept = KernelCache(tmp_path)
    kept.object({})
    (name,) = kept.news()
    store(tmp_path, {name: b"\xc1 cut short"})
    assert KernelCache(tmp_path).object({}) == OBJECT
    assert len(compiled) == 2


def test_a_survey_that_is_not_this_kernels_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / KernelCache(tmp_path)._survey_name
    file.parent.mkdir(parents=True)
    file.write_bytes(b'{"identity": "of another kernel", "parts": {}}')
    assert KernelCache(tmp_path).news() == {}


def test_what_a_guest_learned_is_for_guests_with_its_kernel(
    tmp_path: Path, compiled: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_cache, "in_guest", lambda: True)
    (learned := KernelCache(tmp_path)).object({})
    news = learned.news()
    assert accepted_from_guest(os.uname().release, news) == news != {}
    store(tmp_path, news)
    KernelCache(tmp_path).object({})
    assert len(compiled) == 1
    monkeypatch.undo()
    monkeypatch.setattr(program, "compile_object", lambda values: compiled.append(values) or OBJECT)
    KernelCache(tmp_path).object({})
    assert len(compiled) == 2, "the host was given a program of a guest's"
