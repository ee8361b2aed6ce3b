"""Many packets in one recording: which events are whose, and which packets cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from harness.reading.decision import FORWARDING, REJECTING
from harness.tracer.events import Event, EventKind
from harness.tracer.session import TraceData
from harness.tracer.traits import NOTIFY

LOCAL_DELIVERY = frozenset({"ip_local_deliver_finish", "ip6_input_finish", "arp_process"})
"""The first functions after the input hook, or for ARP in place of it: the host itself is the destination."""
TELLING = frozenset({"nft_do_chain", "packet_rcv", NOTIFY}) | LOCAL_DELIVERY | FORWARDING | frozenset(REJECTING)
"""Functions by which a packet's verdict, arrivals and answers are known; a path has all others as well."""


def mixed(events: Iterable[Event], sizes: Sequence[int]) -> set[int]:
    """Numbers of the groups of frames, from 0, whose events are not all before those of the next group.

    That is a group that the kernel was not done with when the next was sent, and those up to its last event: what the
    kernel made meanwhile may be of either. ``events`` are those that :func:`telling` keeps, in order of time,
    ``sizes`` are the frames sent of each group.
    """
    group_of = [number for number, size in enumerate(sizes) for _ in range(size)]
    found: set[int] = set()
    owners: dict[int, int] = {}
    sent = current = 0
    for event in events:
        if event.kind == EventKind.BIRTH:
            if event.a and sent < len(group_of):
                current = group_of[sent]
                sent += 1
            owners[event.packet] = current
        elif (owner := owners.get(event.packet, current)) != current:
            found.update(range(owner, current + 1))
    return found


def telling(recording: TraceData) -> TraceData:
    """``recording`` without the calls of functions that no verdict, arrival or answer is known by.

    Among these are those that copy: a copy may get the address of a packet that is gone, and counts as that until the
    function returns.
    """
    kept = {number for number, function in enumerate(recording.functions) if function.name in TELLING}
    calls = (EventKind.HOP, EventKind.RETURN)
    events = [event for event in recording.events if event.kind not in calls or event.function in kept]
    return msgspec.structs.replace(recording, events=events)
