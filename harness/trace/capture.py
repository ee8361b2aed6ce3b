"""A live trace as a pcapng file."""

from __future__ import annotations

import struct
from typing import BinaryIO

from harness.report.pcapng import COOKED, ETHERNET, Writer
from harness.trace.lines import Line
from harness.tracer.events import EventWithBytes

COOKED_HEADER = struct.Struct("!HHH8sH")
ARPHRD_NONE = 0xFFFE


class EventCapture:
    """Writes a record for each event, with the packet's bytes at that moment.

    ``epoch`` is how far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, nanoseconds.
    """

    def __init__(self, file: BinaryIO, epoch: int) -> None:
        self._writer = Writer(file, "each record is a function that a packet met, with its bytes at that moment")
        self._epoch = epoch
        self._interfaces: dict[tuple[int, str, int], int] = {}

    def add(self, line: Line, event: EventWithBytes) -> None:
        """Write one event."""
        link = COOKED if event.protocol else ETHERNET
        key = line.netns, line.device, link
        if key not in self._interfaces:
            name = line.device or "none"
            self._interfaces[key] = self._writer.interface(name, f"network namespace {line.netns}", link)
        # No Ethernet header (yet): that of LINKTYPE_LINUX_SLL holds the protocol only.
        head = COOKED_HEADER.pack(0, ARPHRD_NONE, 0, b"", event.protocol) if event.protocol else b""
        verdict = f"[{line.verdict}]" if line.verdict else ""
        comment = " ".join(filter(None, (f"packet {line.packet}:", line.kind, line.function, verdict, line.detail)))
        self._writer.packet(
            self._interfaces[key],
            event.time + self._epoch,
            head + event.data[: event.captured],
            length=len(head) + max(event.length, event.captured),
            comment=f"{comment}\nlayer {line.layer}",
        )
