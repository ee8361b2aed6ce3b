"""One recording: the events that the tracer took while a scenario watched, and what was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from harness.model.observation import Counted, Loss
from harness.tracer.discover import Function
from harness.tracer.events import Event, ProbeEvent

if TYPE_CHECKING:
    from harness.tracer.base import BaseTracer

WAITING_BYTES = 256 << 20
"""Most bytes of events that were read and not yet taken."""


class Counts(NamedTuple):
    """Counters of the program by CPU, and how often the kernel has skipped a run of it."""

    entered: list[int]
    refused: list[int]
    untracked: list[int]
    missed: int

    def since(self, before: Counts, *, received: int) -> Loss:
        """What was lost since ``before``; ``received`` is the number of events that arrived."""
        rows = zip(*self[:3], *before[:3], strict=True)
        cpus = {
            cpu: Counted(entered=row[0] - row[3], refused=row[1] - row[4], untracked=row[2] - row[5])
            for cpu, row in enumerate(rows)
            if row[:3] != row[3:]
        }
        return Loss(
            entered=sum(cpu.entered for cpu in cpus.values()),
            received=received,
            refused=sum(cpu.refused for cpu in cpus.values()),
            untracked=sum(cpu.untracked for cpu in cpus.values()),
            missed=abs(self.missed - before.missed),  # a run that was made up for and not skipped is wrong as well
            cpus=cpus,
        )


class TraceData(msgspec.Struct, frozen=True, kw_only=True):
    """What the tracer recorded of one scenario, not yet joined with the other oracles."""

    events: list[Event]
    functions: tuple[Function, ...]
    """By the number that events carry."""
    chains: Mapping[int, str]
    """``family table chain`` by address, of the chains met."""
    symbol: Callable[[int], str]
    """Name of the function that contains a code address, as in ``DROP`` events; the first call may take a second."""
    loss: Loss
    later: Sequence[Event] = ()
    """What was recorded when all was still already, such as the first events of a retransmission: messages and frames
    of these may have been read, or not."""
    whole: bool = True
    """Whether every call of ``functions`` is in ``events``, or only those that were observed."""


class TraceSession:
    """One scenario being recorded; made by :meth:`BaseTracer.watch`."""

    def __init__(self, tracer: BaseTracer) -> None:
        self._tracer = tracer
        self._batches: deque[bytes | memoryview] = deque()
        self._waiting = 0
        self._taken = 0
        self._end: int | None = None
        """Bytes of events before :meth:`end`."""
        self._before = tracer.counts()

    def drain(self) -> None:
        """Read what the ring buffer holds."""
        self._batches.append(batch := self._tracer.ring.read())
        self._waiting += len(batch)

    def is_empty(self) -> bool:
        """Whether nothing has been recorded until now; reads the ring buffer."""
        self.drain()
        return not self._waiting and not self._taken

    def alive(self) -> int:
        """Number of sk_buffs of this scenario that the kernel has not released yet; reads the ring buffer."""
        self.drain()
        return self._tracer.alive()

    def end(self) -> None:
        """Read the ring buffer; what is recorded after that is *later* (:attr:`TraceData.later`)."""
        self.drain()
        self._end = self._waiting

    def still(self) -> bool:
        """Whether the kernel has released all sk_buffs of this scenario; if so, the recording has its :meth:`end`."""
        if self.alive():
            return False
        known = self._waiting
        self.end()
        return self._waiting == known  # else there may be a packet that was born behind alive()'s back

    def take(self, most: int) -> Sequence[ProbeEvent]:
        """The next events, at most ``most``, oldest first; for callers that do not wait for the end.

        Decoding is slower than the kernel fills the buffer, so the buffer is emptied before each call. With more
        than :data:`WAITING_BYTES` already read it is not, and the kernel counts the events that find no room.
        """
        if self._waiting < WAITING_BYTES:
            self.drain()
        size = most * self._tracer.ring.record
        while self._batches and not self._batches[0]:
            self._batches.popleft()
        if not self._batches:
            return []
        batch = memoryview(self._batches.popleft())
        self._batches.appendleft(batch[size:])
        taken = cast("list[ProbeEvent]", self._tracer.ring.decode(batch[:size]))
        self._waiting -= len(batch[:size])
        self._taken += len(taken)
        return taken

    def finish(self) -> TraceData:
        """Stop recording; return everything recorded, of which nothing was taken."""
        after = self._stop()
        recorded = b"".join(self._batches)
        end = len(recorded) if self._end is None else self._end
        seen, later = map(self._tracer.ring.decode, (recorded[:end], recorded[end:]))
        loss = after.since(self._before, received=len(seen) + len(later))
        return TraceData(
            # What is incomplete may not be understood, and nobody needs it.
            events=[] if loss.total else self._tracer.to_events(seen),
            functions=tuple(self._tracer.functions),
            chains=self._tracer.chains(),
            symbol=self._tracer.symbol,
            loss=loss,
            later=self._tracer.bare(later),
            whole=self._tracer.whole,
        )

    def rest(self) -> tuple[list[ProbeEvent], Loss]:
        """Stop recording; return the records not yet taken, decoded, and what was lost."""
        after = self._stop()
        seen = cast("list[ProbeEvent]", self._tracer.ring.decode(b"".join(self._batches)))
        return seen, after.since(self._before, received=self._taken + len(seen))

    def _stop(self) -> Counts:
        """Stop recording and read the rest; return what was counted until then."""
        self._tracer.stop()
        while True:
            # A program may still be running on another CPU.
            after = self._tracer.counts()
            self.drain()
            if self._tracer.counts() == after:
                return after
