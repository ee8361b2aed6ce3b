"""Neighbours are resolved before packets need them: by ARP (RFC 826) and Neighbour Discovery (RFC 4861).

On a real link the first packet to a neighbour waits until its Ethernet address is known. Here that is done
before a step, through the rulesets that are loaded, in the order in which the step's packets would ask: each
host asks only once it could have been reached, for it also learns from the questions of others. What cannot
be resolved then is left as it was: the step's own packets ask again, and in vain.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from harness.errors import BrokenMeasurement, HarnessError
from harness.lab import rtnl
from harness.lab.lab import Host, Lab, link_local
from harness.netlink import Netlink, NetlinkError, Request
from harness.scenario.parts import Address, Interface
from harness.scenario.problem import Problem
from harness.wait import wait_until

DEADLINE_S: Final = 0.25
"""Seconds within which a neighbour has answered: the kernel gives up after three times ``retrans_time``."""

# netinet/icmp6.h, linux/in6.h
ND_NEIGHBOR_SOLICIT, ND_OPT_SOURCE_LINKADDR = 135, 1
HOP_LIMIT: Final = 255
"""RFC 4861 section 7.1.1."""


class Query(NamedTuple):
    """A question of a host for a neighbour's Ethernet address."""

    host: str
    interface: str
    address: Address
    source: IPv6Address | None = None
    """Of a solicitation; the kernel chooses that of an ARP request."""


