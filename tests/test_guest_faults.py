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
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.vm import images, template
from harness.wait import wait_until
from tests import trials
from tests.trials import HARNESS, Trial, descendants, make_project, torn, trial

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
PATIENCE_S = 200.0
"""Until a command has ended; a guest counts as hung after 60 s, and one that boots after 180 s."""

BOOTED = {template.HASH_SEED: "0"}
"""Variables of the environment with which no template is made for a guest, as one would be on a trial's terminal."""

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


def stop_machines(process: subprocess.Popen[bytes], _: int) -> None:
    """Stop the QEMU of a command, as soon as it has one."""

    def machines() -> list[int]:
        found = []
        for pid in descendants(process.pid):
            with suppress(OSError):
                if "qemu-system" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
        return found

    wait_until(lambda: process.poll() is not None or machines(), PATIENCE_S, "QEMU to run")
    for pid in machines():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def hang(name: str, after_s: float, project: Path) -> Trial:
    """The command ``name``, whose guest hangs after so many seconds."""
    return trial(list(COMMANDS[name]), stop_machines, after_s, project, **BOOTED)


def panic(name: str, after_s: float, project: Path) -> Trial:
    """The command ``name``, whose guest panics so many seconds after its first Python has started."""
    (hook := project / "hook").mkdir()
    (hook / "sitecustomize.py").write_text(PANICS.format(host=os.uname().release, name=os.uname().nodename))
    within = {"PYTHONPATH": str(hook), "NFT_TRIAL_PANIC": str(after_s)}
    return trial(list(COMMANDS[name]), lambda *_: None, 0, project, **BOOTED, **within)


FAULTS = {"hangs": (hang, "the guest hangs"), "panics": (panic, "kernel panic, sysrq triggered crash")}
TRIALS = tuple((fault, name) for fault in ("panics", "hangs") for name in COMMANDS)


@pytest.mark.soak
def test_a_guest_that_fails_breaks_the_measurement_and_leaves_nothing(
    soak: Soak, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form is one run whose guest panics: it takes a minute to notice that one hangs."""
    monkeypatch.setattr(trials, "DEADLINE_S", PATIENCE_S)
    chance = random.Random(seed := random.randrange(1 << 32))

    def once(number: int, after_s: float) -> tuple[str, str]:
        """A trial: what it was and how it ended; with what is wrong, if anything is."""
        fault, name = TRIALS[number % len(TRIALS)]
        provoke, sentence = FAULTS[fault]
        project = make_project(tmp_path / str(number))
        one = provoke(name, after_s, project)
        said = any(text in one.output for text in (sentence, NOT_UP))
        # Done before, or by another guest: one that is not up soon after it was restored is replaced by one that boots.
        wrong = one.wrong(DONE | BROKEN if said else DONE) or torn(project)
        shutil.rmtree(project)
        how = f"{fault}, {name}: {one.status}{', which says so' if said else ''}"
        return how, wrong and f"{how} (after {after_s:.2f} s, seed {seed}): {wrong}\n{one.output}"

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
