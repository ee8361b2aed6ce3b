"""Making templates when things go wrong; the guest is not one, but for the last test."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.cache import GUESTS, REMEDY, cache_dir
from harness.errors import HarnessError
from harness.vm import images, machine, making, microvm, template
from harness.vm.kernel_image import Image
from harness.vm.template import Template
from tests import trials
from tests.conftest import Soak
from tests.trials import HARNESS, SENDS, Trial, trial, wrong_with

PATIENCE_S = 300.0

MAKE = """
import sys, time
from pathlib import Path
from harness.errors import HarnessError
from harness.vm import making
from harness.vm.kernel_image import Image

def save(image, accelerator, memory, saved, files):
    with open("saves", "a") as log:
        log.write("x")
    with saved.ram.open("wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 16))
            file.flush()
    while not Path("go").exists():
        time.sleep(0.001)
    saved.state.write_bytes(b"devices")

making._save = save
making._used = lambda work: {}
image = Image(release="6.12.1", vmlinuz=Path("vmlinuz"), modules=Path("/"), config=None)
try:
    made = making.make(image, "tcg", 64, lambda what, _: print(what, flush=True))
    print(made.folder, flush=True)
except HarnessError as error:
    print(f"error: {error}", flush=True)
"""
"""Makes a template, of zeros, when a file "go" is in the working directory."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory for :data:`MAKE`; the cache folder is in it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "qemu-system-x86_64").write_text("#!/bin/sh\n")
    (programs / "qemu-system-x86_64").chmod(0o755)
    (tmp_path / "vmlinuz").write_text("a kernel")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def start(work: Path) -> Callable[[], subprocess.Popen[str]]:
    def started() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", MAKE], cwd=work, stdout=subprocess.PIPE, text=True)

    return started


def entries(work: Path) -> list[str]:
    """What is in the folder of the templates, without the lock."""
    return sorted(path.name for path in (work / "cache/nft-harness/templates").iterdir() if path.name != ".lock")


def test_two_at_once_make_one(work: Path, start: Callable[[], subprocess.Popen[str]]) -> None:
    first = start()
    assert first.stdout
    assert first.stdout.readline().startswith("saving a template of Linux 6.12.1")
    second = start()
    assert second.stdout
    assert second.stdout.readline() == "waiting for another process that saves a template\n"
    (work / "go").touch()
    outputs = [process.communicate(timeout=PATIENCE_S)[0] for process in (first, second)]
    (name,) = entries(work)
    assert [output.splitlines()[-1].rpartition("/")[2] for output in outputs] == [name, name]
    assert (work / "saves").read_text() == "x"
    assert template.all_templates() == [Template(folder=work / "cache/nft-harness/templates" / name)]


def test_one_that_is_killed_leaves_the_next_free(work: Path, start: Callable[[], subprocess.Popen[str]]) -> None:
    first = start()
    assert first.stdout
    first.stdout.readline()
    second = start()
    first.kill()
    first.communicate()
    (work / "go").touch()
    output, _ = second.communicate(timeout=PATIENCE_S)
    assert entries(work) == [output.splitlines()[-1].rpartition("/")[2]]


def test_what_one_left_that_was_killed_when_all_was_saved_is_removed(
    work: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    (work / "go").touch()
    start().communicate(timeout=PATIENCE_S)
    (name,) = entries(work)
    (work / "cache/nft-harness/templates" / f"{making._UNFINISHED}left").mkdir()
    output, _ = start().communicate(timeout=PATIENCE_S)
    assert entries(work) == [name]
    assert output.endswith(f"/{name}\n")


@pytest.mark.soak
def test_killed_at_any_instant(work: Path, start: Callable[[], subprocess.Popen[str]], soak: Soak) -> None:
    (work / "go").touch()
    for _ in soak.turns(8):
        killed = start()
        assert killed.stdout
        killed.stdout.readline()
        try:
            killed.wait(random.uniform(0, 0.05))
        except subprocess.TimeoutExpired:
            killed.kill()
        killed.communicate()
        # What is there now is a whole template or none: in neither case does it stand in the way of the next.
        output, _ = start().communicate(timeout=PATIENCE_S)
        (name,) = entries(work)
        assert output.endswith(f"/{name}\n")
        template.discard(template.named(name))
        assert entries(work) == []


COMMANDS = {
    "warm": [*HARNESS, "kernels", "warm", images.DEFAULT],
    "first run": [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nft-kernel", images.DEFAULT],
}
"""What makes a template: the second only on a terminal, before its scenarios."""
PROJECT = {
    "pytest.ini": "[pytest]\n",
    "t.nft": "table inet t { chain f { type filter hook forward priority 0; policy drop; }; }\n",
    "scenarios/t.yaml": "lab: router\nruleset: ../t.nft\nscenarios:\n"
    "  - {name: dropped, send: {from: client, to: server, udp: {dport: 9}}, expect: {verdict: drop}}\n",
}


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_a_real_one_ended_at_any_instant(
    name: str, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soak: Soak
) -> None:
    """By a signal, Ctrl-C or the death of one of its processes: no process, no file but whole templates is left."""
    if not soak.seconds:
        pytest.skip("a template takes a minute under emulation; ./run soak makes some")
    cache, project = tmp_path / "cache", tmp_path / "project"
    (cache / "nft-harness").mkdir(parents=True)
    if (learned := cache_dir() / GUESTS).is_dir():
        shutil.copytree(learned, cache / "nft-harness" / GUESTS)
    (cache / "nft-harness/kernels").symlink_to(cache_dir() / "kernels")
    for file, text in PROJECT.items():
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text(text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")  # as in a trial: a template's key has Python's variables
    monkeypatch.setattr(trials, "DEADLINE_S", PATIENCE_S)  # who loses a guest may boot another one
    folder = cache / "nft-harness/templates"

    def made(way: str, after: float) -> Trial:
        return trial(COMMANDS[name], SENDS[way], after, project, CI="")

    started = time.monotonic()
    undisturbed = made("SIGTERM", 2 * PATIENCE_S)
    took = time.monotonic() - started
    assert (undisturbed.status, undisturbed.left) == (0, ()), undisturbed.output
    (whole,) = template.all_templates()
    key = template.key(image, machine.machine("tcg", microvm.MEMORY, microvm.CPUS))
    chance = random.Random(seed := random.randrange(1 << 32))
    ends = Counter[str]()
    for _ in soak.turns(0):
        template.discard(whole)
        # What one killed has left is removed by the next that comes so far.
        unfinished = set(folder.glob(f"{making._UNFINISHED}*"))
        way, after = chance.choice(list(SENDS)), chance.random() * took
        one = made(way, after)
        said = f"{name}, {way} after {after:.2f} of {took:.0f} s (seed {seed})"
        wrong = wrong_with(one, way)
        assert not wrong, f"{said}: {wrong}\n{one.output}"
        left = set(folder.iterdir()) - unfinished - {folder / ".lock", whole.folder}
        assert not [path for path in left if way != "SIGKILL" or not path.name.startswith(making._UNFINISHED)], said
        for _ in template.all_templates():
            assert template.find(key) == whole, said
        ends[f"{way} {one.status}"] += 1
        print(f"{said}: {one.status} after {one.took_s:.1f} s more; {ends.total()} so far: {dict(ends)}", flush=True)
    undisturbed = made("SIGTERM", 2 * PATIENCE_S)
    assert (undisturbed.status, undisturbed.left) == (0, ()), undisturbed.output
    assert {path.name for path in folder.iterdir()} == {".lock", whole.name}
    command = [*microvm.wrapper(), "--start", whole.name, "--kernel", images.DEFAULT, "--exec", "uname", "-r"]
    restored = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    assert (restored.stdout, restored.stderr) == (f"{image.release}\n", "")


def test_one_that_was_half_deleted_is_made_again(work: Path, start: Callable[[], subprocess.Popen[str]]) -> None:
    (work / "go").touch()
    start().communicate(timeout=PATIENCE_S)
    (name,) = entries(work)
    (work / "cache/nft-harness/templates" / name / "about.json").unlink()
    output, _ = start().communicate(timeout=PATIENCE_S)
    assert output.endswith(f"/{name}\n")
    assert entries(work) == [name]


def test_the_least_recently_used_goes_first(work: Path, start: Callable[[], subprocess.Popen[str]]) -> None:
    (work / "go").touch()
    start().communicate(timeout=PATIENCE_S)
    (made,) = entries(work)
    folder = work / "cache/nft-harness/templates"
    for number in range(making.MOST):
        shutil.copytree(folder / made, folder / f"6.1-{number}")
        os.utime(folder / f"6.1-{number}", (number + 1, number + 1))
    shutil.rmtree(folder / made)
    start().communicate(timeout=PATIENCE_S)
    assert entries(work) == sorted([made, *(f"6.1-{number}" for number in range(1, making.MOST))])


@pytest.mark.parametrize(
    ("options", "reason"), [("size=1m", "No space left on device"), ("ro", "Read-only file system")]
)
def test_a_folder_that_takes_nothing_is_the_reason(work: Path, options: str, reason: str) -> None:
    (work / "go").touch()
    (work / "cache").mkdir()
    output = mounted(work / "cache", options, [sys.executable, "-c", MAKE], work)
    sentence = f"the cache folder {work}/cache/nft-harness can't be written to: {reason}; {REMEDY}"
    assert output.splitlines()[-2:] == [f"error: {sentence}", "left: 0"]


def mounted(place: Path, options: str, command: list[str], folder: Path) -> str:
    """The output of a command that finds a new tmpfs at ``place``, and how many files of templates are left there."""
    script = (
        f'mount -t tmpfs -o {options} tmpfs "$1" && shift && "$@"; '
        f'echo "left: $(find {place}/nft-harness/templates -type f -size +0 2>/dev/null | wc -l)"'
    )
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*unshare[:3], "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a process have mounts of its own")
    result = subprocess.run(
        [*unshare, str(place), *command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert result.stderr == ""
    return result.stdout


def test_without_a_home_folder_that_is_the_reason(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    image = Image(release="6.12.1", vmlinuz=work / "vmlinuz", modules=work, config=None)
    with pytest.raises(HarnessError, match="there is no home folder, and so no cache folder"):
        making.make(image, "tcg", 64)


def test_of_a_saved_guest_only_the_initramfs_is_zeroed(tmp_path: Path) -> None:
    given, ram = os.urandom(3 * mmap.PAGESIZE + 100), tmp_path / "ram"
    before, after = os.urandom(2 * mmap.PAGESIZE), os.urandom(mmap.PAGESIZE)
    archive = machine.memory_file("initramfs", given)
    try:
        ram.write_bytes(before + given + after)
        making._clear_archive(ram, archive, len(before), len(given))
        assert ram.read_bytes() == before + bytes(len(given)) + after
        # What the guest names is not the initramfs, or not all of it, or beyond its memory.
        for place, size in ((0, len(given)), (len(before), mmap.PAGESIZE), (1 << 31, len(given)), (0, 0)):
            ram.write_bytes(before + given + after)
            making._clear_archive(ram, archive, place, size)
            assert ram.read_bytes() == before + given + after
    finally:
        os.close(archive)


def test_memory_that_cannot_be_written_is_a_full_disk(work: Path) -> None:
    other = HarnessError("the guest could not be prepared")
    with subprocess.Popen(["sh", "-c", "kill -BUS $$"]) as qemu:
        assert os.strerror(errno.ENOSPC) in str(making._why(qemu, other))
    with subprocess.Popen(["sh", "-c", "kill -TERM $$"]) as qemu:
        assert making._why(qemu, other) is other


def test_a_guest_is_not_made_on_a_full_disk(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "from pathlib import Path\n"
        "from harness.vm import kernel_image, making, microvm\n"
        f"image = kernel_image.Image(release={image.release!r}, vmlinuz=Path({str(image.vmlinuz)!r}), "
        f"modules=Path({str(image.modules)!r}), config=None)\n"
        "try:\n"
        "    making.make(image, 'tcg', microvm.MEMORY)\n"
        "except Exception as error:\n"
        "    print(repr(error))\n"
    )
    output = mounted(tmp_path, "size=100m", [sys.executable, "-c", program], Path.cwd())
    assert "No space left on device" in output
    assert output.endswith("left: 0\n")


def test_of_what_a_guest_printed_the_sentence_is_told() -> None:
    """And of two outputs the first that has one; else the kernel's."""
    console = machine.memory_file("console", b"booting\nKernel panic - not syncing: Oops\nKernel Offset: disabled\n")
    try:
        for printed, said in (
            ((b"t.nft:3:1-4: Error: no\n  tcp\n  ^^^^\n", b"other\n"), "t.nft:3:1-4: Error: no"),
            ((b"", b"other\n"), "other"),
            ((b"", b""), "kernel panic, Oops"),
        ):
            with ExitStack() as stack:
                ports = []
                for text in printed:
                    here, there = socket.socketpair()
                    stack.enter_context(here)
                    there.sendall(text)
                    there.close()
                    ports.append(here)
                assert making._said(ports, console) == said
    finally:
        os.close(console)


@pytest.mark.parametrize(
    "parts",
    [
        "data zeros data",
        "zeros data",
        "data zeros",
        "data zeros hole zeros hole data",
        "zeros hole zeros hole zeros hole data",
        "data zeros hole data zeros hole zeros hole data zeros",
    ],
)
def test_zeros_take_no_disk_space_wherever_they_are_in_a_saved_memory(parts: str, tmp_path: Path) -> None:
    memory = tmp_path / "ram"
    part = 1 << 20
    with memory.open("wb") as file:
        for number, kind in enumerate(parts.split()):
            if kind != "hole":
                file.seek(number * part)
                file.write(bytes([kind == "data"]) * part)
    content = memory.read_bytes()
    making.dig_holes(memory)
    assert memory.read_bytes() == content
    assert memory.stat().st_blocks * 512 < parts.count("data") * part + part // 4  # the rest is the file system's
