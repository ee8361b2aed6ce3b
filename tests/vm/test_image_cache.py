from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.vm import image_cache
from harness.vm.progress import silent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "nft-harness/kernels"


def test_one_changes_the_images_of_a_name_and_the_next_says_that_it_waits() -> None:
    steps: list[str] = []
    entered, waits = threading.Event(), threading.Event()

    def second() -> None:
        with image_cache.lock("6.1", lambda step, percent: (steps.append(step), waits.set())):
            entered.set()

    with image_cache.lock("6.1", silent):
        other = threading.Thread(target=second)
        other.start()
        assert waits.wait(10)
        assert not entered.is_set()
        with image_cache.lock("6.12", silent):  # of another name
            pass
    other.join(10)
    assert entered.is_set()
    assert steps == ["waiting for another process that fetches Linux 6.1"]


def test_a_workplace_is_gone_at_the_end_with_what_killed_processes_left(folder: Path) -> None:
    left, foreign = folder / ".6.1.killed", folder / ".6.12.working"
    for path in (left, foreign):
        (path / "tree").mkdir(parents=True)
    with image_cache.lock("6.1", silent):
        assert not left.exists()
        with image_cache.workplace("6.1") as work:
            (work / "tree").mkdir()
    assert sorted(path.name for path in folder.iterdir()) == [".6.1.lock", foreign.name]


def test_a_folder_that_cannot_be_written_to_is_a_sentence() -> None:
    with pytest.raises(Unsupported, match="No space left on device"), image_cache.written_to():
        raise OSError(28, "No space left on device")
