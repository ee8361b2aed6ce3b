"""Events as the BPF program writes them, and the ring buffer they arrive in.

The buffer is read where the kernel maps it, a whole batch at a time and without a call per
event. Layout of the buffer: kernel/bpf/ringbuf.c, Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import enum
import mmap
import struct
from operator import itemgetter
from typing import NamedTuple

from harness.errors import BrokenMeasurement


class Kind(enum.IntEnum):
    """``enum kind`` in bpf/trace.c."""

    BIRTH = 0
    COPY = 1
    HOP = 2
    RETURN = 3
    RULE = 4
    DROP = 5
    FROM = 6
    TO = 7
    STACK = 8
    VERDICT = 9
    TARGET = 10
    ROUTE = 11
    NAMED = 12
    GONE = 13


class Event(NamedTuple):
    """``struct event`` in bpf/trace.c, which says what each field is."""

    time: int
    skb: int
    a: int
    b: int
    packet: int
    netns: int
    ifindex: int
    function: int
    kind: int
    cpu: int


class Snapped(NamedTuple):
    """``struct event`` with bytes of the packet, as it is with ``SNAP``."""

    time: int
    skb: int
    a: int
    b: int
    packet: int
    netns: int
    ifindex: int
    function: int
    kind: int
    cpu: int
    length: int
    here: int
    protocol: int
    data: bytes


SNAP = 128
"""Bytes of a packet in an event."""
EVENT = struct.Struct("<QQQQIIIHBB")
SNAPPED = struct.Struct(f"{EVENT.format}IHH{SNAP}s")
HEADER = struct.Struct("<II")
RECORD, SNAPPED_RECORD = (struct.Struct("<8x" + event.format.removeprefix("<")) for event in (EVENT, SNAPPED))
BUSY = 1 << 31
DISCARD = 1 << 30


class Ring:
    """The reading side of a BPF ring buffer whose records are all events.

    ``size`` is that of the data area in bytes, with ``snapped`` events have bytes.
    """

    def __init__(self, descriptor: int, size: int, *, snapped: bool = False) -> None:
        page = mmap.PAGESIZE
        self._snapped = snapped
        self._event = (SNAPPED if snapped else EVENT).size
        self.record = HEADER.size + self._event
        """Bytes of a record."""
        self._size = size
        self._consumer_map = mmap.mmap(descriptor, page)
        # The data area is mapped twice in a row, so a batch that wraps around is still in one piece.
        self._producer_map = mmap.mmap(descriptor, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._producer_map)[:8].cast("Q")
        self._data = memoryview(self._producer_map)[page:]

    def read(self) -> bytes:
        """All complete records not read before, headers included."""
        start, end = self._consumer[0], self._producer[0]
        offset = start % self._size
        batch = self._data[offset : offset + end - start]
        words = self.record // 4
        lengths = batch.cast("I")[::words].tolist()
        complete = next((i for i, length in enumerate(lengths) if length != self._event), len(lengths))
        if complete < len(lengths) and not lengths[complete] & BUSY:
            raise BrokenMeasurement(f"the ring buffer holds a record of {lengths[complete]} bytes, not {self._event}")
        records = bytes(batch[: complete * self.record])
        self._consumer[0] = start + len(records)
        return records

    def decode(self, records: bytes | memoryview) -> list[Event] | list[Snapped]:
        """The events in what :meth:`read` gave, oldest first."""
        return decode_snapped(records) if self._snapped else decode(records)

    def close(self) -> None:
        """Give the mappings back."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()


def decode(records: bytes | memoryview) -> list[Event]:
    """The events in what :meth:`Ring.read` gave, oldest first."""
    return sorted(map(Event._make, RECORD.iter_unpack(records)), key=itemgetter(0))


def decode_snapped(records: bytes | memoryview) -> list[Snapped]:
    """:func:`decode` for events with bytes."""
    return sorted(map(Snapped._make, SNAPPED_RECORD.iter_unpack(records)), key=itemgetter(0))
