"""bpf(2) and perf_event_open(2): maps, programs, links, and the kernel's information about them.

BCC compiles the tracer's program, but only the system call can load a program compiled earlier, attach one to a
thousand functions at once, or report how often it was skipped. Layouts are those of ``union bpf_attr``, ``struct
bpf_prog_info`` and ``struct bpf_link_info`` in include/uapi/linux/bpf.h, and of ``struct perf_event_attr`` in
include/uapi/linux/perf_event.h.

All functions raise :class:`OSError` as the system call fails. Descriptors close on exec.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

SYS_BPF: Final = 321
SYS_PERF_EVENT_OPEN: Final = 298

# enum bpf_cmd
MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, PROG_LOAD, PROG_RUN = 0, 1, 2, 5, 10
MAP_LOOKUP_BATCH, MAP_LOOKUP_AND_DELETE_BATCH = 24, 25
OBJ_GET_INFO_BY_FD, RAW_TRACEPOINT_OPEN, BTF_GET_FD_BY_ID, BTF_GET_NEXT_ID, LINK_CREATE = 15, 17, 19, 23, 28
# enum bpf_map_type, enum bpf_prog_type, enum bpf_attach_type
PERCPU_MAPS: Final = (5, 6)
PROG_TYPE_KPROBE, PROG_TYPE_RAW_TRACEPOINT, PROG_TYPE_TRACING, PROG_TYPE_SYSCALL = 2, 17, 26, 31
TRACE_FENTRY, TRACE_FEXIT, PERF_EVENT, TRACE_KPROBE_MULTI = 24, 25, 41, 42
KPROBE_MULTI_RETURN: Final = 1
SLEEPABLE: Final = 1 << 4
"""A flag of a program's, which one that is run by itself must have."""
MMAPABLE: Final = 1 << 10
"""A flag of an array's: :meth:`Map.memory` maps it (from v5.5)."""

# An instruction that loads the address of a map names it by descriptor (BPF_LD | BPF_IMM | BPF_DW).
LOAD_IMM64: Final = 0x18
PSEUDO_MAP_FD: Final = 1
PSEUDO_MAP_VALUE: Final = 2
"""With it, the instruction loads the address of an array's value."""
INSTRUCTION: Final = struct.Struct("<BBhi")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")

PERF_FLAG_FD_CLOEXEC: Final = 8
KPROBE_PMU: Final = Path("/sys/bus/event_source/devices/kprobe")

_LOG_BYTES: Final = 1 << 20

BATCH: Final = 64
"""Elements of a hash that are read at once."""
BATCH_ATTRIBUTES: Final = struct.Struct("<QQQQIIQQ")
"""``batch`` of ``union bpf_attr``: in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags."""
BATCH_COUNT: Final = 32
"""Where the count stands in it, which the kernel sets."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_call = _libc["syscall"]
_call.restype = ctypes.c_long
_call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)

Attributes = ctypes.Array[ctypes.c_char]


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _attributes(content: bytes) -> Attributes:
    """A ``union bpf_attr``, which may be used again: the kernel writes some results into it."""
    return ctypes.create_string_buffer(content, len(content))


def _command(command: int, attributes: Attributes) -> int:
    # Not by _syscall(): a recording has a hundred of these, and to convert each argument by itself takes as long again.
    result: int = _call(SYS_BPF, command, attributes, len(attributes))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _bpf(command: int, attributes: bytes) -> int:
    return _command(command, _attributes(attributes))


class Map:
    """A BPF map; keys and values are bytes."""

    def __init__(
        self, kind: int, key_size: int, value_size: int, max_entries: int, name: str = "", *, flags: int = 0
    ) -> None:
        """``kind`` is a number of ``enum bpf_map_type``, sizes are in bytes."""
        sizes = key_size, value_size, max_entries
        attributes = struct.pack("<IIIIIII16s", kind, *sizes, flags, 0, 0, name.encode()[:15])
        self.descriptor = _bpf(MAP_CREATE, attributes)
        copies = _possible_cpus() if kind in PERCPU_MAPS else 1
        self._key = ctypes.create_string_buffer(max(key_size, 1))
        # Values of per-CPU maps are concatenated, each padded to 8 bytes.
        self._value = ctypes.create_string_buffer((value_size + 7 & ~7) * copies if copies > 1 else max(value_size, 1))
        addresses = map(ctypes.addressof, (self._key, self._value))
        self._one = _attributes(struct.pack("<I4xQQQ", self.descriptor, *addresses, 0))
        """Names ``_key`` and ``_value``, for a command about one element."""
        self._batch = Batch(self.descriptor, key_size, len(self._value), min(max_entries, BATCH))

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, in a per-CPU map those of all CPUs concatenated; None when there is none."""
        self._key.raw = key
        try:
            _command(MAP_LOOKUP_ELEM, self._one)
        except FileNotFoundError:
            return None
        return self._value.raw

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._key.raw = key
        self._value.raw = value.ljust(len(self._value), b"\0")
        _command(MAP_UPDATE_ELEM, self._one)

    def items(self) -> list[tuple[bytes, bytes]]:
        """All elements of a hash, keys with their values."""
        return self._batch.read(MAP_LOOKUP_BATCH)

    def clear(self) -> None:
        """Delete all elements of a hash."""
        self._batch.read(MAP_LOOKUP_AND_DELETE_BATCH)

    def memory(self) -> mmap.mmap:
        """The values of an array with :data:`MMAPABLE`, each in 8 bytes or a multiple, for the caller to close.

        While bpf(2) is in a map, the kernel skips all BPF programs that probes call on that CPU
        (bpf_disable_instrumentation() in include/linux/bpf.h), also where it is interrupted or preempted meanwhile.
        What is read here costs none of them.
        """
        return mmap.mmap(self.descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ)

    def close(self) -> None:
        """Close the map; it lives on while a program uses it."""
        os.close(self.descriptor)


