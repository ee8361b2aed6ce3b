"""bpf(2): what can come between."""

from __future__ import annotations

import struct
import subprocess
import sys
from contextlib import closing

import pytest

from harness.linux import bpf

HASH, ARRAY = 1, 2
"""Of enum bpf_map_type."""

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


@pytest.mark.kernel
def test_the_memory_of_an_array_is_what_bpf_writes() -> None:
    with closing(bpf.Map(ARRAY, 4, 8, 2, "counts", flags=bpf.MMAPABLE)) as map_, map_.memory() as memory:
        assert struct.unpack_from("<2Q", memory) == (0, 0)
        map_[struct.pack("<I", 1)] = struct.pack("<Q", 7)
        assert struct.unpack_from("<2Q", memory) == (0, 7)
        with pytest.raises(TypeError):
            memory[0] = 1


@pytest.mark.kernel
@pytest.mark.parametrize("most", [1, 7, bpf.BATCH])
def test_all_elements_of_a_hash_are_read_and_deleted_however_many_fit_at_once(most: int) -> None:
    elements = {struct.pack("<I", number): struct.pack("<Q", number * number) for number in range(300)}
    with closing(bpf.Map(HASH, 4, 8, 1024)) as map_:
        for key, value in elements.items():
            map_[key] = value
        map_._batch = bpf.Batch(map_.descriptor, 4, 8, most)  # smaller than buckets with several elements
        assert dict(map_.items()) == elements
        assert map_.get(struct.pack("<I", 17)) == struct.pack("<Q", 289)
        map_.clear()
        assert map_.items() == []
        assert map_.get(struct.pack("<I", 17)) is None
