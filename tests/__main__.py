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

HALVES = (["-m", "not kernel"], ["-m", "kernel", "--nft-kernel", "auto"])
GOOD = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def main(arguments: list[str]) -> int:
    """Run both halves; the exit status is pytest's, of the first that did not end well."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is pytest's: it ends in its own time, and we after it
    statuses = []
    for half in HALVES:
        pytest_command = [sys.executable, "-m", "pytest", "-o", "testpaths=tests", *arguments, *half]
        statuses.append(subprocess.call(pytest_command))
        if statuses[-1] not in GOOD | {pytest.ExitCode.TESTS_FAILED}:
            break  # interrupted, or a wrong argument: the other half would say it again
    bad = [status for status in statuses if status not in GOOD]
    return bad[0] if bad else min(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
