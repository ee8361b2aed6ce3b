"""The ring buffer's reading side, on a memory file that is laid out as the kernel lays out its own."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from harness.errors import BrokenMeasurement
from harness.tracer.events import BUSY, EVENT, HEADER, RECORD, Event, EventKind, Ring, decode

PAGE = mmap.PAGESIZE
SIZE = 8 * PAGE


class Kernel:
    """The writing side: a page with the reader's position, one with the writer's, the data twice."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, 2 * PAGE + 2 * SIZE)
        self.produced = 0

    def write(self, event: Event, flags: int = 0, length: int = EVENT.size) -> int:
        """Append a record; where it begins."""
        start = self.produced
        record = HEADER.pack(length | flags, 0) + EVENT.pack(*event)
        for number, byte in enumerate(record):
            offset = (start + number) % SIZE
            for copy in (0, SIZE):  # the kernel maps the same pages twice
                os.pwrite(self.descriptor, bytes([byte]), 2 * PAGE + copy + offset)
        self.produced += len(record)
        os.pwrite(self.descriptor, struct.pack("<Q", self.produced), PAGE)
        return start

    def commit(self, start: int) -> None:
        for copy in (0, SIZE):
            os.pwrite(self.descriptor, HEADER.pack(EVENT.size, 0), 2 * PAGE + copy + start % SIZE)

    @property
    def consumed(self) -> int:
        return int.from_bytes(os.pread(self.descriptor, 8, 0), "little")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    os.close(kernel.descriptor)


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    ring = Ring(kernel.descriptor, SIZE)
    yield ring
    ring.close()


def event(number: int) -> Event:
    return Event(
        time=number,
        skb=0xFFFF888000000000 + number,
        a=1,
        b=2,
        packet=3,
        netns=4026531840,
        ifindex=5,
        function=1234,
        kind=EventKind.HOP,
        cpu=1,
    )


class TestRing:
    def test_what_was_written_is_read_once(self, kernel: Kernel, ring: Ring) -> None:
        assert ring.read() == b""
        for number in range(3):
            kernel.write(event(number))
        assert decode(ring.read()) == [event(0), event(1), event(2)]
        assert ring.read() == b""
        assert kernel.consumed == kernel.produced == 3 * RECORD.size

    def test_a_batch_that_wraps_around(self, kernel: Kernel, ring: Ring) -> None:
        fitting = SIZE // RECORD.size
        assert SIZE % RECORD.size, "one record lies across the end"
        for number in range(fitting):
            kernel.write(event(number))
        assert len(decode(ring.read())) == fitting
        for number in range(fitting):
            kernel.write(event(number))
        assert decode(ring.read()) == [event(number) for number in range(fitting)]

    def test_a_record_still_being_written_is_left_for_the_next_time(self, kernel: Kernel, ring: Ring) -> None:
        kernel.write(event(0))
        busy = kernel.write(event(1), BUSY)
        kernel.write(event(2))
        assert decode(ring.read()) == [event(0)]
        assert decode(ring.read()) == []
        kernel.commit(busy)
        assert decode(ring.read()) == [event(1), event(2)]

    def test_a_record_of_another_size_breaks_the_measurement(self, kernel: Kernel, ring: Ring) -> None:
        kernel.write(event(0), length=EVENT.size + 8)
        with pytest.raises(BrokenMeasurement, match=f"a record of {EVENT.size + 8} bytes, not {EVENT.size}"):
            ring.read()


def test_events_of_several_cpus_come_in_the_order_of_time() -> None:
    records = b"".join(HEADER.pack(EVENT.size, 0) + EVENT.pack(*event(number)) for number in (3, 1, 2))
    assert [event.time for event in decode(records)] == [1, 2, 3]
