"""The program between sudo and a privileged worker, run here without sudo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.vm import keeper
from harness.wait import wait_until

KEEPER = [sys.executable, "-I", "-S", keeper.__file__]


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_status_is_the_workers(script: str, status: int) -> None:
    ran = subprocess.run([*KEEPER, str(os.getpid()), "/bin/sh", "-c", script], check=False)
    assert ran.returncode == status


def test_environment_and_umask_are_those_of_the_one_who_started_it() -> None:
    starter = subprocess.Popen(
        ["/bin/sh", "-c", "umask 027; read line"], stdin=subprocess.PIPE, env={"OF_STARTER": "a=b", "EMPTY": ""}
    )
    try:
        umask = Path("/proc", str(starter.pid), "status")
        wait_until(lambda: "Umask:\t0027" in umask.read_text(), 10, "the umask to be set")
        script = "umask; /usr/bin/env"
        ran = subprocess.run(
            [*KEEPER, str(starter.pid), "/bin/sh", "-c", script],
            capture_output=True,
            text=True,
            env={"X": "y"},
            check=True,
        )
    finally:
        starter.communicate(b"\n")
    mask, *variables = ran.stdout.splitlines()
    assert mask == "0027"
    assert {"OF_STARTER=a=b", "EMPTY="} <= set(variables)
    assert "X=y" not in variables


def test_the_worker_ends_with_the_one_who_started_it() -> None:
    starter = subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)
    running = subprocess.Popen(
        [*KEEPER, str(starter.pid), "/bin/sh", "-c", "echo $$; exec sleep 600"], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    worker = Path("/proc", running.stdout.readline().strip())
    assert worker.exists()
    starter.communicate(b"\n")
    assert running.wait(20) == 128 + 9
    running.stdout.close()
    assert not worker.exists()
