from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from harness import untrusted
from harness.untrusted import Unreadable


def test_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"text\xff")
    assert untrusted.read(file, 5) == b"text\xff"
    assert os.fsencode(untrusted.read_text(file, 5)) == b"text\xff"


def test_larger_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(Unreadable, match="larger than 2 KiB"):
        untrusted.read(file, 2048)


def test_file_without_a_size_is_read_no_further_than_the_limit() -> None:
    with pytest.raises(Unreadable, match="larger than 10 bytes"):
        untrusted.read(Path("/proc/kallsyms"), 10)


def test_file_without_a_size_is_read_to_its_end() -> None:
    """In many pieces."""
    symbols = Path("/proc/kallsyms")
    assert untrusted.read(symbols, 64 << 20).count(b"\n") == symbols.read_bytes().count(b"\n") > untrusted.PIECE // 100


def test_file_that_grows_once_its_size_is_known_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    (file := tmp_path / "a").write_bytes(b"before")

    def allowed(real: Path) -> bool:
        with real.open("ab") as stream:
            stream.write(b"after" * 10)
        return True

    with pytest.raises(Unreadable, match="larger than 10 bytes"):
        untrusted.read(file, 10, allowed=allowed)


@pytest.mark.parametrize("path", ["short", "/proc/self/status"])
def test_no_more_memory_is_taken_than_the_file_holds(path: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("text")
    tracemalloc.start()
    try:
        untrusted.read(tmp_path / path, 64 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_content_of_a_large_file_is_in_memory_once(tmp_path: Path) -> None:
    (file := tmp_path / "a").write_bytes(bytes(8 << 20))
    tracemalloc.start()
    try:
        assert len(untrusted.read(file, 64 << 20)) == 8 << 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 9 << 20


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(Unreadable, match="is a FIFO"):
        untrusted.read(tmp_path / "a", 10)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, kind in (
        (tmp_path, "a directory"),
        (tmp_path / "socket", "a socket"),
        (Path("/dev/zero"), "a character device"),
        (tmp_path / "link", "a character device"),
    ):
        with pytest.raises(Unreadable, match=kind):
            untrusted.read(path, 10)


def test_missing_file_names_that_no_file_has_and_circles_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for name, sentence in (
        ("none", "no such file"),
        ("a\0b", "no file can have"),
        ("\ud800", "no file can have"),
        ("x" * 300, "too long"),
        ("circle", "symbolic links"),
    ):
        with pytest.raises(Unreadable, match=sentence):
            untrusted.read(tmp_path / name, 10)


def test_allowed_is_asked_for_the_file_behind_all_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    (inside / "file").write_text("file")
    (inside / "alias").symlink_to("file")

    def allowed(real: Path) -> bool:
        return real.is_relative_to(inside)

    for name in ("link", "folder/secret", "../outside/secret"):
        with pytest.raises(Unreadable, match="outside of the project"):
            untrusted.read(inside / name, 10, allowed=allowed)
    assert untrusted.read(inside / "alias", 10, allowed=allowed) == b"file"


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("text")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names alone
    untrusted.read(file, 10)
    for wrong in (tmp_path, file):
        with pytest.raises(Unreadable):
            untrusted.read(wrong, 1)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
