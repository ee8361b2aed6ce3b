"""The rate of this processor's time-stamp counter (TSC), which is also an emulated guest's clock.

Linux measures it by QEMU's emulated timers when it boots. On a busy host that went wrong by a factor of 23: all time
in the guest, and in each guest restored from its template, passed 23 times too fast. So Linux is given the rate, which
can be measured here without timers.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import time

INTERVAL_S = 0.005
"""Between two samples; the rate is then known to about 50 ppm."""
SAMPLES = 20
CLASS_WIDTH = 1.02

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret"""


@functools.cache
def frequency() -> int | None:
    """The rate in kHz; None where this process may not execute memory that it has written, as SELinux can forbid."""
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    memory.write(_RDTSC)
    code = ctypes.c_char.from_buffer(memory)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(code))

    def sample() -> tuple[int, float]:
        """A value of the counter and its time in ns: of several, the one whose time is known best."""
        best = (math.inf, 0, 0.0)
        for _ in range(SAMPLES):
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            value = read()
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            best = min(best, (after - before, value, (before + after) / 2))
        return best[1:]

    first, start = sample()
    time.sleep(INTERVAL_S)  # what passes meanwhile is what is measured
    last, end = sample()
    return round((last - first) * 1e6 / (end - start))


def rate_class() -> int | None:
    """A number that machines with almost the same rate share: in a guest that one saved and another restores time
    passes up to 2 % too fast or too slow."""
    rate = frequency()
    return round(math.log(rate, CLASS_WIDTH)) if rate else None
