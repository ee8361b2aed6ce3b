"""Changes of a built lab: what a step of a scenario does to links, addresses, routes and settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

from harness.lab import requests
from harness.lab.lab import Host, Lab, ask, link_local, route_of, wait_for_groups, wait_for_links
from harness.lab.rtnetlink import NetlinkError, NetlinkRequest
from harness.topology.changes import Parts, PlannedChange, carried
from harness.topology.network import Network
from harness.topology.parts import End
from harness.wait import wait_until

CARRIER_S: Final = 5.0
"""Seconds within which the other end of a link notices that this one was set up or down."""


def apply(change: PlannedChange, lab: Lab) -> None:
    """Do what ``change`` says, and wait until the kernel has done what follows from it by itself.

    Raises :class:`~harness.errors.HarnessError` when the kernel refuses it.
    """
    host, before = lab.hosts[change.host], lab.network
    lab.follow(change.network)
    ask(host, _parts(host, change.deleted, "del"))
    for interface, state in change.links.items():
        for to in ("down", "up") if state == "flap" else (state,):
            _set_link(lab, host, interface, to)
    ask(host, _parts(host, change.added, "add"))
    ask(host, [route_of(host, one, "replace") for one in change.replaced if host.plan.routes_in_kernel(one)])
    if change.sysctls:
        host.namespace.sysctl(change.sysctls)
    if change.links or change.deleted.addresses or change.added.addresses:
        for other in lab.hosts.values():
            _follow(other, before)
            wait_for_groups(other)


def _parts(host: Host, parts: Parts, command: str) -> list[NetlinkRequest]:
    """What adds ``parts`` or deletes them; a silent host has them in its plan alone."""
    addresses = [
        requests.address(address, host.interfaces[interface], command)
        for interface, address in parts.addresses
        if interface in host.plan.speaking
    ]
    routes = [route_of(host, one, command) for one in parts.routes if host.plan.routes_in_kernel(one)]
    rules = [] if host.plan.silent else [requests.rule(one, command) for one in parts.rules]
    whole = [*addresses, *routes, *rules]
    return whole if command == "add" else whole[::-1]


def _set_link(lab: Lab, host: Host, interface: str, state: str) -> None:
    ask(host, [requests.up(host.interfaces[interface], state)])
    names = carried(host.plan, interface)
    if interface not in host.plan.made and not _is_down(lab, peer := host.plan.interfaces[interface].peer):
        other = lab.hosts[peer.host]
        index = other.interfaces[peer.interface]
        wait_until(
            lambda: bool(other.netlink.links_up([index])) == (state == "up"),
            CARRIER_S,
            f"{peer} to notice that {host.name}:{interface} is {state}",
        )
        if state == "up":
            wait_for_links(host, names)
    if state == "up":
        ask(host, list(_restored(host, names)))


def _is_down(lab: Lab, end: End) -> bool:
    return end.interface in lab.hosts[end.host].plan.down


def _restored(host: Host, names: Collection[str]) -> Iterator[NetlinkRequest]:
    """What the kernel dropped when the interfaces ``names`` were set down: their IPv6 addresses and neighbours."""
    plan = host.plan
    for name in names:
        if name in plan.speaking:
            one, index = plan.interfaces[name], host.interfaces[name]
            near = [neighbour for neighbour in plan.neighbours if neighbour.interface == name]
            yield from (requests.address(own, index, "replace") for own in one.addresses if own.version == 6)
            if any(not one.known and one.address.version == 6 for one in near):
                yield requests.address(link_local(one), index, "replace")
            yield from (requests.neighbour(one, index) for one in near if one.known)


def _follow(host: Host, before: Network) -> None:
    """Have ``host`` know the neighbours that it has now, and forget those that it had ``before``."""
    plan = host.plan
    gone = set(before.hosts[host.name].neighbours) - set(plan.neighbours)
    for neighbour in gone:
        if neighbour.interface in plan.speaking:
            with suppress(NetlinkError):  # it was not resolved
                host.netlink.ask([requests.forget_neighbour(neighbour.address, host.interfaces[neighbour.interface])])
    come = set(plan.neighbours) - set(before.hosts[host.name].neighbours)
    new = [one for one in come if one.known and one.interface in plan.speaking and one.interface not in plan.down]
    ask(host, [requests.neighbour(one, host.interfaces[one.interface]) for one in new])
