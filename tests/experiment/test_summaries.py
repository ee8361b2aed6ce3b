"""Which packet a measurement is about, in one line."""

from __future__ import annotations

import msgspec

from harness.experiment.summaries import judged, which
from harness.model.observation import Drop, Observation, ObservedPacket
from harness.reading.decision import CALL
from tests.builders import PASSED, changed, observation


def born(at: int) -> Observation:
    return observation(changed(born=at))


def test_the_only_packet_needs_no_number() -> None:
    assert which(0, [born(5)]) == ""


def test_of_several_each_has_its_number_and_when_it_was_sent() -> None:
    several = [born(1_000_000), born(3_500_000)]
    assert which(0, several) == "packet 1 of 2: "
    assert which(1, several) == "packet 2 of 2, 2.5 ms after the first: "


def flow(packet: ObservedPacket) -> Observation:
    return msgspec.structs.replace(observation(packet), packets=(packet,))


def test_the_packet_of_a_flow_that_is_judged() -> None:
    assert judged(flow(PASSED)).startswith("203.0.113.5:40000 → 10.0.2.2:443 tcp")
    assert judged(flow(changed(frame=b""))) == "a packet of client"
    never = changed(drop=Drop(host="client", function=CALL, reason="EHOSTUNREACH"), frame=b"")
    assert judged(flow(never)) == "no packet was sent"
