"""The cache folder, and what happens where it cannot be used."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cache

HARNESS = [sys.executable, "-m", "harness.cli"]
MOUNTS = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]


@pytest.fixture(autouse=True)
def said_nothing_yet() -> Iterator[None]:
    cache._say.cache_clear()
    yield
    cache._say.cache_clear()


class TestKeep:
    def test_a_file_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        place = tmp_path / "programs/a"
        assert cache.keep(place, b"old, and longer")
        assert cache.keep(place, b"new")
        assert place.read_bytes() == b"new"
        assert [path.name for path in place.parent.iterdir()] == ["a"]

    def test_what_a_killed_process_left_is_used(self, tmp_path: Path) -> None:
        (tmp_path / ".a.part").write_bytes(b"half of something that is longer")
        assert cache.keep(tmp_path / "a", b"whole")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"whole"}

    def test_many_at_once_leave_one_of_theirs(self, tmp_path: Path) -> None:
        contents = [bytes([number]) * 100_000 for number in range(16)]
        writers = [threading.Thread(target=cache.keep, args=(tmp_path / "a", content)) for content in contents]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert (tmp_path / "a").read_bytes() in contents
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_where_nothing_can_be_written_it_is_said_once(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        for name in ("a", "b"):
            assert not cache.keep(cache.cache_dir() / name, b"")
        assert capsys.readouterr().err == (
            f"nft-harness: the cache folder {tmp_path}/file/nft-harness can't be written to: Not a directory; what is "
            "learned is not kept, and each run takes longer (make room there, or set XDG_CACHE_HOME to a folder "
            "that you may write to)\n"
        )


def test_a_user_without_a_home_has_no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert cache.cache_dir() == cache.NOWHERE
    assert not cache.keep(cache.cache_dir() / "a", b"")
    assert cache.why_not(OSError(errno.ENOTDIR, "")) == "there is no home folder, and so no cache folder"


FAULTS = {
    "a file": "touch $C",
    "full": "mkdir -p $C; mount -t tmpfs -o size=12k none $C; head -c 1M /dev/zero >$C/rest 2>/dev/null || :",
    "read-only": "mkdir -p $C; mount -t tmpfs -o ro none $C",
    "no folder to make it in": "export C=/proc/none",
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Words before a command that run it with such a cache folder."""
    script = f"C={tmp_path}/cache; {FAULTS[request.param]}; export XDG_CACHE_HOME=$C"
    if subprocess.run([*MOUNTS, "exit 0"], capture_output=True).returncode:
        pytest.skip("this user may not mount anything, in no namespace")
    return [*MOUNTS, f'{script}; exec "$@"', "sh"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_images_are_listed_and_cannot_be_fetched(fault: list[str], tmp_path: Path) -> None:
    done = run([*fault, *HARNESS, "kernels", "list"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run([*fault, *HARNESS, "kernels", "fetch"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("nft-harness: error: ")
    assert "Traceback" not in done.stderr


def test_pytest_says_that_no_kernel_can_be_had(fault: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass")
    done = run([*fault, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nft-kernel", "6.12"], tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: nft-harness: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("fault", ["full"], indirect=True)
def test_a_guest_boots_all_the_same(fault: list[str], kernel: str, tmp_path: Path) -> None:
    from harness.vm import images

    image = images.find(kernel)
    assert image
    done = run([*fault, *HARNESS, "vm", "--kernel", str(image.vmlinuz), "--", "uname", "-r"], tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{image.release}\n")
    (said,) = done.stderr.splitlines()
    assert "what is learned is not kept" in said


def test_files_are_stored_whole_and_nothing_else_is(tmp_path: Path) -> None:
    name = f"host/6.12.1/{'a' * 32}.msgpack"
    cache.store(tmp_path, {name: b"new"})
    cache.store(tmp_path, {name: b"newer"})
    assert (tmp_path / name).read_bytes() == b"newer"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_a_guest_writes_nowhere_but_into_the_cache(tmp_path: Path) -> None:
    names = (
        "../outside",
        f"{tmp_path}/absolute",
        "guests/../survey.json",
        "guests/6.12.1/x",
        "survey.json",
        "kernels/x",
    )
    cache.store(tmp_path / "cache", dict.fromkeys((*names, "guests/6.12.1/survey.json"), b""))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "cache/guests/6.12.1/survey.json"]


def test_a_guest_adds_files_of_its_own_kernel_only() -> None:
    own = {"guests/6.12.1/survey.json": b"{}", cache.PRELOAD_LIST: b"/usr/bin/python3"}
    others = ("guests/6.1.0/survey.json", "host/6.12.1/survey.json", "guests/6.12.1/../../x", "preload/other.txt")
    assert cache.accepted_from_guest("6.12.1", own | dict.fromkeys(others, b"")) == own


def test_a_guest_that_sends_too_much_adds_nothing() -> None:
    large = {"guests/6.12.1/survey.json": bytes(cache.MAX_BYTES + 1)}
    many = {f"guests/6.12.1/{number:032x}.msgpack": b"" for number in range(cache.MAX_FILES + 1)}
    assert cache.accepted_from_guest("6.12.1", large) == cache.accepted_from_guest("6.12.1", many) == {}
