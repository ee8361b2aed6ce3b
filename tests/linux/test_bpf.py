"""bpf(2): what can come between."""

from __future__ import annotations

import subprocess
import sys

import pytest

SIGNALLED = """
import os, signal
from harness.linux import bpf

LONG = 20_000  # instructions: the verifier takes more than a millisecond to read them
r0_is_0, leave = bpf.INSTRUCTION.pack(0xB7, 0, 0, 0), bpf.INSTRUCTION.pack(0x95, 0, 0, 0)
came = []
signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for _ in range(3):
    os.close(bpf.load_program(bpf.PROG_TYPE_KPROBE, r0_is_0 * LONG + leave))
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(came))
"""
"""In a process of one thread: while the loader blocks a signal, the kernel hands it to any other thread."""


@pytest.mark.kernel
def test_signals_do_not_end_the_load_of_a_program() -> None:
    ran = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False)
    assert not ran.stderr
    assert int(ran.stdout) > 0
