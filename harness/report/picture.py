"""The lab as a picture, with the path that a packet took through it: coordinates only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import attrgetter

from harness.model.observation import ObservedPacket, Value
from harness.model.result import LabPlan
from harness.reading.path import located

WIDTH, HEIGHT, GAP = 160, 40, 90
"""Of a host's box, and between two of them, in pixels."""
TOP = 34
LINE = 16


class Box(Value, frozen=True, kw_only=True):
    """A host."""

    x: int
    y: int
    name: str
    device: bool
    """Whether it is the host under test."""
    interfaces: tuple[str, ...]
    """Lines to stand below the box: an interface with an address each."""
    mark: str = ""
    """``delivered`` or ``dropped`` where the packet's way ended."""


class Picture(Value, frozen=True, kw_only=True):
    """What is to be drawn; ``links`` and ``way`` are SVG path data."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    links: tuple[str, ...]
    way: tuple[str, ...]
    words: str
    """The same for those who do not see it."""


def draw(lab: LabPlan, packet: ObservedPacket, device: str) -> Picture:
    """Lay out ``lab`` from left to right, along its links, and the path of ``packet`` through it."""
    order = _order(lab)
    places = {host: number for number, host in enumerate(order)}
    visits = [host for host, _ in groupby(map(attrgetter("host"), located(packet))) if host in places]
    marks = _marks(packet, visits)
    boxes = tuple(
        Box(
            x=10 + number * (WIDTH + GAP),
            y=TOP,
            name=host,
            device=host == device,
            interfaces=_interfaces(lab, host),
            mark=marks.get(host, ""),
        )
        for number, host in enumerate(order)
    )
    tallest = max((len(box.interfaces) for box in boxes), default=0)
    bottom = TOP + HEIGHT + tallest * LINE + 12
    # A bridge has no other end: its peer is the bridge itself.
    linked = [one for one in lab.interfaces if one.peer[0] in places and one.peer[0] != one.host]
    far = any(abs(places[one.host] - places[one.peer[0]]) > 1 for one in linked)
    return Picture(
        width=20 + len(order) * (WIDTH + GAP) - GAP,
        height=bottom + (40 if far else 0),
        boxes=boxes,
        links=tuple(
            _path(boxes[places[one.host]], boxes[places[one.peer[0]]], bottom, TOP + HEIGHT // 2)
            for one in linked
            if (one.host, one.name) < one.peer
        ),
        way=tuple(_path(boxes[places[a]], boxes[places[b]], bottom, TOP + 8) for a, b in _pairs(visits)),
        words=", ".join([f"The packet went {' → '.join(visits) or 'nowhere'}", *_ends(boxes)]),
    )


def _marks(packet: ObservedPacket, visits: list[str]) -> dict[str, str]:
    """Where the packet ended: ``delivered`` or ``dropped`` by host."""
    delivered = {one.host: "delivered" for one in packet.deliveries}
    lost = packet.drop.host if packet.drop else ""
    if not (delivered or lost) and visits:
        lost = visits[-1]
    return {lost: "dropped"} | delivered


def _interfaces(lab: LabPlan, host: str) -> tuple[str, ...]:
    """The interfaces of ``host``, a line for each address."""
    own = (one for one in lab.interfaces if one.host == host)
    return tuple(f"{one.name} {address}" for one in own for address in one.addresses or ("",))


def _pairs(visits: list[str]) -> Iterator[tuple[str, str]]:
    yield from dict.fromkeys(pairwise(visits))


def _ends(boxes: tuple[Box, ...]) -> Iterator[str]:
    yield from (f"{box.mark} at {box.name}" for box in boxes if box.mark)


def _path(a: Box, b: Box, bottom: int, y: int) -> str:
    """A straight line between neighbours, a bow below the boxes between others."""
    left, right = sorted((a, b), key=attrgetter("x"))
    if right.x - left.x == WIDTH + GAP:
        start, end = (left.x + WIDTH, right.x) if a is left else (right.x, left.x + WIDTH)
        return f"M{start} {y}H{end}"
    start, end = a.x + WIDTH // 2, b.x + WIDTH // 2
    return f"M{start} {TOP + HEIGHT}C{start} {bottom + 40} {end} {bottom + 40} {end} {TOP + HEIGHT}"


def _order(lab: LabPlan) -> list[str]:
    """Hosts along the links, from one that has a single link if there is one."""
    peers = {host: [one.peer[0] for one in lab.interfaces if one.host == host] for host in lab.hosts}
    order: list[str] = []
    waiting = sorted(lab.hosts, key=lambda host: len(peers[host]) != 1)
    while waiting:
        host = waiting.pop(0)
        order.append(host)
        waiting.sort(key=lambda other: other not in peers[host])  # stable
    return order
