"""Events as the BPF program writes them, and the ring buffer they arrive in.

The buffer is read where the kernel maps it, a whole batch at a time and without a call per
event. Layout of the buffer: kernel/bpf/ringbuf.c, Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import enum
import mmap
import struct
from operator import itemgetter
from typing import Any, NamedTuple

from harness.errors import BrokenMeasurement


class EventKind(enum.IntEnum):
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
    VISIT = 14
    RECEIVED = 15
    CONSUMED = 16


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


class EventWithBytes(NamedTuple):
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


class StackEvent(NamedTuple):
    """``struct record`` in bpf/trace.c: an event at a tracepoint."""

    time: int
    event: Event
    stack: tuple[int, ...]
    """Return addresses, the innermost first; empty for an event that has none."""


SNAP = 128
"""Bytes of a packet in an event."""
EVENT = struct.Struct("<QQQQIIIHBB")
SNAPPED = struct.Struct(f"{EVENT.format}IHH{SNAP}s")
HEADER = struct.Struct("<II")
RECORD, SNAPPED_RECORD = (struct.Struct("<8x" + event.format.removeprefix("<")) for event in (EVENT, SNAPPED))
DEPTH = 64
"""Return addresses that are kept of a stack, at most."""
VISITED_RECORD = struct.Struct(f"{RECORD.format}q{DEPTH}Q")
BUSY = 1 << 31


def _visit(fields: tuple[int, ...]) -> StackEvent:
    event = Event._make(fields[: len(Event._fields)])
    size, *stack = fields[len(event) :]
    return StackEvent(event.time, event, tuple(stack[: max(size, 0) // 8]))


class Shape(enum.Enum):
    """What records of a ring buffer are: how they lie there, and what is made of one."""

    EVENTS = (RECORD, Event._make)
    SNAPPED = (SNAPPED_RECORD, EventWithBytes._make)
    VISITS = (VISITED_RECORD, _visit)


class Ring:
    """The reading side of a BPF ring buffer whose records are all of one shape.

    ``size`` is that of the data area in bytes.
    """

    def __init__(self, descriptor: int, size: int, shape: Shape = Shape.EVENTS) -> None:
        page = mmap.PAGESIZE
        self._shape = shape
        self.record = shape.value[0].size
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
        lengths = batch.cast("I")[:: self.record // 4].tolist()
        length = self.record - HEADER.size
        complete = next((i for i, found in enumerate(lengths) if found != length), len(lengths))
        if complete < len(lengths) and not lengths[complete] & BUSY:
            raise BrokenMeasurement(f"the ring buffer holds a record of {lengths[complete]} bytes, not {length}")
        records = bytes(batch[: complete * self.record])
        self._consumer[0] = start + len(records)
        return records

    def decode(self, records: bytes | memoryview) -> list[Any]:
        """What :meth:`read` gave, an object for each record, oldest first."""
        return decode(records, self._shape)

    def close(self) -> None:
        """Give the mappings back."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()


def decode(records: bytes | memoryview, shape: Shape = Shape.EVENTS) -> list[Any]:
    """What is in ``records``, oldest first."""
    record, make = shape.value
    return sorted(map(make, record.iter_unpack(records)), key=itemgetter(0))
