"""Commands that boot a microVM, ended at random instants.

Each is started on a terminal of its own and ended by Ctrl-C in it, SIGINT or SIGTERM. It must end within a
minute, with an exit status that says so, without a traceback, and leave no process (which is all that a
network namespace without a name lives by) and no temporary file.

``python tests/test_interrupts.py [--times N] [COMMAND ...]`` tries each command and signal N times, and has numbers.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.linux import features
from tests.trials import HARNESS, IMPORTS, STATUSES, WAYS, Trial, could_catch, trial

if TYPE_CHECKING:
    from conftest import Soak

PING = "import socket, time\nwhile True: socket.socket(type=2).sendto(b'x', ('127.0.0.1', 9)); time.sleep(0.05)"
RULESET = "table inet t { chain f { type filter hook forward priority 0; policy drop; tcp dport 443 accept; }; }\n"
SCENARIOS = """lab: router
ruleset: ../t.nft
scenarios:
  - name: dropped
    send: {from: client, to: server, udp: {dport: 9}}
    expect: {verdict: drop}
"""
COMMANDS = {
    "trace": [*HARNESS, "trace", "--functions", "ip_rcv", "--", sys.executable, "-S", "-c", PING],
    "pytest": [sys.executable, "-m", "pytest", "-pno:cacheprovider", "--nft-kernel", "default", "--nft-repeat", "500"],
    "vm": [*HARNESS, "vm", "--", "sleep", "1000"],
    "init": [*HARNESS, "init", "t.nft", "-o", "scenarios/new.yaml", "--kernel", "default"],
    "enter": [*HARNESS, "lab", "enter", "scenarios/t.yaml", "--kernel", "default", "--", "sleep", "1000"],
    "fetch": [*HARNESS, "kernels", "fetch"],
}
SPANS_S = (0.7, 4.0, 25.0)
"""An instant lies within one of these, each as often as the others: imports, the boot, and the work itself."""

DONE = {"trace": (0,), "init": (0, 1), "fetch": (0,)}
"""And of those that were done: a trace ends so when it is asked to."""


def make_project(folder: Path) -> Path:
    """A project with a ruleset and a scenario."""
    (folder / "scenarios").mkdir(parents=True)
    (folder / "t.nft").write_text(RULESET)
    (folder / "scenarios/t.yaml").write_text(SCENARIOS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def judged(name: str, way: str, after_s: float, folder: Path) -> tuple[Trial, str]:
    """A trial of the command ``name``, and what is wrong with it."""
    project = make_project(folder / "project")
    empty = {"XDG_CACHE_HOME": str(folder / "cache")} if name == "fetch" else {}
    one = trial(COMMANDS[name], WAYS[way], after_s, project, **empty)
    return one, one.wrong({*STATUSES[way], *DONE.get(name, ())})


def instant(chance: random.Random, spans: Sequence[float] = SPANS_S) -> float:
    return chance.random() * chance.choice(spans)


@pytest.mark.soak
def test_no_instant_is_a_bad_one(soak: Soak, kernel: str, tmp_path: Path) -> None:
    if features.function_probes().able:
        pytest.skip("the host's kernel can be traced, so no microVM is needed")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    # In the short form every command ends early: what is expensive is to let it work.
    names, spans = (list(COMMANDS), SPANS_S) if soak.seconds else (["trace", "pytest", "vm"], SPANS_S[:1])
    for turn in soak.turns(6):
        name, way, after = names[turn % len(names)], chance.choice(list(WAYS)), instant(chance, spans)
        one, wrong = judged(name, way, after, tmp_path / str(turn))
        assert not wrong, f"{name}, {way} after {after:.2f} s (seed {seed}): {wrong}\n{one.output}"


@pytest.mark.parametrize(
    ("frames", "could"),
    [
        (["pytest/config.py main", f"{IMPORTS} _load", "harness/plugin.py <module>", "harness/text.py make"], False),
        (["harness/cli/__main__.py <module>", f"{IMPORTS} _load", "harness/vm/microvm.py <module>"], False),
        (["harness/cli/__main__.py <module>", "harness/cli/main.py main", f"{IMPORTS} _load", "re.py compile"], True),
        (["pytest/config.py main", "pluggy/caller.py call", "harness/plugin.py pytest_configure"], True),
    ],
)
def test_an_exception_from_an_import_is_no_fault(frames: list[str], could: bool) -> None:
    lines = [frame.rsplit(" ", 1) for frame in frames]
    assert could_catch("".join(f'  File "/x/{file}", line 7, in {name}\n' for file, name in lines)) is could


@pytest.mark.parametrize("name", ["trace", "pytest", "vm", "init", "enter"])
def test_ctrl_c_ends_a_microvm_that_boots(name: str, kernel: str, tmp_path: Path) -> None:
    if features.function_probes().able:
        pytest.skip("the host's kernel can be traced, so no microVM is needed")
    one, wrong = judged(name, "Ctrl-C", 2.0, tmp_path)
    assert not wrong, f"{name}: {wrong}\n{one.output}"
    assert one.took_s < 20


def main() -> int:
    parser = argparse.ArgumentParser(description="end commands at random instants, and see what is left")
    parser.add_argument("command", nargs="*", help=f"of {', '.join(COMMANDS)}; default: all")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="for each command and signal")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--span", type=float, help="seconds within which the instant lies, instead of three of them")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    bad: list[str] = []
    for name in options.command or COMMANDS:
        for way in WAYS:
            trials, before = [], len(bad)
            for _ in range(options.times):
                after = instant(chance, [options.span] if options.span else SPANS_S)
                with tempfile.TemporaryDirectory() as folder:
                    one, wrong = judged(name, way, after, Path(folder))
                trials.append(one)
                if wrong:
                    bad.append(wrong)
                    print(f"{name}, {way} after {after:.2f} s: {wrong}\n{one.output[-2000:]}", flush=True)
            statuses = collections.Counter(one.status for one in trials)
            print(
                f"{name:8}{way:8}{len(trials):4} trials, {len(bad) - before} bad; "
                f"ended after {max(one.took_s for one in trials):.1f} s at most; "
                f"statuses {', '.join(f'{status}: {count}' for status, count in statuses.items())}",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
