"""Addresses of the kernel's symbols by their names, asked of the kernel by a program of BPF.

A link of kprobe.multi by names makes the kernel go through all of its 170,000 symbols for each link
(ftrace_lookup_symbols() in kernel/trace/ftrace.c): 70 ms in an emulated guest, and to read ``/proc/kallsyms`` takes
300. ``bpf_kallsyms_lookup_name()`` (from v5.16) searches the sorted names, or only those of the one module that is
named (module_kallsyms_lookup_name() in kernel/module/kallsyms.c): 0.03 ms each.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final

from harness.linux import bpf
from harness.linux.bpf import INSTRUCTION

SLOTS: Final = 64
"""Names that one run of the program looks up."""
NAME_BYTES: Final = 128
"""Of a slot, a zero at the end included; longer names are not looked up."""

_ARRAY: Final = 2
"""Of enum bpf_map_type."""
_LOOK_UP: Final = 179
"""bpf_kallsyms_lookup_name() of enum bpf_func_id."""
_ZERO: Final = bytes(4)
_RESULTS: Final = SLOTS * NAME_BYTES
"""Where in the map the addresses stand, behind the names."""


class Addresses:
    """Looks up addresses, until it is closed."""

    def __init__(self) -> None:
        """Raises :class:`OSError` where the kernel refuses the program."""
        self._map = bpf.Map(_ARRAY, 4, _RESULTS + 8 * SLOTS, 1, "symbols")
        try:
            self._program = bpf.load_program(
                bpf.PROG_TYPE_SYSCALL, _program(self._map.descriptor), flags=bpf.SLEEPABLE, name="addresses"
            )
        except OSError:
            self._map.close()
            raise

    def find(self, names: Sequence[str]) -> list[int]:
        """Addresses of symbols, each ``name`` or, in a module, ``module:name``; 0 for one that is not found.

        Of several with one name it is that of the first.
        """
        found: list[int] = []
        for first in range(0, len(names), SLOTS):
            some = [name.encode() for name in names[first : first + SLOTS]]
            fitting = [name if len(name) < NAME_BYTES else b"" for name in some]
            self._map[_ZERO] = b"".join(name.ljust(NAME_BYTES, b"\0") for name in fitting)
            bpf.run_program(self._program)
            found += struct.unpack_from(f"<{len(some)}Q", self._map.get(_ZERO) or b"", _RESULTS)
        return found

    def close(self) -> None:
        """Close the program and its map."""
        os.close(self._program)
        self._map.close()


def _program(map_: int) -> bytes:
    """``bpf_kallsyms_lookup_name(name, NAME_BYTES, 0, &address)`` for each slot of the map with this descriptor."""

    def place(register: int, offset: int) -> bytes:
        load = INSTRUCTION.pack(bpf.LOAD_IMM64, register | bpf.PSEUDO_MAP_VALUE << 4, 0, map_)
        return load + INSTRUCTION.pack(0, 0, 0, offset)

    def put(register: int, value: int) -> bytes:
        return INSTRUCTION.pack(0xB7, register, 0, value)

    call, leave = INSTRUCTION.pack(0x85, 0, 0, _LOOK_UP), INSTRUCTION.pack(0x95, 0, 0, 0)
    each = (
        place(1, slot * NAME_BYTES) + put(2, NAME_BYTES) + put(3, 0) + place(4, _RESULTS + 8 * slot) + call
        for slot in range(SLOTS)
    )
    return b"".join(each) + put(0, 0) + leave
