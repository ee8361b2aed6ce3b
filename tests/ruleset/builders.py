"""Messages of nfnetlink as the kernel packs them, and a ruleset that no reader may find."""

from __future__ import annotations

import struct

from harness.linux.netlink import Message

NESTED = 0x8000
CANARY = "add table ip canary"
"""In a folder beside that of the project."""


def attribute(kind: int, payload: bytes) -> bytes:
    """As nla_put in lib/nlattr.c."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, *inside: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(inside))


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def s32(number: int) -> bytes:
    return struct.pack(">i", number)


def message(kind: int, family: int, *attributes: bytes) -> Message:
    """A message of a subsystem of netfilter: ``struct nfgenmsg``, then attributes."""
    return Message(kind, 0, 0, memoryview(struct.pack("=BBH", family, 0, 0) + b"".join(attributes)))
