"""Resolving neighbours before packets need them: by ARP (RFC 826) and Neighbour Discovery (RFC 4861).

On a real link the first packet to a neighbour waits until its Ethernet address is resolved. Here neighbours are
resolved before a step, through the loaded rulesets, in the order in which the step's packets would cause it: a
host asks only once it could have been reached, because it also learns from the requests of others. During a step
no kernel asks: packets to unresolved neighbours are dropped at once, and no timer runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from harness.errors import BrokenMeasurement
from harness.lab import lab as labs
from harness.lab import requests
from harness.lab.lab import Host, Lab, link_local
from harness.lab.rtnetlink import NetlinkError, NetlinkRequest
from harness.model.problem import Problem
from harness.packets.resolving import HOP_LIMIT, solicitation, solicited
from harness.topology.parts import MAIN, Address, Interface, Tunnel, Vxlan, Wireguard
from harness.wait import wait_until

DEADLINE_S: Final = 0.3
"""Seconds to wait for a neighbour's answer; the kernel would ask again after one second."""


class Query(NamedTuple):
    """A host's request for a neighbour's Ethernet address."""

    host: str
    interface: str
    address: Address
    source: IPv6Address | None = None
    """Source of a solicitation; the kernel chooses that of an ARP request."""


class Resolver:
    """Resolves the neighbours of ``lab`` that have no permanent entry."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.needed = any(not one.known for host in lab.network.hosts.values() for one in host.neighbours)
        """Whether there are any such neighbours."""

    def hold(self) -> None:
        """Stop the lab's kernels from resolving neighbours by themselves."""
        for host in self._lab.hosts.values() if self.needed else ():
            _hold(host)

    def towards(self, host: str, destination: Address) -> tuple[Query, ...]:
        """Resolve the neighbours that packets of ``host`` to ``destination``, and their answers, need.

        Behind the first router those are all neighbours of each router, because NAT may lead anywhere. Returns the
        queries that failed.
        """
        caller = self._source(host, destination)
        return self._spread(host, self._sending(host, destination), caller)

    def beyond(self, host: str, version: int) -> tuple[Query, ...]:
        """Resolve the neighbours that packets need at ``host`` and behind it. Returns the queries that failed."""
        return self._spread(host, self._queries(host, version), None)

    def ask(self, query: Query) -> bool:
        """Resolve one neighbour. Returns whether that succeeded."""
        return not _ask(self._lab.hosts[query.host], [query])

    def _spread(self, start: str, first: list[Query], caller: Address | None) -> tuple[Query, ...]:
        """Ask on the host ``start``, then on the hosts that this reached, and so on."""
        network = self._lab.network
        waiting, reached, failed = [(start, first)], {start}, []
        while waiting:
            name, queries = waiting.pop(0)
            host = self._lab.hosts[name]
            unanswered = _ask(host, queries)
            failed += unanswered
            for query in queries:
                owner = network.owner(query.address)
                if owner is None or owner in reached or query in unanswered:
                    continue
                reached.add(owner)
                waiting.append((owner, self._answering(owner, query.address.version, caller)))
        return tuple(failed)

    def _answering(self, name: str, version: int, caller: Address | None) -> list[Query]:
        """The queries of a host reached by packets of ``caller``: to forward them, or to answer."""
        if self._lab.network.hosts[name].forwarding:
            return self._queries(name, version)
        return self._sending(name, caller) if caller else self._queries(name, version, own_source=True)

    def _sending(self, name: str, destination: Address) -> list[Query]:
        """The queries of a host that sends packets of its own to ``destination``.

        That is one for the next hop, or for every neighbour where not only the main table selects it.
        """
        host = self._lab.network.hosts[name]
        several = host.rules or any(route.table != MAIN for route in host.routes)
        try:
            hop = self._lab.network.route(name, destination, local=True)
        except Problem:
            several = True
        if several:
            return self._queries(name, destination.version, own_source=True)
        if isinstance(tunnel := host.made.get(hop.interface.name), Tunnel):
            return self._sending(name, tunnel.remote)
        if isinstance(tunnel := host.made.get(hop.interface.name), Wireguard):
            calls = [self._sending(name, peer.endpoint[0]) for peer in tunnel.peers if peer.endpoint]
            if len(calls) < len(tunnel.peers):  # a peer that calls first may be anywhere
                calls += [self._queries(name, version, own_source=True) for version in (4, 6)]
            return list(dict.fromkeys(query for queries in calls for query in queries))
        return self._queries(name, destination.version, hop.address, own_source=True) if hop.address else []

    def _source(self, name: str, destination: Address) -> Address | None:
        """The source address of a host towards ``destination``, by its main table."""
        with suppress(Problem):
            return self._lab.network.route(name, destination).interface.address(destination.version, destination)
        return None

    def _queries(
        self, name: str, version: int, address: Address | None = None, *, own_source: bool = False
    ) -> list[Query]:
        """Queries for the neighbour ``address``, or for all of them; those for a tunnel's remote end first.

        A solicitation comes from the address of the packet that waits where that is the host's own, else from the
        link-local one (ndisc_solicit in net/ipv6/ndisc.c).
        """
        host = self._lab.network.hosts[name]
        asked = [
            Query(name, one.interface, one.address, source(host.interfaces[one.interface], one.address, own_source))
            for one in host.neighbours
            if not one.known and one.address.version == version and address in (None, one.address)
        ]
        tunnels = {query.interface: host.made.get(query.interface) for query in asked}
        outer = [self._sending(name, one.remote) for one in tunnels.values() if isinstance(one, Vxlan)]
        return list(dict.fromkeys([*(query for queries in outer for query in queries), *asked]))


