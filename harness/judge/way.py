"""The packet's way through the kernel, and an expected path laid beside it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.observation import Hop, PacketSeen, Value
from harness.scenario.models import HopDetail, PathEntry


class PathRow(Value, frozen=True, kw_only=True):
    """One line of an expected path laid beside the path seen."""

    expected: PathEntry | None = None
    """The expected function; None for a hop that nobody asked for."""
    hop: Hop | None = None
    """The hop seen there; None where nothing stands beside the expected function."""
    met: bool = True
    """Whether ``expected``, if any, is this hop."""


def located(packet: PacketSeen) -> tuple[Hop, ...]:
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


def hops_on(packet: PacketSeen, host: str) -> tuple[Hop, ...]:
    """Return the hops of ``packet`` on ``host``."""
    return tuple(hop for hop in located(packet) if hop.host == host)


def layers_of(hops: Sequence[Hop]) -> tuple[str, ...]:
    """Return the layers of ``hops`` in order, each run of one layer once."""
    return tuple(
        hop.layer for before, hop in zip((None, *hops), hops, strict=False) if not before or before.layer != hop.layer
    )


def align(path: Sequence[PathEntry], packet: PacketSeen, device: str) -> tuple[PathRow, ...]:
    """Lay the expected path beside the hops seen on the hosts it speaks of.

    An expected function that was not met stands beside the hop that came in its place, if that
    one was not asked for.
    """
    hosts = {parse_entry(entry)[1].host or device for entry in path}
    hops = located(packet)
    found = walk(path, packet, device)
    wanted = {hit[0]: entry for entry, hit in zip(path, found, strict=True) if hit}
    missing: dict[int, list[PathEntry]] = {}  # by the number of the hop that came in their place
    place = 0
    for entry, hit in zip(path, found, strict=True):
        if hit:
            place = hit[0] + 1
        else:
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
        elif pending:
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


def walk(path: Sequence[PathEntry], packet: PacketSeen, device: str) -> list[tuple[int, Hop] | None]:
    """Return for each expected entry the first hop, with its number, behind the one before; None where there is none.

    After an entry that was not met the search goes on from the same place, for the report.
    """
    hops = located(packet)
    found: list[tuple[int, Hop] | None] = []
    place = 0
    for entry in path:
        names, detail = parse_entry(entry)
        hit = next((n for n in range(place, len(hops)) if meets(names, detail, hops[n], device)), None)
        found.append(None if hit is None else (hit, hops[hit]))
        place = place if hit is None else hit + 1
    return found
