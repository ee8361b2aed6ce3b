"""Many packets in one recording: whose the events are, and what is not certain."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.experiment.apart import mixed
from harness.tracer.events import Event, EventKind


def events(*told: tuple[int, EventKind, int]) -> list[Event]:
    """Events of packets by number, kind and, of a birth, whether it was injected."""
    return [Event(time, 0xFF00 + packet, a, 0, packet, 1, 2, 3, kind, 0) for time, (packet, kind, a) in enumerate(told)]


BIRTH, HOP, DROP = EventKind.BIRTH, EventKind.HOP, EventKind.DROP


@pytest.mark.parametrize(
    ("sizes", "told", "unclear"),
    [
        ([1, 1], [(1, BIRTH, 7), (1, HOP, 0), (2, BIRTH, 7), (2, HOP, 0)], set()),
        # The first was held and is dropped after the second was sent: the answer may be to either.
        ([1, 1], [(1, BIRTH, 7), (2, BIRTH, 7), (1, DROP, 0), (3, BIRTH, 0)], {0, 1}),
        # An answer of the kernel belongs to the packet before, and ends before the next one.
        ([1, 1], [(1, BIRTH, 7), (2, BIRTH, 0), (2, DROP, 0), (3, BIRTH, 7)], set()),
        ([1, 1, 1], [(1, BIRTH, 7), (2, BIRTH, 0), (3, BIRTH, 7), (2, DROP, 0), (4, BIRTH, 7)], {0, 1}),
        # Frames of one group are sent back to back.
        ([2, 1], [(1, BIRTH, 7), (2, BIRTH, 7), (1, DROP, 0), (3, BIRTH, 7)], set()),
    ],
)
def test_packets_whose_events_interleave_are_unclear(
    sizes: Sequence[int], told: list[tuple[int, EventKind, int]], unclear: set[int]
) -> None:
    assert mixed(events(*told), sizes) == unclear
