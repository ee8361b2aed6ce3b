"""The packet's path through the kernel, aligned with an expected one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from harness.model.observation import Hop, ObservedPacket, Value
from harness.scenario.models.expect import Exactly, Expect, HopDetail, PathEntry


class PathRow(Value, frozen=True, kw_only=True):
    """One line of an expected path laid beside the path seen."""

    expected: PathEntry | None = None
    """The expected function; None for a hop that nobody asked for."""
    hop: Hop | None = None
    """The hop seen there; None where nothing stands beside the expected function."""
    met: bool = True
    """Whether ``expected``, if any, is this hop."""


def located(packet: ObservedPacket) -> tuple[Hop, ...]:
    """Return the hops, each with a host.

    A packet without a device yet (made by a socket) or between two has no host of its own: it is
    where it was last, at first with its sender.
    """
    host = packet.sender
    hops = []
    for hop in packet.hops:
        host = hop.host or host
        hops.append(hop if hop.host else msgspec.structs.replace(hop, host=host))
    return tuple(hops)


def hops_on(packet: ObservedPacket, host: str) -> tuple[Hop, ...]:
    """Return the hops of ``packet`` on ``host``."""
    return tuple(hop for hop in located(packet) if hop.host == host)


def layers_of(hops: Sequence[Hop]) -> tuple[str, ...]:
    """Return the layers of ``hops`` in order, each run of one layer once."""
    return tuple(layer for layer, _ in groupby(hop.layer for hop in hops))


LOGS = "nf_log_packet"
"""By this a log statement logs (net/netfilter/nf_log.c)."""
ROUTED_OUT = ("ip_output", "ip6_output", "ip_mc_output")
"""A packet has come to its route, and gets the interface of it (net/ipv4/ip_output.c, net/ipv6/ip6_output.c)."""
XMIT = ("__dev_queue_xmit", "dev_queue_xmit")
"""An interface takes a packet to send it (net/core/dev.c)."""


def entries(path: Sequence[PathEntry] | Exactly | None) -> Sequence[PathEntry]:
    """Return the entries of an expected path, however it is written."""
    return path.exactly if isinstance(path, Exactly) else path or ()


def functions(expect: Expect) -> set[str]:
    """Return the names of the functions that ``expect`` needs to see."""
    names = {name for entry in (*entries(expect.path), *(expect.never or ())) for name in parse_entry(entry)[0]}
    if expect.log is not None:
        names.add(LOGS)
    if expect.route is not None:
        names.update(ROUTED_OUT, XMIT)
    return names


def routed_to(packet: ObservedPacket, host: str) -> str:
    """Return the interface by which ``host`` sends ``packet`` on; "" where it does not.

    It is known once it is output, even if a postrouting hook then keeps it.
    """
    routed = False
    for hop in hops_on(packet, host):
        if hop.function in XMIT or (routed and hop.function not in ROUTED_OUT):
            return hop.device
        routed = routed or hop.function in ROUTED_OUT
    return ""


PLUMBING = frozenset({"Buffer", "Checksum", "Dissect", "Free", "Netfilter", "Packet"})
"""Layers that say little about a packet's path: they are met between all others."""


def is_landmark(hop: Hop) -> bool:
    """Whether ``hop`` is a landmark of a packet's path, and not a helper of the functions around it."""
    return hop.layer not in PLUMBING or bool({"chain", "reason"} & set(hop.detail))


def align(path: Sequence[PathEntry], packet: ObservedPacket, device: str) -> tuple[PathRow, ...]:
    """Align the expected path with the hops seen on the hosts that it names.

    An expected function that was not met stands beside the landmark that came in its place, if that
    one was not asked for.
    """
    hosts = {parse_entry(entry)[1].host or device for entry in path}
    hops = located(packet)
    found = tuple(zip(path, walk(path, packet, device), strict=True))
    wanted = {hit[0]: entry for entry, hit in found if hit}
    missing: dict[int, list[PathEntry]] = {}  # by the number of the hop that came in their place
    place = 0
    for entry, hit in found:
        if hit:
            place = hit[0] + 1
        elif not parse_entry(entry)[1].optional:
            missing.setdefault(place, []).append(entry)
    rows: list[PathRow] = []
    pending: list[PathEntry] = []
    for number, hop in enumerate(hops):
        pending += missing.get(number, [])
        if hop.host not in hosts:
            continue
        if number in wanted:
            rows += [PathRow(expected=entry, met=False) for entry in pending]
            rows.append(PathRow(expected=wanted[number], hop=hop))
            pending = []
        elif pending and is_landmark(hop):
            rows.append(PathRow(expected=pending.pop(0), hop=hop, met=False))
        else:
            rows.append(PathRow(hop=hop))
    pending += missing.get(len(hops), [])
    return (*rows, *(PathRow(expected=entry, met=False) for entry in pending))


