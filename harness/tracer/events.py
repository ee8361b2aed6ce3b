"""Events as the BPF program writes them, and the ring buffer they arrive in.

The buffer is read where the kernel maps it, a whole batch at a time and without a call per event. Layout of the
buffer: kernel/bpf/ringbuf.c, Documentation/bpf/ringbuf.rst. The C declarations of ``enum event_kind``, ``struct
event`` and ``struct record`` are generated from those here, see :mod:`harness.tracer.contract`.
"""

from __future__ import annotations

import enum
import mmap
import struct
from operator import itemgetter
from typing import Annotated, NamedTuple

from harness.errors import BrokenMeasurement
from harness.tracer.cdecl import C, CEnum, layout, members


class EventKind(CEnum):
    """What an event is about, and what its ``a`` and ``b`` mean."""

    BIRTH = 0, "a: cookie of the sending socket, 0 if the kernel made the packet"
    COPY = 1, "a: the sk_buff it was copied from"
    HOP = (
        2,
        (
            "a: the chain for nft_do_chain, the capturing socket's cookie for packet_rcv; "
            "b: hook | family << 8 where there is one, in a live trace | priority << 32 for a chain"
        ),
    )
    RETURN = 3, "a: the function's result; b: hook | family << 8 of a hook, 1 if a chain's policy decided"
    RULE = 4, "a: handle of the rule or 0; b: id of the packet in nf_tables' trace"
    DROP = 5, "a: address of the caller that dropped it; b: enum skb_drop_reason"
    FROM = 6, ("a, b: source address of a live packet; ifindex: port | protocol << 16; function: the EtherType")
    TO = 7, "the same for its destination"
    STACK = 8, "a: number in `stacks`, for the event before"
    VERDICT = 9, ("a: the chain; b: handle of its rule | low byte of the verdict's code << 40 | high half << 48")
    TARGET = 10, "a: the chain that the verdict before jumps to"
    ROUTE = (
        11,
        ("a, b: gateway; ifindex: output device | type of the route << 24, 255 for IPv6, whose routes have none"),
    )
    NAMED = 12, "a: a chain whose name is new in `chains`"
    GONE = 13, "the sk_buff was freed"
    VISIT = 14, "at a tracepoint, with the stack there; RULE, DROP and the next two have one as well"
    RECEIVED = 15, "passed to the protocol stack"
    CONSUMED = 16, "freed without being dropped"


PACKET_CPU_SHIFT = 24
HOOK_FAMILY_SHIFT = 8
CHAIN_PRIORITY_SHIFT = 32
VERDICT_CODE_SHIFT = 40
VERDICT_HIGH_SHIFT = 48
ROUTE_TYPE_SHIFT = 24
ROUTE_TYPE_IPV6 = 255
PORT_PROTOCOL_SHIFT = 16
"""Where the parts of ``packet``, ``b`` and ``ifindex`` lie, as :class:`EventKind` has it."""


def bits_below(shift: int, value: int) -> int:
    """The lowest ``shift`` bits of ``value``."""
    return value & (1 << shift) - 1


SNAP = 128
"""Bytes of a packet in an event."""
DEPTH = 64
"""Return addresses that are kept of a stack, at most."""


class Event(NamedTuple):
    """``struct event`` of the BPF program."""

    time: Annotated[int, C("u64", "ns, CLOCK_MONOTONIC")]
    skb: Annotated[int, C("u64")]
    a: Annotated[int, C("u64")]
    b: Annotated[int, C("u64")]
    packet: Annotated[int, C("u32", "CPU << 24 | order of birth there: one number for a packet and its copies")]
    netns: Annotated[int, C("u32", "inode number; 0 if not known")]
    ifindex: Annotated[int, C("u32")]
    function: Annotated[int, C("u16")]
    kind: Annotated[int, C("u8", "enum event_kind")]
    cpu: Annotated[int, C("u8")]


class EventWithBytes(NamedTuple):
    """``struct event`` where it has bytes of the packet (``SNAP``): an :class:`Event`'s members, and four more."""

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
    length: Annotated[int, C("u32", "of the packet, from the first byte in `data` on")]
    captured: Annotated[int, C("u16", "bytes in `data`: linear data only")]
    protocol: Annotated[int, C("u16", "EtherType if `data` begins behind the Ethernet header, 0 if with it")]
    data: Annotated[bytes, C("u8", "", SNAP, "SNAP")]


class StackEvent(NamedTuple):
    """``struct record`` of the BPF program: an event at a tracepoint."""

    time: int
    event: Event
    stack: tuple[int, ...]
    """Return addresses, the innermost first; empty for an event that has none."""


ProbeEvent = Event | EventWithBytes
"""What a probe records; only probes trace live, see :meth:`harness.tracer.session.TraceSession.take`."""
Record = ProbeEvent | StackEvent
"""What a record of a ring buffer is decoded to; its first member is the time. :class:`Shape` says which of them."""

EVENT = layout(members(Event))
BYTES = members(EventWithBytes)
"""What :class:`EventWithBytes` has beside an :class:`Event`."""
STACK = {
    "bytes": C("s64", "of the return addresses; negative if there is no stack"),
    "frames": C("u64", "return addresses, the innermost first", DEPTH, "STACK_DEPTH"),
}
"""What ``struct record`` holds beside the event, at tracepoints."""
HEADER = struct.Struct("<II")
RECORD, SNAPPED_RECORD, VISITED_RECORD = (
    struct.Struct("<8x" + "".join(layout(part).format.removeprefix("<") for part in parts))
    for parts in ([members(Event)], [members(Event), BYTES], [members(Event), STACK])
)
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

    def decode(self, records: bytes | memoryview) -> list[Record]:
        """The records that :meth:`read` gave, oldest first, each of the class of the ring's shape."""
        return decode(records, self._shape)

    def close(self) -> None:
        """Give the mappings back."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()


def decode(records: bytes | memoryview, shape: Shape = Shape.EVENTS) -> list[Record]:
    """The records that stand in ``records``, headers included, oldest first; each of the class of ``shape``."""
    record, make = shape.value
    return sorted(map(make, record.iter_unpack(records)), key=itemgetter(0))
