"""Commands killed at random instants on the machine's own kernel: files are whole or absent, and nothing runs on.

Each is ended by SIGKILL, SIGTERM or Ctrl-C, or loses one of its processes (``tests/test_interrupts.py`` sends signals
to commands that boot a microVM). ``./run soak -k killed --minutes 10`` does it for ten minutes each, and prints how
often; ``-k disk`` has them run on disks of random sizes.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cache import cache_dir
from harness.vm import debian, images
from harness.vm.port import in_guest
from harness.wait import wait_until
from tests.bpf_objects import BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_NEXT_ID, identifiers
from tests.memory import with_memory
from tests.trials import HARNESS, RULESET, SENDS, files, left_by, make_project, torn, trial, wrong_with
from tests.vm.archive import Archive

if TYPE_CHECKING:
    from conftest import Soak

TRACER = ("--nft-tracer", "tracepoints")
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nft-kernel", "host", *TRACER, "-n", "0")
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": (*PYTEST, "--nft-repeat", "5", "--nft-results=results", "--nft-html=r.html", "--nft-sarif=r.sarif"),
    "record": (*PYTEST, "--nft-record"),
    "init": (*HARNESS, "init", "t.nft", "-o", "scenarios/new.yaml", "--kernel", "host", *TRACER),
    "diff": (*HARNESS, "diff", "t.nft", "u.nft", "--save", "scenarios/new.yaml", "--kernel", "host", *TRACER),
    "mutate": (*HARNESS, "mutate", "scenarios", "--save", "scenarios/new.yaml", "--nft-kernel", "host", *TRACER),
}
SPANS_S = (0.5, 1.5, 4.0)
"""An instant lies within one of these, each as often as the others: imports, the beginning and the work itself."""


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_files_of_a_command_that_is_killed_are_whole_or_absent(name: str, soak: Soak, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("root meets the machine's own kernel")
    chance = random.Random(seed := random.randrange(1 << 32))
    ends = Counter[str]()
    for turn in soak.turns(2):
        way, after = chance.choice(list(SENDS)), chance.random() * chance.choice(SPANS_S)
        project = make_project(tmp_path / str(turn))
        one = trial(list(COMMANDS[name]), SENDS[way], after, project, XDG_CACHE_HOME=str(tmp_path / "cache"))
        wrong = wrong_with(one, way) or torn(project)
        assert not wrong, f"{name}, {way} after {after:.2f} s (seed {seed}): {wrong}\n{one.output}"
        ends[f"{way} {one.status}"] += 1
        shutil.rmtree(project)
    print(f"{name}: {ends.total()} trials, {dict(ends)}")


LEAST_MIB = 128
"""Address space that Python needs to import what these commands do."""

FULL = """
mount -t tmpfs -o size="$SIZE" none /mnt && cp -r "$1/." /mnt && mkdir /mnt/temporary && cd /mnt && shift || exit 99
"$@"
status=$?
cp -r /mnt/. "$KEPT"
exit $status
"""
"""A command in a project on a disk of so many bytes, which only it sees; what is there at its end is copied."""


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_files_of_a_command_whose_disk_is_full_are_whole_or_absent(name: str, soak: Soak, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("root meets the machine's own kernel")
    chance = random.Random(seed := random.randrange(1 << 32))
    ends = Counter[int]()
    project = make_project(tmp_path / "project")
    for turn in soak.turns(1):
        size = chance.randint(32, chance.choice((64, 256, 1024, 4096))) << 10
        (kept := tmp_path / str(turn)).mkdir()
        disk = {"TMPDIR": "/mnt/temporary", "XDG_CACHE_HOME": "/mnt/cache", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", FULL, "sh", str(project), *COMMANDS[name]],
            env={**os.environ, **disk, "SIZE": str(size), "KEPT": str(kept), "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True,
        )
        said = f"{name} on {size} bytes (seed {seed}): {done.returncode}\n{done.stdout}{done.stderr}"
        if done.returncode == 99:
            pytest.skip(f"no file system can be mounted here: {done.stderr}")
        assert "Traceback" not in said, said
        assert done.returncode in (0, 1, 2, 6), said
        assert files(kept / "temporary") == [], said
        assert torn(kept) == "", said
        ends[done.returncode] += 1
        shutil.rmtree(kept)
    print(f"{name}: {ends.total()} trials, {dict(ends)}")


@pytest.mark.parametrize("most", [24, 40, 256])
def test_a_run_that_may_open_few_files_says_so_or_is_right(most: int, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("root meets the machine's own kernel")
    done = limited(f"--nofile={most}", PYTEST, make_project(tmp_path / "project"), tmp_path / "cache")
    said = f"{most} files: {done.returncode}\n{done.stdout}{done.stderr}"
    if done.returncode == 6:
        assert "this process may not open more files; raise its limit: ulimit -n 1024" in done.stdout, said
    else:
        assert "1 failed, 2 passed" in done.stdout, said
    assert (done.returncode == 1) >= (most == 256), said


def limited(limit: str, command: Sequence[str], project: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``project`` with an option of prlimit(1): no traceback, and no temporary file is left."""
    (temporary := project.with_suffix(".temporary")).mkdir()
    places = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        ["prlimit", limit, *command],
        cwd=project,
        env={**os.environ, **places, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    said = f"{limit}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in said, said
    assert files(temporary) == [], said
    return done


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_files_of_a_command_that_gets_no_memory_are_whole_or_absent(name: str, soak: Soak, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("root meets the machine's own kernel")
    chance = random.Random(seed := random.randrange(1 << 32))
    ends = Counter[int]()
    for turn in soak.turns(1):
        project = make_project(tmp_path / str(turn))
        size = chance.randint(LEAST_MIB, chance.choice((256, 512, 1024)))
        done = limited(f"--as={size << 20}", COMMANDS[name], project, tmp_path / "cache")
        said = f"{name} with {size} MiB (seed {seed}): {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode in (0, 1, 2, 3, 6), said
        assert torn(project) == "", said
        ends[done.returncode] += 1
        shutil.rmtree(project)
    print(f"{name}: {ends.total()} trials, {dict(ends)}")


LEAST_OF_CGROUP_MIB = 20
"""In less no Python starts."""
RIGHT = {"run": (10, 5), "run in a guest": (2, 1), "two guests": (2, 1)}
"""How many scenarios pass and fail in a run, at most: the third is wrong."""


def ended_by_memory(
    name: str, command: Sequence[str], mib: int, folder: Path, cache: Path
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run ``command`` with ``mib`` MiB for it and all that it starts; its end, and how many of them were killed.

    It ends as ever, with a sentence, or is killed itself. No process is left, no file torn, and nothing has passed that
    would not have.
    """
    project = make_project(folder / "project")
    (temporary := folder / "temporary").mkdir()
    places = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache), "PYTEST_ADDOPTS": ""}
    with with_memory(mib) as cgroup:
        done = cgroup.run(command, project, {**os.environ, **places})
        kills = cgroup.kills
    said = f"{name} with {mib} MiB: {done.returncode}, {kills} killed\n{done.stdout}{done.stderr}"
    is_killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert not is_killed or kills, said
    own = () if name == "run" else (4,) if name in RIGHT else (0,)  # 4: a guest did not come up
    assert is_killed or done.returncode in (1, 2, 3, 6, *own), said
    assert "Traceback" not in said, said
    assert done.returncode in (0, 1) or is_killed or re.search("memory|killed|ended|Cannot allocate", said), said
    passed, failed = RIGHT.get(name, (3, 3))
    for number, what in re.findall(r"(\d+) (passed|failed)\b", done.stdout):
        assert int(number) <= (passed if what == "passed" else failed), said
    assert torn(project) == "", said
    left = files(temporary)
    assert not [one for one in left if not kills or not one.startswith("nft-harness-")], f"{left}: {said}"
    shutil.rmtree(folder)
    return done, kills


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_cgroup_has_too_little_memory_leaves_nothing(name: str, soak: Soak, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("root meets the machine's own kernel")
    chance = random.Random(random.randrange(1 << 32))
    ends = Counter[str]()
    for turn in soak.turns(1):
        mib = chance.randint(LEAST_OF_CGROUP_MIB, 160)
        done, kills = ended_by_memory(name, COMMANDS[name], mib, tmp_path / str(turn), tmp_path / "cache")
        ends[f"{done.returncode}, {kills} killed"] += 1
    print(f"{name}: {ends.total()} trials, {dict(ends)}")


MANY = 400_000
"""Elements of a set of which nft needs more memory than pytest."""


def test_nft_that_is_killed_as_memory_is_short_is_a_broken_measurement(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("root meets the machine's own kernel")
    project = make_project(tmp_path / "project")
    elements = ", ".join(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(MANY))
    declared = f"\tset s {{ type ipv4_addr; elements = {{ {elements} }}; }}\n\tchain f"
    (project / "t.nft").write_text(RULESET.replace("\tchain f", declared))
    with with_memory(300) as cgroup:
        done = cgroup.run((*PYTEST, "-k", "s80"), project, {**os.environ, "PYTEST_ADDOPTS": ""})
        kills = cgroup.kills
    said = f"{done.returncode}, {kills} killed\n{done.stdout}{done.stderr}"
    assert kills == 1, said
    assert done.returncode == 6, said
    assert "ended with SIGKILL, as the kernel ends a process when memory is short" in done.stdout, said
    assert "1 error" in done.stdout, said


GUESTS = {
    "run in a guest": (*PYTEST[:5], "--nft-kernel", images.DEFAULT),
    "two guests": (*PYTEST[:5], "--nft-kernel", images.DEFAULT, "-n", "2"),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_whose_cgroup_has_too_little_memory_leaves_nothing(name: str, soak: Soak, tmp_path: Path) -> None:
    """The controller, the wrapper or QEMU is killed: the guest's memory is its."""
    if os.geteuid():
        pytest.skip("only root may limit the memory of a cgroup")
    if shutil.which("qemu-system-x86_64") is None or images.find(images.DEFAULT) is None:
        pytest.skip("QEMU or its kernel is not here")
    chance = random.Random(random.randrange(1 << 32))
    ends = Counter[str]()
    for turn in soak.turns(1):
        mib = chance.randint(40, 900) if soak.seconds else 150
        done, kills = ended_by_memory(name, GUESTS[name], mib, tmp_path / str(turn), cache_dir().parent)
        ends[f"{done.returncode}, {kills} killed"] += 1
    print(f"{name}: {ends.total()} trials, {dict(ends)}")


@pytest.mark.kernel
@pytest.mark.soak
def test_within_a_guest_a_cgroup_that_has_too_little_memory_leaves_nothing(soak: Soak, tmp_path: Path) -> None:
    """No process, namespace, BPF program or map: nobody else has any in the guest."""
    if not in_guest():
        pytest.skip("others' BPF objects come and go on this machine's own kernel")
    chance = random.Random(random.randrange(1 << 32))
    ends = Counter[str]()
    before = [identifiers(command) for command in (BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID)]
    for turn in soak.turns(1):
        # Near what it needs it is not killed for minutes, as the kernel reads its files again and again.
        mib = chance.randint(LEAST_OF_CGROUP_MIB, 160) if soak.seconds else 50
        done, kills = ended_by_memory("run", COMMANDS["run"], mib, tmp_path / str(turn), tmp_path / "cache")
        ends[f"{done.returncode}, {kills} killed"] += 1
        wait_until(
            lambda: [identifiers(command) for command in (BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID)] == before,
            10,
            "the kernel to free programs and maps",
        )
    print(f"within a guest: {ends.total()} trials, {dict(ends)}")


FETCH = """
import sys
from pathlib import Path
from harness.vm import debian, images
debian.KEYRING = Path(sys.argv[1])
images.fetch("6.12")
"""


@pytest.mark.soak
def test_a_download_that_is_killed_leaves_a_kernel_whole_or_none(
    soak: Soak, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("dpkg-deb", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    (tmp_path / "archive").mkdir()
    archive = Archive(tmp_path / "archive")
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "keyring")
    debian.KEYRING.touch()
    monkeypatch.setenv("PATH", f"{archive.folder}/bin:{os.environ['PATH']}")
    chance = random.Random(seed := random.randrange(1 << 32))
    command = [sys.executable, "-c", FETCH, str(debian.KEYRING)]
    ends = Counter[str]()
    for turn in soak.turns(3):
        way, after = chance.choice(list(SENDS)), chance.random() * chance.choice((0.3, 1.0))
        cache = tmp_path / str(turn)
        one = trial(command, SENDS[way], after, tmp_path, XDG_CACHE_HOME=str(cache))
        assert one.status is not None, f"{way} after {after:.2f} s (seed {seed})"
        assert not left_by(one, way), f"{way} after {after:.2f} s (seed {seed})"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        before = archive.downloads() if archive.log.exists() else 0
        there = images.find("6.12") if any(cache.glob("*/kernels/6.12*")) else None
        image = images.fetch("6.12")
        assert (image.modules / "lib/modules" / image.release / "modules.dep").exists()
        assert image.vmlinuz.exists()
        assert image.nft is not None
        if there is not None:  # maybe without its nft, which comes after it
            assert (there.release, there.vmlinuz, there.modules) == (image.release, image.vmlinuz, image.modules)
            assert archive.downloads() == before
        assert not [path.name for path in image.modules.parent.iterdir() if path.name.startswith(".") and path.is_dir()]
        ends[f"{way} {one.status}"] += 1
    print(f"fetch: {ends.total()} trials, {dict(ends)}")


def test_a_file_that_is_torn_is_found(tmp_path: Path) -> None:
    spoil: dict[str, Callable[[Path], object]] = {
        "scenarios/t.yaml": lambda file: file.write_text(file.read_text()[:-9]),
        "r.html": lambda file: file.write_text("<html>"),
    }
    for number, (name, change) in enumerate(spoil.items()):
        project = make_project(tmp_path / str(number))
        assert torn(project) == ""
        change(project / name)
        assert torn(project) != ""
