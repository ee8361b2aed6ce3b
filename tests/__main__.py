"""``python tests [--soak [--minutes N]] [pytest arguments]``: all tests, each where it can run, as one result.

Tests marked ``kernel`` need root and a kernel that can trace functions; pytest gets such a kernel
by ``--nft-kernel auto``. The others stay here. A choice such as ``-k name`` may leave one of the
two without a test: that is no failure, nothing in both is.

The tests here are shared among a few workers of pytest-xdist, one for each CPU, and those marked ``kernel`` among as
many microVMs; ``-n 0`` keeps them in one process and one microVM. On this machine's own kernel, where it can trace, one
process runs them: some look at what the whole kernel has.
With ``--soak`` only tests that have a long form (marked ``soak``), in that form: N minutes each.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

import pytest

from harness.linux import features

HERE = "not kernel"
ON_A_TRACING_KERNEL = "kernel"
SHARED = ["-n", "auto", "--maxprocesses", "4"]
"""Arguments for tests that need nothing of their kernel for themselves; ``auto`` gives way to ``--pdb``."""
MINUTES = "NFT_SOAK_MINUTES"
"""The environment variable by which tests/conftest.py knows that the long form is wanted."""
GOOD = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def main(arguments: list[str]) -> int:
    """Run both halves; the exit status is pytest's, of the first that did not end well."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is pytest's: it ends in its own time, and we after it
    only, arguments = ("soak and ", soak(arguments[1:])) if arguments[:1] == ["--soak"] else ("", arguments)
    shared = [] if only else SHARED
    statuses = [run([*shared, *arguments, "-m", only + HERE])]
    # Interrupted, or a wrong argument: the other half would only say it again.
    if statuses[0] in GOOD | {pytest.ExitCode.TESTS_FAILED}:
        # A kernel takes seconds to boot: first see whether there is something to do on it.
        guests = [] if features.function_probes().able else shared
        there = [*guests, *arguments, "-m", only + ON_A_TRACING_KERNEL]
        found = run([*there, "--collect-only"], stdout=subprocess.DEVNULL)
        nothing = found == pytest.ExitCode.NO_TESTS_COLLECTED
        statuses.append(found if nothing else run([*there, "--nft-kernel", "auto"]))
    bad = [status for status in statuses if status not in GOOD]
    return bad[0] if bad else min(statuses)


def soak(arguments: list[str]) -> list[str]:
    """Ask for the long form; pytest's arguments."""
    parser = argparse.ArgumentParser(prog="./run soak", add_help=False, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10.0)
    options, rest = parser.parse_known_args(arguments)
    os.environ[MINUTES] = str(options.minutes)
    return ["-v", "-s", *rest]


def run(arguments: list[str], stdout: int | None = None) -> int:
    """Run pytest; its exit status. The kernel ends it if this process dies."""
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "pytest", "-o", "testpaths=tests"]
    return subprocess.call([*command, *arguments], stdout=stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
