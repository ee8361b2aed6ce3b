"""bpf(2): what can come between."""

from __future__ import annotations

import os
import signal
from types import FrameType

import pytest

from harness.linux import bpf

LONG = 20_000
"""Instructions: the verifier takes more than a millisecond to read them."""


@pytest.mark.kernel
def test_signals_do_not_end_the_load_of_a_program() -> None:
    r0_is_0, leave = bpf.INSTRUCTION.pack(0xB7, 0, 0, 0), bpf.INSTRUCTION.pack(0x95, 0, 0, 0)
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(3):
            os.close(bpf.load_program(bpf.PROG_TYPE_KPROBE, r0_is_0 * LONG + leave))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came
