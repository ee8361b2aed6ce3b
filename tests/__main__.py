"""``python tests [pytest arguments]``: all tests, each where it can run, as one result.

Tests marked ``kernel`` need root and a kernel that can trace functions; pytest gets such a kernel
by ``--nft-kernel auto``. The others stay here. A choice such as ``-k name`` may leave one of the
two without a test: that is no failure, nothing in both is.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HERE = ["-m", "not kernel"]
ON_A_TRACING_KERNEL = ["-m", "kernel", "--nft-kernel", "auto"]
GOOD = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def main(arguments: list[str]) -> int:
    """Run both halves; the exit status is pytest's, of the first that did not end well."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is pytest's: it ends in its own time, and we after it
    statuses = [run([*arguments, *HERE])]
    # Interrupted, or a wrong argument: the other half would only say it again.
    if statuses[0] in GOOD | {pytest.ExitCode.TESTS_FAILED}:
        # A kernel takes seconds to boot: first see whether there is something to do on it.
        found = run([*arguments, "-m", "kernel", "--collect-only"], stdout=subprocess.DEVNULL)
        nothing = found == pytest.ExitCode.NO_TESTS_COLLECTED
        statuses.append(found if nothing else run([*arguments, *ON_A_TRACING_KERNEL]))
    bad = [status for status in statuses if status not in GOOD]
    return bad[0] if bad else min(statuses)


def run(arguments: list[str], stdout: int | None = None) -> int:
    """Run pytest; its exit status. The kernel ends it if this process dies."""
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "pytest", "-o", "testpaths=tests"]
    return subprocess.call([*command, *arguments], stdout=stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
