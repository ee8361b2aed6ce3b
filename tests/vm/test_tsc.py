"""The rate of the time-stamp counter, here and in a guest."""

from __future__ import annotations

import mmap
import re
import subprocess
import sys

import pytest

from harness.vm import machine, tsc


@pytest.fixture(autouse=True)
def forgotten() -> None:
    tsc.frequency.cache_clear()


def test_it_is_the_same_each_time() -> None:
    found = []
    for _ in range(5):
        tsc.frequency.cache_clear()
        found.append(tsc.frequency() or 0)
    assert min(found) > 100_000
    assert max(found) < 1.001 * min(found)


def test_a_machine_that_forbids_it_leaves_the_measurement_to_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    assert f"tsc_early_khz={tsc.frequency()}" in machine.kernel_command_line("tcg").split()
    tsc.frequency.cache_clear()
    monkeypatch.setattr(mmap, "mmap", refuse)
    assert (tsc.frequency(), tsc.rate_class()) == (None, None)
    assert "tsc_early_khz" not in machine.kernel_command_line("tcg")


def test_machines_of_another_rate_share_no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = []
    for rate in (2_200_000, 2_596_000, 2_596_200, 3_100_000):
        monkeypatch.setattr(tsc, "frequency", lambda rate=rate: rate)
        classes.append(tsc.rate_class())
    assert classes[1] == classes[2]
    assert len(set(classes)) == 3


def test_a_guest_has_the_rate_of_this_machine(kernel: str) -> None:
    command = [sys.executable, "-m", "harness.cli", "vm", "--kernel", kernel, "--", "cat", "/proc/cpuinfo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found = re.search(r"^cpu MHz\s*: ([\d.]+)", done.stdout, re.MULTILINE)
    assert found
    assert float(found[1]) * 1000 == pytest.approx(tsc.frequency(), rel=0.01)
