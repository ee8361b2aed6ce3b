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


EVENT = struct.Struct("<QQQQIIIHBB")
HEADER = struct.Struct("<II")
RECORD = struct.Struct("<8x" + EVENT.format.removeprefix("<"))
BUSY = 1 << 31
DISCARD = 1 << 30


class Ring:
    """The reading side of a BPF ring buffer whose records are all events.

    ``size`` is that of the data area in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        page = mmap.PAGESIZE
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
        words = RECORD.size // 4
        lengths = batch.cast("I")[::words].tolist()
        complete = next((i for i, length in enumerate(lengths) if length != EVENT.size), len(lengths))
        if complete < len(lengths) and not lengths[complete] & BUSY:
            raise BrokenMeasurement(f"the ring buffer holds a record of {lengths[complete]} bytes, not {EVENT.size}")
        records = bytes(batch[: complete * RECORD.size])
        self._consumer[0] = start + len(records)
        return records

    def close(self) -> None:
        """Give the mappings back."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()


def decode(records: bytes | memoryview) -> list[Event]:
    """The events in what :meth:`Ring.read` gave, oldest first."""
    return sorted(map(Event._make, RECORD.iter_unpack(records)), key=itemgetter(0))