class Resolver:
    """Resolves the neighbours of ``lab`` that have no permanent entry."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.needed = any(not one.known for host in lab.network.hosts.values() for one in host.neighbours)
        """Whether there are such neighbours at all."""

    def towards(self, host: str, destination: Address) -> tuple[Query, ...]:
        """Resolve what packets of ``host`` to ``destination``, and their answers, need; what failed.

        Behind the first router that is every neighbour of a router: only its ruleset knows where NAT leads.
        """
        try:
            hop = self._lab.network.route(host, destination, local=True)
        except Problem:
            return ()
        source = hop.interface.address(destination.version)
        if hop.address is None or source is None:
            return self.beyond(self._lab.network.owner(destination) or "", destination.version)
        return self._spread([(host, self._queries(host, source.version, hop.address, own_source=True))], source)

    def beyond(self, host: str, version: int) -> tuple[Query, ...]:
        """Resolve what packets that have reached ``host`` need there and behind it; what failed."""
        return self._spread([(host, self._queries(host, version))] if host else [], None, version)

    def ask(self, query: Query) -> bool:
        """Resolve one neighbour; whether that succeeded."""
        return not self._lab.hosts[query.host].namespace.call(_ask, self._lab.hosts[query.host], [query])

    def awaited(self, query: Query) -> bool:
        """Whether the kernel is asking for the neighbour."""
        host = self._lab.hosts[query.host]
        key = (host.interfaces[query.interface], query.address.packed)

        def asking() -> bool:
            with Netlink(rtnl.NETLINK_ROUTE) as link:
                states = rtnl.neighbours(link, query.address.version)
                return any(state & rtnl.NUD_INCOMPLETE and (index, address) == key for index, address, state in states)

        return host.namespace.call(asking)

    def _spread(
        self, start: list[tuple[str, list[Query]]], caller: Address | None, version: int = 0
    ) -> tuple[Query, ...]:
        """Ask what is to be asked on each host, beginning at ``start``, then on those that were reached by that."""
        network = self._lab.network
        waiting, reached, failed = list(start), {host for host, _ in start}, []
        while waiting:
            name, queries = waiting.pop(0)
            host = self._lab.hosts[name]
            unanswered = host.namespace.call(_ask, host, queries) if queries else []
            failed += unanswered
            for query in queries:
                owner = network.owner(query.address)
                if owner is None or owner in reached or query in unanswered:
                    continue
                reached.add(owner)
                waiting.append((owner, self._answering(owner, query.address.version, caller)))
        return tuple(failed)

    def _answering(self, name: str, version: int, caller: Address | None) -> list[Query]:
        """What a host asks that packets of ``caller`` have reached: to pass them on, or to answer."""
        if self._lab.network.hosts[name].forwarding:
            return self._queries(name, version)
        if caller is not None:
            with suppress(Problem):
                hop = self._lab.network.route(name, caller, local=True)
                return self._queries(name, version, hop.address, own_source=True) if hop.address else []
        return self._queries(name, version, own_source=True)

    def _queries(
        self, name: str, version: int, address: Address | None = None, *, own_source: bool = False
    ) -> list[Query]:
        """Questions for the neighbour ``address`` or for all of them.

        A solicitation comes from the address of the packet that waits where that is the host's own, else from the
        link-local one (ndisc_solicit in net/ipv6/ndisc.c).
        """
        host = self._lab.network.hosts[name]
        return [
            Query(name, one.interface, one.address, _source(host.interfaces[one.interface], one.address, own_source))
            for one in host.neighbours
            if not one.known and one.address.version == version and address in (None, one.address)
        ]


def _source(interface: Interface, target: Address, own: bool) -> IPv6Address | None:
    if target.version == 4:
        return None
    found = interface.address(6) if own else None
    return found if isinstance(found, IPv6Address) else link_local(interface.mac).ip


def _ask(host: Host, queries: Iterable[Query]) -> list[Query]:
    """Send what asks for each of ``queries`` that is not answered yet, all at once; those that got no answer.

    To be called in the host's namespace.
    """
    versions = {query.address.version for query in queries}
    with Netlink(rtnl.NETLINK_ROUTE) as link:

        def states() -> Mapping[tuple[int, bytes], int]:
            return {
                (index, address): state
                for version in versions
                for index, address, state in rtnl.neighbours(link, version)
            }

        def state(query: Query, among: Mapping[tuple[int, bytes], int]) -> int:
            return among.get((host.interfaces[query.interface], query.address.packed), rtnl.NUD_NONE)

        known = states()
        asked = [query for query in queries if not state(query, known) & rtnl.NUD_VALID]
        left = asked

        def answered() -> bool:
            nonlocal left
            now = states()
            left = [query for query in asked if not state(query, now) & rtnl.NUD_VALID]
            return all(state(query, now) & rtnl.NUD_FAILED for query in left)

        if not asked:
            return []
        try:
            link.ask([_request(host, query) for query in asked])
            for query in asked:
                if query.source is not None:
                    _solicit(query, query.source, host)
            with suppress(BrokenMeasurement):
                wait_until(answered, DEADLINE_S, "neighbours to answer")
            link.ask(
                [
                    rtnl.forget_neighbour(query.address, host.interfaces[query.interface])
                    for query in left
                    if query.source is not None  # the kernel does not give up by itself what it did not begin
                ]
            )
        except NetlinkError as refused:
            raise HarnessError(f"the kernel refused {refused.what} of {host.name}: {refused.strerror}") from None
        return left


def _request(host: Host, query: Query) -> Request:
    index = host.interfaces[query.interface]
    if isinstance(query.address, IPv4Address):
        return rtnl.ask_for_neighbour(query.address, index)
    return rtnl.await_neighbour(query.address, index)


def _solicit(query: Query, source: IPv6Address, host: Host) -> None:
    """Send a neighbour solicitation as the kernel would, through the output hook (RFC 4861 section 4.3).

    The kernel takes the source address of the packet that waits, and none waits here.
    """
    interface = host.plan.interfaces[query.interface]
    index = host.interfaces[query.interface]
    message = struct.pack("!BBHI", ND_NEIGHBOR_SOLICIT, 0, 0, 0) + query.address.packed  # checksum by the kernel
    message += bytes([ND_OPT_SOURCE_LINKADDR, 1]) + bytes.fromhex(interface.mac.replace(":", ""))
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + query.address.packed[13:])
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, query.interface.encode())
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOP_LIMIT)
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        asking.bind((str(source), 0, 0, index))
        with suppress(PermissionError):  # the host's own ruleset dropped it
            asking.sendto(message, (str(group), 0, 0, index))