class Batch:
    """Commands about all elements of a hash, many at a time (from v5.6)."""

    def __init__(self, descriptor: int, key_size: int, value_size: int, most: int) -> None:
        """Sizes in bytes; ``most`` elements are read at once, or more where one bucket of the hash has more."""
        self._descriptor, self._key_size, self._value_size = descriptor, key_size, value_size
        self._place = ctypes.create_string_buffer(max(key_size, 4))
        """Where the kernel goes on, in its own words."""
        self._prepare(most)

    def _prepare(self, most: int) -> None:
        self._most = most
        self._keys = ctypes.create_string_buffer(self._key_size * most)
        self._values = ctypes.create_string_buffer(self._value_size * most)

    def read(self, command: int) -> list[tuple[bytes, bytes]]:
        """The elements that ``command`` reads, keys with their values."""
        found: list[tuple[bytes, bytes]] = []
        place = 0
        while True:
            buffers = map(ctypes.addressof, (self._place, self._keys, self._values))
            question = _attributes(BATCH_ATTRIBUTES.pack(place, *buffers, self._most, self._descriptor, 0, 0))
            try:
                _command(command, question)
                ended = False
            except FileNotFoundError:
                ended = True
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._prepare(self._most * 2)
                continue
            count = struct.unpack_from("<I", question, BATCH_COUNT)[0]
            if count:
                keys, values = self._keys.raw, self._values.raw
                found += (
                    (
                        keys[self._key_size * number : self._key_size * (number + 1)],
                        values[self._value_size * number : self._value_size * (number + 1)],
                    )
                    for number in range(count)
                )
            if ended:
                return found
            place = ctypes.addressof(self._place)


def _possible_cpus() -> int:
    """Number of CPUs that per-CPU maps have values for (Documentation/bpf/map_array.rst)."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2].rpartition(",")[2]
    return int(last) + 1


def load_program(
    kind: int,
    instructions: bytes,
    *,
    attach_type: int = 0,
    flags: int = 0,
    name: str = "",
    function: int = 0,
    btf: int = 0,
) -> int:
    """Load a program of ``enum bpf_prog_type`` ``kind`` under the GPL; its descriptor.

    A tracing program is for one ``function``, by its number in the kernel's BTF or in that of a module,
    ``btf`` then being a descriptor from :func:`open_btf`.

    When the verifier refuses the program, the last lines of its log are in the :class:`OSError`. Signals are held back
    meanwhile: the verifier gives up with EAGAIN when one arrives (do_check() in kernel/bpf/verifier.c).
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _bpf(
            PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16sII36xII",
                kind,
                len(instructions) // INSTRUCTION.size,
                ctypes.addressof(code),
                ctypes.addressof(licence),
                1 if log else 0,
                len(log) if log else 0,
                ctypes.addressof(log) if log else 0,
                0,
                flags,
                name.encode()[:15],
                0,
                attach_type,
                function,
                btf,
            ),
        )

    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return load(None)
    except PermissionError as error:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return load(log)
        except OSError:
            words = log.value.decode(errors="replace").strip().splitlines()[-3:]
            raise PermissionError(error.errno, "; ".join([str(error.strerror), *words])) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)


def relocate(instructions: bytes, relocations: Mapping[int, int]) -> bytes:
    """Write map descriptors into instructions: ``relocations`` is descriptor by instruction number."""
    code = bytearray(instructions)
    for number, descriptor in relocations.items():
        struct.pack_into("<i", code, number * INSTRUCTION.size + 4, descriptor)
    return bytes(code)


def map_loads(instructions: bytes) -> dict[int, int]:
    """Descriptors of the maps that the instructions name, by instruction number."""
    return {
        number: immediate
        for number, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(instructions))
        if opcode == LOAD_IMM64 and registers >> 4 == PSEUDO_MAP_FD
    }


def load_nothing(attach_type: int = 0, *, kind: int = PROG_TYPE_KPROBE) -> int:
    """Load a program that only returns 0; its descriptor. For feature tests."""
    r0_is_0, leave = INSTRUCTION.pack(0xB7, 0, 0, 0), INSTRUCTION.pack(0x95, 0, 0, 0)
    return load_program(kind, r0_is_0 + leave, attach_type=attach_type)


