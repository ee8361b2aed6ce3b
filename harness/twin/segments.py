"""Where packets go that come in by a wire of the machine: through bridges, VLANs and macvlans to an interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Tags = tuple[tuple[int, str], ...]
"""VLAN tags from the outermost, each with its protocol."""


class Segment(NamedTuple):
    """What is at the other end of a wire, of one interface of the machine."""

    interface: str
    """That IP packets come in by; for a VLAN that is only bridged, the bridge and the VLAN."""
    tags: Tags


def segments(host: Mapping[str, Any], interface: str, tags: Tags = ()) -> Iterator[Segment]:
    """Where IP packets get to of frames that come in by ``interface`` of ``host``, with ``tags`` taken off already."""
    bridge = next((name for name, ports in host["bridges"].items() if interface in ports), "")
    vlans = [(name, said) for name, said in host["vlans"].items() if said["link"] == interface]
    for name, said in vlans:
        yield from segments(host, name, (*tags, (said["id"], said.get("protocol", "802.1q"))))
    macvlans = [name for name, said in host["macvlans"].items() if said["link"] == interface]
    for name in macvlans:
        yield from segments(host, name, tags)
    if not bridge:
        if host["interfaces"][interface] or not (vlans or macvlans):
            yield Segment(interface, tags)
    elif not any(port in host["ports"] for port in (bridge, *host["bridges"][bridge])):
        yield from segments(host, bridge, tags)
    else:
        yield from _filtered(host, bridge, interface, tags)


def _filtered(host: Mapping[str, Any], bridge: str, port: str, tags: Tags) -> Iterator[Segment]:
    """The same behind a port of a bridge that filters VLANs."""
    own = host["ports"].get(bridge, {})
    said = host["ports"].get(port, {})
    ways: list[tuple[int, Tags]] = [(said["untagged"], ())] if "untagged" in said else []
    ways += [(vlan, ((vlan, "802.1q"),)) for vlan in said.get("tagged", ())]
    for vlan, outer in ways:
        inner = [name for name, of in host["vlans"].items() if (of["link"], of["id"]) == (bridge, vlan)]
        if vlan == own.get("untagged"):
            yield Segment(bridge, (*tags, *outer))
        elif inner and vlan in own.get("tagged", ()):
            yield from segments(host, inner[0], (*tags, *outer))
        else:
            yield Segment(f"{bridge} {vlan}", (*tags, *outer))
