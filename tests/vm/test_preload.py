"""The list of files that a guest will read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.cache import PRELOAD_LIST, cache_dir
from harness.vm import preload


@pytest.fixture(autouse=True)
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cache_dir() / PRELOAD_LIST
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def test_without_a_list_nothing_is_preloaded() -> None:
    assert preload.files() == []


def test_regular_files_under_their_real_paths(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    names = [*(str(tmp_path / name) for name in ("link", "folder", "pipe", "gone")), "bad\0name", "/dev/zero"]
    listed.write_text("\n".join(names))
    assert preload.files() == [(tmp_path / "real").resolve()]


def test_a_guests_list_is_bounded(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("a", 6), ("b", 11), ("c", 6), ("d", 3), ("e", 1)):
        (tmp_path / name).write_bytes(bytes(size))
    listed.write_text("\n".join(str(tmp_path / name) for name in "abcde"))
    monkeypatch.setattr(preload, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(preload, "MAX_BYTES", 10)
    monkeypatch.setattr(preload, "MAX_FILES", 4)
    assert [file.name for file in preload.files()] == ["a", "d"]  # b is too large, c has no room, e is one too many


def test_what_this_process_uses_is_added_to_the_list_once(listed: Path) -> None:
    listed.write_text("/kept/by/another")
    (name, content) = next(iter(preload.news().items()))
    names = content.decode().splitlines()
    assert name == PRELOAD_LIST
    assert {"/kept/by/another", preload.__file__, os.__file__, os.path.realpath(sys.executable)} <= set(names)
    listed.write_bytes(content)
    assert preload.news() == {}
