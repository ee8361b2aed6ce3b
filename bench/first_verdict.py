"""Where the seconds from command to verdict go.

::

    python bench/first_verdict.py [pytest's arguments; default: scenarios -k HTTPS-from]

Runs pytest and prints when each stage was reached: seconds since the command, seconds of CPU that the
process had used by then. Stages of the guest are those whose process is called ``guest``. On a busy
machine, or the first time after files changed, it takes longer: run it three times.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

MARK = "@stage "

MARKS = f"""
import os, time

stderr = os.dup(2)  # pytest captures the other

def reached(stage):
    guest = os.uname().nodename == "nft-harness"
    os.write(stderr, f"{MARK}{{'guest' if guest else 'host'}}\\t{{time.process_time():.2f}}\\t{{stage}}\\n".encode())
"""

STAGES = (
    *("pytest_configure", "pytest_sessionstart", "pytest_xdist_setupnodes", "pytest_collection"),
    *("pytest_collection_finish", "pytest_runtest_setup", "pytest_runtest_call", "pytest_runtest_logreport"),
    *("pytest_sessionfinish", "pytest_testnodedown", "pytest_unconfigure"),
)
"""Hooks of pytest and pytest-xdist."""


def plugin() -> Iterator[str]:
    """Source of a pytest plugin that marks each of its hooks."""
    yield "import pytest\nfrom marks import reached\nreached('plugin imported')"
    for hook in STAGES:
        yield f"@pytest.hookimpl(tryfirst=True, optionalhook=True)\ndef {hook}(): reached({hook!r})"


def main(arguments: list[str]) -> int:
    """Run pytest and print its stages as they are reached."""
    with TemporaryDirectory() as folder:
        Path(folder, "marks.py").write_text(MARKS)
        Path(folder, "first_verdict_stages.py").write_text("\n".join(plugin()))
        start = time.monotonic()
        # Not PYTHONPATH: a template of a guest belongs to the values of such variables.
        program = (
            f"import sys; sys.path.insert(0, {folder!r}); import marks; marks.reached('Python started'); import pytest"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", f"{program}; sys.exit(pytest.main())", "-p", "first_verdict_stages", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        print("seconds  CPU  where  stage")
        for line in process.stderr:
            if line.startswith(MARK):
                where, cpu, stage = line.removeprefix(MARK).rstrip().split("\t")
                print(f"{time.monotonic() - start:7.2f}{cpu:>6}  {where:5}  {stage}")
            else:
                print(line, end="")
        status = process.wait()
        print(f"{time.monotonic() - start:7.2f}               end, status {status}")
        return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["scenarios", "-k", "HTTPS-from"]))
