"""Which packet a measurement is about, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.observation import Observation
from harness.packets.headers import summarise
from harness.reading.decision import decisive, unsent


def which(place: int, observations: Sequence[Observation]) -> str:
    """Return which of several packets it is and when it was sent, as the beginning of a line; "" for the only one."""
    if len(observations) == 1:
        return ""
    first, this = (observations[number].injected[0].born for number in (0, place))
    when = f", {(this - first) / 1e6:.1f} ms after the first" if place else ""
    return f"packet {place + 1} of {len(observations)}{when}: "


def judged(observation: Observation) -> str:
    """Return one line about the packet of a flow that is judged."""
    packet = decisive(observation)
    if unsent(packet):
        return "no packet was sent"
    return summarise(packet.frame) if packet.frame else f"a packet of {packet.sender}"
