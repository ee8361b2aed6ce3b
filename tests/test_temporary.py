"""Temporary folders, and what is left of them after a process was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import temporary

HOLDS = """\
import sys, time
from harness import temporary
with temporary.folder("test") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(temporary, "_YOUNG_S", -1.0)
    return tmp_path


def test_a_folder_is_removed_at_the_end(place: Path) -> None:
    with temporary.folder("test") as folder:
        (folder / "a").write_text("a")
        assert folder.parent == place.resolve()
    assert not list(place.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_one_of_its_kind(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        other = Path(process.stdout.readline().strip())
        with temporary.folder("test") as folder:
            assert {folder, other} == set(place.resolve().iterdir())  # a live one keeps its own
        process.send_signal(signal.SIGKILL)
    assert list(place.resolve().iterdir()) == [other]
    with temporary.folder("another"):
        assert other.exists()
    with temporary.folder("test") as folder:
        assert list(place.resolve().iterdir()) == [folder]


def test_a_folder_that_was_just_made_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_YOUNG_S", 60.0)
    (young := place / "nft-harness-test-young").mkdir()
    with temporary.folder("test"):
        assert young.exists()


def test_what_only_looks_like_a_folder_is_not_followed(place: Path) -> None:
    (elsewhere := place / "elsewhere").mkdir()
    (elsewhere / "a").write_text("a")
    (place / "nft-harness-test-link").symlink_to(elsewhere)
    with temporary.folder("test"):
        pass
    assert (elsewhere / "a").exists()