def parse_entry(entry: PathEntry) -> tuple[tuple[str, ...], HopDetail]:
    """Return the alternatives of a path entry, and what they must have met."""
    names, detail = (entry, HopDetail()) if isinstance(entry, str) else next(iter(entry.items()))
    return tuple(name.strip() for name in names.split("|")), detail


def meets(names: Sequence[str], detail: HopDetail, hop: Hop, device: str) -> bool:
    """Whether ``hop`` is one of the functions ``names`` and met ``detail``, on the host named there or ``device``."""
    return hop.function in names and hop.host == (detail.host or device) and not differing(detail, hop)


def differing(detail: HopDetail, hop: Hop) -> dict[str, str]:
    """Return what ``hop`` met instead, by key, of all that ``detail`` asks for."""
    seen = {"device": hop.device, **hop.detail}
    wanted = {
        "device": detail.device,
        "chain": detail.chain and " ".join(detail.chain.split()),
        "hook": detail.hook,
        "verdict": detail.verdict,
        "reason": detail.reason and detail.reason.removeprefix("SKB_DROP_REASON_"),
    }
    return {key: seen.get(key, "") for key, value in wanted.items() if value is not None and seen.get(key) != value}


def walk(path: Sequence[PathEntry], packet: ObservedPacket, device: str) -> list[tuple[int, Hop] | None]:
    """Return for each expected entry the first hop, with its number, behind the one before; None where there is none.

    An optional entry is looked for in front of the next that is not optional. After an entry that was
    not met the search goes on from the same place, for the report.
    """
    hops = located(packet)
    found: list[tuple[int, Hop] | None] = [None] * len(path)
    place = 0
    waiting: list[int] = []
    for index, entry in enumerate(path):
        names, detail = parse_entry(entry)
        if detail.optional:
            waiting.append(index)
            continue
        hit = next((n for n in range(place, len(hops)) if meets(names, detail, hops[n], device)), None)
        _walk_optional(path, waiting, found, hops, range(place, len(hops) if hit is None else hit), device)
        waiting.clear()
        if hit is not None:
            found[index] = (hit, hops[hit])
            place = hit + 1
    _walk_optional(path, waiting, found, hops, range(place, len(hops)), device)
    return found


def _walk_optional(
    path: Sequence[PathEntry],
    indexes: Sequence[int],
    found: list[tuple[int, Hop] | None],
    hops: Sequence[Hop],
    places: range,
    device: str,
) -> None:
    """Put into ``found`` those of the optional entries ``indexes`` that were met at ``places``, in order."""
    place = places.start
    for index in indexes:
        names, detail = parse_entry(path[index])
        hit = next((n for n in range(place, places.stop) if meets(names, detail, hops[n], device)), None)
        if hit is not None:
            found[index] = (hit, hops[hit])
            place = hit + 1


def unlisted(path: Exactly, packet: ObservedPacket, device: str) -> tuple[int, Hop] | None:
    """Return the first call of a function that ``path`` names, or of its layers, that is not one of its entries.

    With the number of the entry that was to come instead; behind the last, the number of entries. None if there is no
    such call. Each entry that is not optional has been met, see :func:`walk`.
    """
    closed: dict[str, set[str]] = {}
    for entry in path.exactly:
        names, detail = parse_entry(entry)
        closed.setdefault(detail.host or device, set()).update(names)
    met = {hit[0]: index for index, hit in enumerate(walk(path.exactly, packet, device)) if hit}
    place = 0
    for number, hop in enumerate(located(packet)):
        if number in met:
            place = met[number] + 1
        elif hop.function in closed.get(hop.host, ()) or (hop.host == device and hop.layer in (path.layers or ())):
            needed = (at for at in range(place, len(path.exactly)) if not parse_entry(path.exactly[at])[1].optional)
            return next(needed, len(path.exactly)), hop
    return None
