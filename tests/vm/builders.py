"""Kernel images made by hand."""

from __future__ import annotations

import struct


def kernel(release: str) -> bytes:
    """What Linux Documentation/arch/x86/boot.rst asks of a kernel image's first bytes, as far as it is read."""
    text = f"{release} (builder@host) #1 SMP".encode() + b"\0"
    head = b"\0" * 0x1FE + b"\x55\xaa" + b"\xeb\x6a" + b"HdrS" + struct.pack("<HIHH", 0x20F, 0, 0, 0x100)
    return head.ljust(0x300, b"\0") + text
