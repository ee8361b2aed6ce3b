"""BPF programs and maps that the kernel has."""

from __future__ import annotations

import struct

from harness.linux import bpf

BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID = 11, 12


def identifiers(command: int) -> set[int]:
    """Of all BPF programs or maps in the kernel: bpf(2), ``BPF_*_GET_NEXT_ID``."""
    found, last = set(), 0
    while True:
        attributes = bpf.ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12)
        try:
            bpf._syscall(bpf.SYS_BPF, bpf.ctypes.c_int(command), attributes, bpf.ctypes.c_uint(12))
        except FileNotFoundError:
            return found
        last = struct.unpack_from("<I", attributes, 4)[0]
        found.add(last)
