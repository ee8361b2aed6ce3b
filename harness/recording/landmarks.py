"""Layers and landmarks: what is recorded of a packet's path through the kernel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

from harness.model import layers
from harness.model.observation import Hop
from harness.reading.path import hops_on, layers_of, located, walk
from harness.recording.edit import KeptEntry
from harness.recording.edit import Value as Written
from harness.recording.sample import KeyUpdate, Sample
from harness.scenario.models.expect import PathEntry

LANDMARKS = (
    *("arp_rcv", "ip_rcv", "ipv6_rcv", "br_handle_frame_finish", "br_dev_xmit", "nf_nat_manip_pkt"),
    *("ip_forward", "ip6_forward", "ip_local_deliver", "ip6_input", "ip_output", "ip6_output"),
    *("nf_send_reset", "nf_send_reset6", "nf_send_unreach", "nf_send_unreach6"),
    *("nf_reject_skb_v4_tcp_reset", "nf_reject_skb_v6_tcp_reset"),
    *("nf_reject_skb_v4_unreach", "nf_reject_skb_v6_unreach"),
)
"""Functions recorded as landmarks of a path; other kernels have them, too. Some more are recorded with a detail."""

DROPS = "kfree_skb_reason | sk_skb_reason_drop"
"""Which of them drops depends on the kernel (from 6.11 the first is inlined)."""

LOCAL_RECEIVE = frozenset(
    {
        *("ip_local_deliver_finish", "ip_protocol_deliver_rcu", "ip6_input_finish", "ip6_protocol_deliver_rcu"),
        *("icmp_rcv", "icmpv6_rcv", "tcp_v4_rcv", "tcp_v6_rcv", "udp_rcv", "udpv6_rcv", "sctp_rcv"),
    }
)
"""Functions from the input hook up to a socket: what follows depends on the programs that listen, not on a ruleset."""

NOT_TELLING = frozenset({"Buffer", "Free", "Neighbour", "Qdisc", "Checksum", "Socket", layers.UNKNOWN})
"""Layers that every packet passes, or none for long."""

_Entry = TypeVar("_Entry")


def telling_layers(seen: Sample) -> tuple[str, ...]:
    """The layers of the functions that every kernel has, each where it comes first."""
    whole_way = hops_on(seen.sent.seen, seen.sent.observation.device)
    hops = itertools.takewhile(lambda hop: hop.function not in LOCAL_RECEIVE, whole_way)
    passed = (hop.layer for hop in hops if layers.classify(hop.function).priority == layers.CRITICAL)
    return tuple(layer for layer in dict.fromkeys(passed) if layer not in NOT_TELLING)


def landmarks(seen: Sample, start: int = 0, end: int | None = None) -> tuple[PathEntry, ...]:
    """The characteristic functions among the hops from ``start`` to before ``end``, as entries of a path."""
    device = seen.sent.observation.device
    way = located(seen.sent.seen)
    taken_in = next(
        (at for at, hop in enumerate(way) if hop.host == device and hop.function in LOCAL_RECEIVE), len(way)
    )
    hops = [hop for hop in way[:taken_in][start:end] if hop.host == device]
    sends = [hop for hop in hops if hop.function == "__dev_queue_xmit"]
    entries: list[PathEntry] = []
    for hop in hops:
        if hop.function == "__dev_queue_xmit" and hop is not sends[-1]:
            continue
        entry = _landmark(hop)
        if entry is not None and entry not in entries[-1:]:
            entries.append(entry)
    return tuple(entries)


def _landmark(hop: Hop) -> PathEntry | None:
    if hop.function == "nft_do_chain" and "chain" in hop.detail:
        detail = {key: hop.detail[key] for key in ("chain", "verdict") if hop.detail.get(key)}
        return {"nft_do_chain": detail}  # type: ignore[dict-item]  # as it is written
    if hop.function == "__dev_queue_xmit" and hop.device:
        return {"__dev_queue_xmit": {"device": hop.device}}  # type: ignore[dict-item]
    if "reason" in hop.detail and hop.function in DROPS.split(" | "):
        return DROPS  # and not why: kernels differ in their reasons
    return hop.function if hop.function in LANDMARKS else None


def common_path(measurements: Sequence[Sample]) -> tuple[PathEntry, ...]:
    """The landmarks that all ``measurements`` have."""
    return common([landmarks(seen) for seen in measurements])


def common(ways: Sequence[Sequence[_Entry]]) -> tuple[_Entry, ...]:
    """What stands in all ``ways`` in the same order."""
    first, *others = ways
    common = tuple(first)
    for other in others:
        common = _subsequence(common, other)
    return common


def _subsequence(one: Sequence[_Entry], other: Sequence[_Entry]) -> tuple[_Entry, ...]:
    """The longest common subsequence."""
    best: list[list[tuple[_Entry, ...]]] = [[()] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            if left == right:
                best[i + 1][j + 1] = (*best[i][j], left)
            else:
                best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], key=len)
    return best[-1][-1]


def relayered(expected: Sequence[str], measurements: Sequence[Sample]) -> KeyUpdate:
    """The expected layers that are still passed; all that are shown, if none is."""
    kept = list(range(len(expected)))
    for seen in measurements:
        passed = layers_of(hops_on(seen.sent.seen, seen.sent.observation.device))
        at, still = 0, []
        for index in kept:
            hit = next((n for n in range(at, len(passed)) if passed[n] == expected[index]), None)
            if hit is not None:
                still.append(index)
                at = hit + 1
        kept = still
    if kept:
        return KeyUpdate(keys=("layers",), value=tuple(map(KeptEntry, kept)))
    return KeyUpdate(keys=("layers",), value=list(common([telling_layers(seen) for seen in measurements])) or None)


def repathed(expected: Sequence[PathEntry], measurements: Sequence[Sample]) -> KeyUpdate:
    """The expected functions that are still met, and landmarks in the place of those that are not."""
    first = measurements[0]
    found = walk(expected, first.sent.seen, first.sent.observation.device)
    entries: list[KeptEntry | Written] = []
    start, gap = 0, False
    for index, hit in enumerate(found):
        if hit is None:
            gap = True
            continue
        if gap:
            entries += landmarks(first, start, hit[0])
        entries.append(KeptEntry(index))
        start, gap = hit[0] + 1, False
    if gap:
        entries += landmarks(first, start)
    if len(measurements) > 1 or not any(isinstance(entry, KeptEntry) for entry in entries):
        return KeyUpdate(keys=("path",), value=list(common_path(measurements)) or None)
    return KeyUpdate(keys=("path",), value=tuple(entries))