def hold(host: Host) -> None:
    """Stop the kernel of ``host`` from resolving any neighbour: a packet to one that it does not know is dropped.

    Otherwise it would keep the packet while it asks, three times within three seconds, and no second one would show
    the same: the questions arrive with whatever is sent meanwhile.
    """
    for index in host.interfaces.values():
        for version in (4, 6):
            with suppress(NetlinkError):  # an interface without IPv6
                host.netlink.ask([requests.resolution(index, version, probes=0)])


def ask_anew(host: Host, query: Query) -> None:
    """Delete the permanent entry of ``host`` for a neighbour and ask for it; does not wait for the answer.

    Raises :class:`~harness.errors.HarnessError` when the kernel refuses to ask.
    """
    index = host.interfaces[query.interface]
    if query.source is not None and query.source.is_link_local:
        own = link_local(host.plan.interfaces[query.interface])
        with suppress(NetlinkError):  # it has that address
            host.netlink.ask([requests.address(own, index)])
        local = f"{own.ip} to be an address of {host.name}"
        host.namespace.call(wait_until, lambda: _is_local(own.ip), DEADLINE_S, local)
    with suppress(NetlinkError):  # it has no entry any more
        host.netlink.ask([requests.forget_neighbour(query.address, index)])
    _ask_kernel(host, [query])


def _is_local(address: IPv6Address) -> bool:
    """Whether this namespace accepts packets for ``address``, whose route a work queue adds after the address.

    See addrconf_dad_work in net/ipv6/addrconf.c; the file is by rt6_info_route in net/ipv6/route.c.
    """
    descriptor = os.open("/proc/thread-self/net/ipv6_route", os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor) as routes:
        return any(route.startswith(f"{address.packed.hex()} 80 ") for route in routes)


def resolved(host: Host, query: Query) -> bool:
    """Whether the neighbour's Ethernet address is known."""
    return not _unanswered(host, [query])


def source(interface: Interface, target: Address, own: bool) -> IPv6Address | None:
    """The source of a solicitation for ``target`` from ``interface`` (ndisc_solicit in net/ipv6/ndisc.c), None for ARP.

    With ``own`` the packet that waits is the host's own.
    """
    if target.version == 4:
        return None
    found = interface.address(6, target) if own else None
    return found if isinstance(found, IPv6Address) else link_local(interface).ip


def _hold(host: Host) -> None:
    ways = {(one.interface, one.address.version): None for one in host.plan.neighbours if not one.known}
    labs.ask(host, [requests.resolution(host.interfaces[name], version, probes=0) for name, version in ways])


def _unanswered(host: Host, queries: Iterable[Query]) -> list[Query]:
    """Those of ``queries`` whose neighbour's Ethernet address is not known."""
    asked = {query: (query.address, host.interfaces[query.interface]) for query in queries}
    known = host.netlink.known_neighbours(asked.values())
    return [query for query, place in asked.items() if place not in known]


def _ask(host: Host, queries: Collection[Query]) -> list[Query]:
    """Ask all of ``queries`` that are not answered yet at once. Returns those that got no answer."""
    if not (asked := _unanswered(host, queries)):
        return []
    _ask_kernel(host, asked)
    left = list(asked)

    def answered() -> bool:
        left[:] = _unanswered(host, left)
        return not left

    with suppress(BrokenMeasurement):
        wait_until(answered, DEADLINE_S, "neighbours to answer")
    ends = [request for query in asked for request in _ended(query, host.interfaces[query.interface], query in left)]
    labs.ask(host, ends)
    return left


def _ask_kernel(host: Host, queries: Collection[Query]) -> None:
    """Have the kernel send ARP requests; solicitations are sent from here."""
    asked: list[NetlinkRequest] = []
    for query in queries:
        index = host.interfaces[query.interface]
        if isinstance(query.address, IPv6Address):
            asked.append(requests.await_neighbour(query.address, index))
        else:
            asked += [requests.resolution(index, 4, probes=1), requests.ask_for_neighbour(query.address, index)]
    labs.ask(host, asked)
    for query in queries:
        if query.source is not None:
            host.namespace.call(_solicit, query, query.source, host)


def _ended(query: Query, index: int, is_left: bool) -> Iterator[NetlinkRequest]:
    """Stop the kernel from asking again, and from queueing packets for an unresolved neighbour."""
    if query.address.version == 4:
        yield requests.resolution(index, 4, probes=0)
    if is_left:
        yield requests.forget_neighbour(query.address, index)


def _solicit(query: Query, source: IPv6Address, host: Host) -> None:
    """Send a neighbour solicitation as the kernel would, through the output hook.

    The kernel would take the source address from the packet that waits, but here none does.
    """
    assert isinstance(query.address, IPv6Address)
    interface = host.plan.interfaces[query.interface]
    index = host.interfaces[query.interface]
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, query.interface.encode())
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOP_LIMIT)
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        asking.bind((str(source), 0, 0, index))
        with suppress(PermissionError):  # the host's own ruleset dropped it
            asking.sendto(solicitation(interface.mac, query.address), (str(solicited(query.address)), 0, 0, index))
