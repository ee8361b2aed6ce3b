"""What a program has counted since a moment is what a measurement lost."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model.observation import Counted, Loss
from harness.tracer.events import RECORD, Event, EventKind, decode
from harness.tracer.session import Counts, TraceSession

BEFORE = Counts(entered=[10, 20, 30], refused=[1, 2, 3], untracked=[4, 5, 6], missed=7)


def test_nothing_counted_is_nothing_lost() -> None:
    assert BEFORE.since(BEFORE, received=0) == Loss()


def test_what_was_counted_before_is_not_of_this_measurement() -> None:
    after = Counts(entered=[15, 20, 37], refused=[1, 2, 5], untracked=[4, 5, 9], missed=18)
    loss = after.since(BEFORE, received=9)
    assert loss == Loss(
        entered=12,
        received=9,
        refused=2,
        untracked=3,
        missed=11,
        cpus={0: Counted(entered=5), 2: Counted(entered=7, refused=2, untracked=3)},
    )
    assert loss.total == 1 + 2 + 3 + 11


@pytest.mark.parametrize(
    ("after", "counted"),
    [
        (BEFORE._replace(entered=[10, 21, 30]), Counted(entered=1)),
        (BEFORE._replace(refused=[1, 3, 3]), Counted(refused=1)),
        (BEFORE._replace(untracked=[4, 6, 6]), Counted(untracked=1)),
    ],
)
def test_a_cpu_counts_by_itself(after: Counts, counted: Counted) -> None:
    assert after.since(BEFORE, received=0).cpus == {1: counted}


def test_counts_of_another_number_of_cpus_do_not_fit() -> None:
    with pytest.raises(ValueError, match="shorter"):
        BEFORE._replace(refused=[1, 2]).since(BEFORE, received=0)


class Kernel:
    """A tracer whose kernel records ``batches``, one for each reading of the ring buffer, and has ``held`` packets."""

    whole = True
    functions = ()

    def __init__(self, *batches: int, held: int = 0) -> None:
        self._batches = iter(batches)
        self._recorded = 0
        self._held = held
        self.ring = SimpleNamespace(read=self._read, decode=decode)

    def _read(self) -> bytes:
        return b"".join(self._events(next(self._batches, 0)))

    def _events(self, number: int) -> Iterator[bytes]:
        for _ in range(number):
            self._recorded += 1
            event = Event(self._recorded, 0, 0, 0, 0, 0, 0, 0, EventKind.HOP, 0)
            yield RECORD.pack(*event)

    def counts(self) -> Counts:
        return Counts([self._recorded], [0], [0], 0)

    def alive(self) -> int:
        return self._held

    def stop(self) -> None:
        pass

    chains = dict
    symbol = staticmethod(hex)
    to_events = bare = staticmethod(list)


def recorded(session: TraceSession) -> tuple[list[int], list[int]]:
    """Times of the events of the recording, and of those that were recorded later."""
    recording = session.finish()
    assert recording.loss.total == 0
    return [event.time for event in recording.events], [event.time for event in recording.later]


def session_of(*batches: int, held: int = 0) -> TraceSession:
    kernel: Any = Kernel(*batches, held=held)
    return TraceSession(kernel)


def test_a_recording_has_everything_until_all_was_still() -> None:
    session = session_of(2, 0, 3)
    assert session.still()
    assert recorded(session) == ([1, 2], [3, 4, 5])


def test_what_was_born_while_the_packets_were_counted_is_waited_for() -> None:
    session = session_of(2, 1, 0, 0, 4)
    assert not session.still()
    assert session.still()
    assert recorded(session) == ([1, 2, 3], [4, 5, 6, 7])


def test_a_packet_that_the_kernel_holds_is_waited_for_until_the_end() -> None:
    session = session_of(1, 1, 1, held=1)
    assert not session.still()
    session.end()
    assert recorded(session) == ([1, 2], [3])


def test_a_recording_that_nobody_ends_has_everything() -> None:
    session = session_of(1, 2, 0)
    session.drain()
    assert recorded(session) == ([1, 2, 3], [])
