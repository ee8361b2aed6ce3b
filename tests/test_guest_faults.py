"""Guests that hang or panic at random instants: what the commands that use one say, and what they leave.

A guest hangs when QEMU is stopped, and panics when one of its processes asks for that
(Documentation/admin-guide/sysrq.rst). ``./run soak -k guest_that_fails --minutes 30`` does it for so long, with several
commands at once, since most of the time is spent waiting for a sign of life.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from harness.vm import images
from harness.wait import TimedOut, wait_until
from tests.trials import HARNESS, MARK, alive, files, make_project, torn

if TYPE_CHECKING:
    from conftest import Soak

KERNEL = images.DEFAULT
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nft-kernel", KERNEL, "-n", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": (*PYTEST, "--nft-repeat", "5", "--nft-results=results", "--nft-html=r.html", "--nft-sarif=r.sarif"),
    "record": (*PYTEST, "--nft-record"),
    "init": (*HARNESS, "init", "t.nft", "-o", "scenarios/new.yaml", "--kernel", KERNEL),
    "diff": (*HARNESS, "diff", "t.nft", "u.nft", "--save", "scenarios/new.yaml", "--kernel", KERNEL),
    "mutate": (*HARNESS, "mutate", "scenarios", "--save", "scenarios/new.yaml", "--nft-kernel", KERNEL),
}
BROKEN = {2, 3, 4, 6}
"""Exit statuses of commands that could not measure; 4: a guest did not come up."""
DONE = {0, 1}
"""Of those that could; a run has a scenario that fails."""
NOT_UP = "not up within"
"""Said of a guest that hung as it booted."""
SPANS_S = (3.0, 12.0, 40.0)
"""An instant lies within one of these, each as often as the others, from when the guest starts."""
AT_ONCE = 10
DEADLINE_S = 200.0
"""Of a command; a guest counts as hung after 60 s, and one that boots after 180 s."""

PANICS = """
import os, threading

def panic():
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write("c")

if os.uname().release != {host!r} and os.uname().nodename != {name!r}:
    timer = threading.Timer(float(os.environ["NFT_TRIAL_PANIC"]), panic)
    timer.daemon = True
    timer.start()
"""
"""What each Python imports when it starts (site(5), ``sitecustomize``): in a guest, and nowhere else, it panics."""


class Trial(NamedTuple):
    """What became of one."""

    status: int | None
    """None when it had to be killed."""
    met: bool
    """Whether the fault came before the guest had ended."""
    said: str
    left: tuple[str, ...]


@contextmanager
def command(name: str, project: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The command ``name``, which runs; the mark of all that it starts, and its folder for temporary files."""
    mark = uuid.uuid4().hex
    (temporary := project.with_suffix(".temporary")).mkdir()
    environment = {**os.environ, **variables, MARK: mark, "TMPDIR": str(temporary), "PYTEST_ADDOPTS": ""}
    with (project / "said").open("w") as said:
        process = subprocess.Popen(
            COMMANDS[name], cwd=project, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True
        )
    try:
        yield process, mark, temporary
    finally:
        for pid in alive(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def ended(process: subprocess.Popen[str], mark: str, temporary: Path, *, met: bool) -> Trial:
    status = None
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(DEADLINE_S)
    with suppress(TimedOut):
        wait_until(lambda: not alive(mark), 20, "what the command started to end")
    left = (*alive(mark).values(), *files(temporary))
    return Trial(status, met, (temporary.with_suffix("") / "said").read_text(), left)


def hang(name: str, after_s: float, project: Path) -> Trial:
    """Stop QEMU so many seconds after it has begun."""
    with command(name, project) as (process, mark, temporary):
        machines: list[int] = []

        def runs() -> bool:
            machines[:] = [pid for pid, line in alive(mark).items() if "qemu-system" in line]
            return bool(machines) or process.poll() is not None

        wait_until(runs, DEADLINE_S, "QEMU to run")
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        runs()
        for pid in machines:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return ended(process, mark, temporary, met=bool(machines))


def panic(name: str, after_s: float, project: Path) -> Trial:
    """Have the guest panic so many seconds after its first Python has started."""
    (hook := project.with_suffix(".hook")).mkdir()
    (hook / "sitecustomize.py").write_text(PANICS.format(host=os.uname().release, name=os.uname().nodename))
    with command(name, project, PYTHONPATH=str(hook), NFT_TRIAL_PANIC=str(after_s)) as (process, mark, temporary):
        one = ended(process, mark, temporary, met=True)
        return one._replace(met="kernel panic" in one.said)


FAULTS = {"hangs": (hang, "hangs"), "panics": (panic, "kernel panic, sysrq triggered crash")}


TRIALS = tuple((fault, name) for fault in ("panics", "hangs") for name in COMMANDS)


@pytest.mark.soak
def test_a_guest_that_fails_breaks_the_measurement_and_leaves_nothing(soak: Soak, kernel: str, tmp_path: Path) -> None:
    """The short form is one run whose guest panics: it takes a minute to notice that one hangs."""
    chance = random.Random(seed := random.randrange(1 << 32))

    def once(number: int, after_s: float) -> tuple[str, str]:
        """A trial: what it was and how it ended; with what is wrong, if anything is."""
        fault, name = TRIALS[number % len(TRIALS)]
        provoke, sentence = FAULTS[fault]
        project = make_project(tmp_path / str(number))
        one = provoke(name, after_s, project)
        how = f"{fault}, {name}: {one.status}{'' if one.met else ', done before'}"
        wrong = wrong_with(one, sentence) or torn(project)
        for suffix in ("", ".temporary", ".hook"):
            shutil.rmtree(project.with_suffix(suffix), ignore_errors=True)
        return how, wrong and f"{fault} after {after_s:.2f} s, {how} (seed {seed}): {wrong}\n{one.said}"

    ends = Counter[str]()
    at_once = AT_ONCE if soak.seconds else 1
    with ThreadPoolExecutor(at_once) as threads:
        for turn in soak.turns(1):
            numbers = range(turn * at_once, (turn + 1) * at_once)
            instants = [chance.random() * chance.choice(SPANS_S if soak.seconds else SPANS_S[:1]) for _ in numbers]
            for how, wrong in threads.map(once, numbers, instants):
                assert not wrong, wrong
                ends[how] += 1
    print(f"{ends.total()} trials: {dict(sorted(ends.items()))}")


def wrong_with(one: Trial, sentence: str) -> str:
    """What must not be; "" for a good end."""
    if one.status is None:
        return f"did not end within {DEADLINE_S:g} s"
    if one.left:
        return f"left {', '.join(one.left)}"
    if "Traceback" in one.said:
        return "printed a traceback"
    if one.status in DONE:  # one that is not up soon after it was restored is replaced by one that boots
        return ""
    if one.status not in BROKEN or not one.met:
        return "ended with another status"
    return "" if sentence in one.said or NOT_UP in one.said else f"does not say {sentence!r}"
