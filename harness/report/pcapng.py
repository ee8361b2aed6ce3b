"""Capture files in the format pcapng, as Wireshark and tshark read them.

Source: draft-ietf-opsawg-pcapng, "PCAP Next Generation (pcapng) Capture File Format". Only what a
capture needs is here: one section, its interfaces, and packets with comments, times in nanoseconds.
docs/decisions.md says why no library writes them.
"""

from __future__ import annotations

import enum
import struct
from typing import BinaryIO, Final

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
"""Block types."""
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
NO_LENGTH: Final = -1
"""Of a section: its end is the file's."""

END, COMMENT = 0, 1
APPLICATION = 4
NAME, DESCRIPTION, RESOLUTION = 2, 3, 9
FLAGS = 2
"""Option codes, those of each kind of block in a row."""
NANOSECONDS: Final = b"\x09"

ETHERNET, COOKED = 1, 113
"""LINKTYPE_ETHERNET, and LINKTYPE_LINUX_SLL for packets without an Ethernet header."""


class FrameDirection(enum.IntEnum):
    """Which way a packet passed an interface, as in the flags of its block."""

    UNKNOWN = 0
    IN = 1
    OUT = 2


class Writer:
    """Writes one capture into ``file``; every block goes there at once and whole."""

    def __init__(self, file: BinaryIO, comment: str = "") -> None:
        self._file = file
        self._interfaces = 0
        options = [*_text(COMMENT, comment), *_text(APPLICATION, "nft-harness")]
        self._block(SECTION, struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, NO_LENGTH), options)

    def interface(self, name: str, description: str = "", link: int = ETHERNET) -> int:
        """Declare an interface; the number that its packets name it by."""
        options = [*_text(NAME, name), *_text(DESCRIPTION, description), (RESOLUTION, NANOSECONDS)]
        self._block(INTERFACE, struct.pack("<HHI", link, 0, 0), options)
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        time: int,
        data: bytes,
        *,
        length: int | None = None,
        direction: FrameDirection = FrameDirection.UNKNOWN,
        comment: str = "",
    ) -> None:
        """Write a packet seen at ``interface`` at ``time``, nanoseconds since 1970.

        ``length`` is its own in bytes, where ``data`` is not all of it.
        """
        head = struct.pack(
            "<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), len(data) if length is None else length
        )
        options = [(FLAGS, struct.pack("<I", direction))] if direction else []
        self._block(PACKET, head + _padded(data), [*options, *_text(COMMENT, comment)])

    def _block(self, kind: int, body: bytes, options: list[tuple[int, bytes]]) -> None:
        end = [(END, b"")] if options else []
        content = body + b"".join(
            struct.pack("<HH", code, len(value)) + _padded(value) for code, value in [*options, *end]
        )
        length = len(content) + 12
        self._file.write(struct.pack("<II", kind, length) + content + struct.pack("<I", length))


def _text(code: int, text: str) -> list[tuple[int, bytes]]:
    return [(code, text.encode(errors="replace")[:0xFFFF])] if text else []


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
