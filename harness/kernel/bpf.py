"""bpf(2) and perf_event_open(2), as far as BCC does not offer them.

Only what the tracer needs: links of many function probes at once, single probes with a cookie,
and what the kernel tells about a program or a link. Layouts are those of ``union bpf_attr``,
``struct bpf_prog_info`` and ``struct bpf_link_info`` in include/uapi/linux/bpf.h, and of ``struct
perf_event_attr`` in include/uapi/linux/perf_event.h; they are append-only, so a longer kernel
struct is no harm.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

SYS_BPF = 321
SYS_PERF_EVENT_OPEN = 298

BPF_PROG_LOAD = 5
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_LINK_CREATE = 28

BPF_PROG_TYPE_KPROBE = 2
BPF_PERF_EVENT = 41
BPF_TRACE_KPROBE_MULTI = 42
BPF_F_KPROBE_MULTI_RETURN = 1

PERF_FLAG_FD_CLOEXEC = 8
KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _syscall(SYS_BPF, ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))


def load_nothing(attach_type: int = 0) -> int:
    """Load a kprobe program that only returns 0; its file descriptor. For feature tests.

    Raises :class:`OSError` as bpf(2) does.
    """
    instructions = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQIIQII16sII",
        BPF_PROG_TYPE_KPROBE,
        2,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"nothing",
        0,
        attach_type,
    )
    return _bpf(BPF_PROG_LOAD, attributes)


def link_functions(program: int, names: Sequence[str], cookies: Sequence[int], *, returns: bool = False) -> int:
    """Attach one program to many functions (kprobe.multi, from v5.18); the link's descriptor.

    The program reads the cookie of the function that it was called for by
    ``bpf_get_attach_cookie()``. Closing the descriptor detaches it from all.

    Raises :class:`OSError`: ``ESRCH`` or ``EINVAL`` when one of the functions cannot be traced.
    """
    strings = [ctypes.c_char_p(name.encode()) for name in names]
    pointers = (ctypes.c_char_p * len(strings))(*strings)
    values = (ctypes.c_uint64 * len(cookies))(*cookies)
    flags = BPF_F_KPROBE_MULTI_RETURN if returns else 0
    return _bpf(
        BPF_LINK_CREATE,
        struct.pack(
            "<IIIIIIQQQ",
            program,
            0,
            BPF_TRACE_KPROBE_MULTI,
            0,
            flags,
            len(strings),
            ctypes.addressof(pointers),
            0,
            ctypes.addressof(values),
        ),
    )


def link_function(program: int, name: str, cookie: int, *, returns: bool = False) -> tuple[int, int]:
    """Attach a program to one function by a kprobe of its own; descriptors of link and probe.

    Needs the kprobe PMU (v4.17) and cookies (v5.15). Closing both detaches it.

    Raises :class:`OSError`: ``ENOENT`` when there is no such function, ``EINVAL`` when it cannot
    be probed.
    """
    symbol = ctypes.create_string_buffer(name.encode())
    kind = int((KPROBE_PMU / "type").read_text())
    retprobe = int((KPROBE_PMU / "format/retprobe").read_text().removeprefix("config:"))
    # type, size, config, sample_period, sample_type, read_format, flags, wakeup, bp_type, config1 (the symbol), config2
    attributes = struct.pack(
        "<IIQQQQQIIQQ", kind, 72, int(returns) << retprobe, 0, 0, 0, 0, 0, 0, ctypes.addressof(symbol), 0
    )
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    probe = _syscall(
        SYS_PERF_EVENT_OPEN,
        buffer,
        ctypes.c_int(-1),
        ctypes.c_int(0),
        ctypes.c_int(-1),
        ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC),
    )
    try:
        link = _bpf(BPF_LINK_CREATE, struct.pack("<IIIIQ", program, probe, BPF_PERF_EVENT, 0, cookie))
    except OSError:
        os.close(probe)
        raise
    return link, probe


def _info(descriptor: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    _bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, size, ctypes.addressof(buffer)))
    return buffer.raw


def recursion_misses(program: int) -> int:
    """How often the kernel skipped the program because another ran on that CPU (from v5.12)."""
    return int(struct.unpack_from("<Q", _info(program, 224), 208)[0])


def link_misses(link: int) -> int:
    """How often the probes of a kprobe.multi link were skipped (from v6.7; 0 before)."""
    # struct bpf_link_info: type, id, prog_id, pad; kprobe_multi: addrs, count, flags, missed
    return int(struct.unpack_from("<Q", _info(link, 48), 32)[0])