def open_raw_tracepoint(program: int, name: str) -> int:
    """Attach a program to a tracepoint (from v4.17); the link's descriptor."""
    string = ctypes.create_string_buffer(name.encode())
    return _bpf(RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", ctypes.addressof(string), program))


def run_program(program: int) -> None:
    """Run a program of :data:`PROG_TYPE_SYSCALL` once, without a context (from v5.14)."""
    # prog_fd, and 68 bytes of the anonymous struct "test", none of which is needed
    _bpf(PROG_RUN, struct.pack("<I76x", program))


def link_functions(
    program: int, functions: Sequence[str] | Sequence[int], cookies: Sequence[int], *, returns: bool = False
) -> int:
    """Attach one program to many functions (kprobe.multi, from v5.18), all named or all by their addresses; the link's
    descriptor. By names it takes the kernel much longer (:mod:`harness.linux.addresses`).

    The program reads the cookie of the function that it was called for by
    ``bpf_get_attach_cookie()``. Closing the descriptor detaches it from all.

    Fails with ``ESRCH`` or ``EINVAL`` when one of the functions cannot be traced.
    """
    names = [function.encode() for function in functions if isinstance(function, str)]
    strings = (ctypes.c_char_p * len(names))(*names)
    addresses = (ctypes.c_uint64 * len(functions))(*(one for one in functions if isinstance(one, int)))
    values = (ctypes.c_uint64 * len(cookies))(*cookies)
    return _bpf(
        LINK_CREATE,
        struct.pack(
            "<IIIIIIQQQ",
            program,
            0,
            TRACE_KPROBE_MULTI,
            0,
            KPROBE_MULTI_RETURN if returns else 0,
            len(functions),
            ctypes.addressof(strings) if names else 0,
            0 if names else ctypes.addressof(addresses),
            ctypes.addressof(values),
        ),
    )


def link_function(program: int, name: str, cookie: int, *, returns: bool = False) -> tuple[int, int]:
    """Attach a program to one function by a kprobe of its own; descriptors of link and probe.

    Needs the kprobe PMU (v4.17) and cookies (v5.15). Closing both detaches it.

    Fails with ``ENOENT`` when there is no such function, ``EINVAL`` when it cannot be probed.
    """
    symbol = ctypes.create_string_buffer(name.encode())
    kind = int((KPROBE_PMU / "type").read_text())
    retprobe = int((KPROBE_PMU / "format/retprobe").read_text().removeprefix("config:"))
    # type, size, config, sample_period, sample_type, read_format, flags, wakeup_events, bp_type,
    # config1 (here the symbol), config2
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
        link = _bpf(LINK_CREATE, struct.pack("<IIIIQ", program, probe, PERF_EVENT, 0, cookie))
    except OSError:
        os.close(probe)
        raise
    return link, probe


def link_trampoline(program: int, cookie: int, *, returns: bool = False) -> int:
    """Attach a tracing program to the function that it was loaded for; the link's descriptor.

    Cookies exist from v5.19. Closing the descriptor detaches it.
    """
    attach_type = TRACE_FEXIT if returns else TRACE_FENTRY
    return _bpf(LINK_CREATE, struct.pack("<IIIIIIQ", program, 0, attach_type, 0, 0, 0, cookie))


def open_btf(module: str) -> int:
    """The descriptor of a loaded module's BTF; raises :class:`FileNotFoundError` when there is none."""
    number = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 12)
        _syscall(SYS_BPF, ctypes.c_int(BTF_GET_NEXT_ID), attributes, ctypes.c_uint(12))
        number = struct.unpack_from("<I", attributes, 4)[0]
        descriptor = _bpf(BTF_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
        name = ctypes.create_string_buffer(64)
        # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf
        info = struct.pack("<QIIQII", 0, 0, 0, ctypes.addressof(name), len(name), 0)
        buffer = ctypes.create_string_buffer(info, len(info))
        _bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, len(info), ctypes.addressof(buffer)))
        if name.value.decode() == module:
            return descriptor
        os.close(descriptor)


def _info(descriptor: int, size: int, offset: int) -> int:
    """The u64 at ``offset`` of the first ``size`` bytes of what the kernel knows of a program or link."""
    question, answer = _question(descriptor, size)
    ctypes.memset(answer, 0, size)  # pointers and counts in it are requests
    _command(OBJ_GET_INFO_BY_FD, question)
    return int(U64.unpack_from(answer, offset)[0])


@lru_cache(256)
def _question(descriptor: int, size: int) -> tuple[Attributes, Attributes]:
    answer = ctypes.create_string_buffer(size)
    return _attributes(struct.pack("<IIQ", descriptor, size, ctypes.addressof(answer))), answer


def recursion_misses(program: int) -> int:
    """Number of runs that the kernel skipped because the program already ran on that CPU (from v5.12)."""
    return _info(program, 216, 208)


def link_misses(link: int) -> int:
    """Number of times that the probes of a kprobe.multi link were skipped (from v6.7; 0 before)."""
    # struct bpf_link_info: type, id, prog_id, pad; kprobe_multi: addrs, count, flags, missed
    return _info(link, 40, 32)
