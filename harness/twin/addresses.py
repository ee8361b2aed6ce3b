"""The addresses of hosts around a machine: those that it knows, that rules name, or that nobody has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from itertools import chain, islice
from typing import Final

from harness.topology.parts import Address, AddressOnLink, Subnet
from harness.twin.device import Device
from harness.twin.machine import Hop, KernelRoute, Machine

AT_A_LINK: Final = 16
"""Addresses of one kind at one place."""
_TRANSIT: Final = (ip_network("198.18.0.0/15"), ip_network("fd19:8018::/32"))
"""The former is for benchmarks (RFC 2544), so most probably no machine has an address in either."""
_INTERNET: Final = ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "2001:db8:113::/48", "2001:db8:51::/48")
"""For documentation (RFC 5737, RFC 3849)."""
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w.:]|/\d)"
)


class Addresses:
    """Chooses addresses, each for one host but where several links have the same networks."""

    def __init__(self, machine: Machine, device: Device) -> None:
        self._machine = machine
        self._device = device
        self._transits = 0
        self.owners: dict[Address, set[str]] = {}
        """The hosts of each address."""
        self.own = {ip_interface(text).ip for several in device.host["interfaces"].values() for text in several}
        text = "\n".join((machine.nft, *machine.saves.values()))
        named = dict.fromkeys(chain.from_iterable(map(_valid, _ADDRESS.findall(text))))
        self._named = [one for one in named if one not in self.own]
        self._ports = {one.mac: one.ifname for one in machine.stations if one.state != "permanent"}

    def give(self, host: str, texts: Iterable[str]) -> None:
        """Enter that ``host`` has the addresses ``texts``."""
        for text in texts:
            self.owners.setdefault(ip_interface(text).ip, set()).add(host)

    def transit(self, version: int) -> tuple[AddressOnLink, AddressOnLink]:
        """Both ends of a network that nobody has."""
        self._transits += 1
        network = _TRANSIT[version == 6]
        base = int(network[0]) + (4 * self._transits if version == 4 else self._transits << 64)
        length = 30 if version == 4 else 64
        one, other = (ip_interface((ip_address(base + number), length)) for number in (1, 2))
        return one, other

    def networks(self, interface: str) -> list[Subnet]:
        """The networks at an interface of the machine that have room for a neighbour."""
        if interface in self._device.host["interfaces"] and interface not in self._device.host["bridges"]:
            return [one for one in self._device.networks(interface) if one.num_addresses > 1]
        bridge, _, vlan = interface.partition(" ")
        if not vlan and self._device.networks(bridge):
            return self._device.networks(bridge)
        # Nobody but frames gets through here: any network will do.
        number = sorted(self._device.host["bridges"]).index(bridge)
        return [
            ip_network(f"10.{number % 100 + 100}.{int(vlan or 0) % 250}.0/24"),
            ip_network(f"fd19:8019:{number:x}:{int(vlan or 0):x}::/64"),
        ]

    def routes(self, interface: str, *, by_router: bool) -> Iterator[tuple[KernelRoute, Hop]]:
        """The routes by an interface of the machine, of those with a next hop or of those without."""
        for route, hop in self._device.routes:
            if hop.dev == interface and bool(hop.gateway) is by_router:
                yield route, hop

    def neighbours(self, interface: str) -> Iterator[tuple[str, str]]:
        """The addresses of hosts at an interface, with prefix length, and the port of the bridge if it is known."""
        networks = self.networks(interface)
        met = {ip_address(one.dst): one.lladdr for one in self._machine.neighbours if one.dev == interface}
        gateways = [ip_address(hop.gateway) for _, hop in self.routes(interface, by_router=True)]
        near = [one for one in (*met, *self._named) if any(within(one, network) for network in networks)]
        others = [one for one in near if not _is_edge(one, networks)][:AT_A_LINK]
        found = [one for one in dict.fromkeys((*gateways, *others)) if one not in self.own]
        for one in found:
            length = next((network.prefixlen for network in networks if within(one, network)), one.max_prefixlen)
            length = 64 if one.is_link_local else length
            yield f"{one}/{length}", self._ports.get(met.get(one, ""), "")

    def free(self, network: Subnet, taken: Iterable[str] = ()) -> str:
        """An address of a network that nobody has, with prefix length; "" where there is none."""
        known = {*(ip_interface(one).ip for one in taken), *self.own, *self.owners}
        start = 0 if network.prefixlen >= network.max_prefixlen - 1 else 1
        numbers = range(start, min(network.num_addresses - start, 1000))
        found = next((network[number] for number in numbers if network[number] not in known), None)
        return f"{found}/{network.prefixlen}" if found is not None else ""

    def reached(self, interface: str) -> list[str]:
        """Addresses in networks that are reached at an interface without a router."""
        networks = [ip_network(route.dst) for route, _ in self.routes(interface, by_router=False)]
        return self.of_hosts(networks)

    def behind(self, interface: str) -> list[Subnet]:
        """The networks that the machine reaches by routers at an interface."""
        return list(dict.fromkeys(ip_network(route.dst) for route, _ in self.routes(interface, by_router=True)))

    def of_hosts(self, networks: Iterable[Subnet]) -> list[str]:
        """Addresses of hosts in ``networks``, with full prefix length: those that rules name, and one in each."""
        found: dict[Address, None] = {}
        for network in networks:
            found |= dict.fromkeys(self._inside(network, found))
        return [f"{one}/{one.max_prefixlen}" for one in found]

    def _inside(self, network: Subnet, taken: Iterable[Address]) -> Iterator[Address]:
        """Addresses in a network that no other route or interface of the machine leads away from."""
        prefixes = [ip_network(route.dst) for route, _ in self._device.routes]
        connected = [one for name in self._device.host["interfaces"] for one in self._device.networks(name)]
        nearer = [one for one in (*prefixes, *connected) if one.version == network.version and one != network]
        nearer = [one for one in nearer if one.prefixlen > network.prefixlen and one.network_address in network]
        known = {*taken, *self.own, *self.owners}

        def fits(one: Address) -> bool:
            return one not in known and not _is_special(one) and not any(one in near for near in nearer)

        yield from islice((one for one in self._named if within(one, network) and fits(one)), AT_A_LINK)
        yield from islice((one for one in _usual(network) if one not in self._named and fits(one)), 1)

    def way_out(self, address: Address) -> str:
        """The interface by which the machine sends to an address, by its main table; "" for none."""
        interfaces = self._device.host["interfaces"]
        ways = [
            (network.prefixlen, name)
            for name in interfaces
            for network in self._device.networks(name)
            if within(address, network)
        ]
        for route, hop in self._device.routes:
            network = ip_network(route.dst)
            if str(route.table) in ("254", "main") and within(address, network):
                ways.append((network.prefixlen, hop.dev))
        return max(ways, default=(0, ""))[1]


def _usual(network: Subnet) -> Iterator[Address]:
    """Addresses that a host in a network might have; for all networks, those of the documentation."""
    pools = map(ip_network, _INTERNET) if not network.prefixlen else (network,)
    for one in pools:
        if one.version == network.version:
            numbers = (7, 10, 20, 1, 0, one.num_addresses // 2 + 1)
            yield from (one[number] for number in numbers if number < one.num_addresses)


def within(address: Address, network: Subnet) -> bool:
    """Whether an address lies in a network, of whichever version either is."""
    return address.version == network.version and address in network


def _valid(text: str) -> Iterator[Address]:
    try:
        found = ip_address(text)
    except ValueError:
        return
    if not _is_special(found):
        yield found


def _is_special(one: Address) -> bool:
    return one.is_unspecified or one.is_loopback or one.is_multicast or one.is_link_local


def _is_edge(address: Address, networks: Sequence[Subnet]) -> bool:
    """Whether an address is that of a network or its broadcast."""
    return any(
        one.version == 4 and one.prefixlen < 31 and address in (one.network_address, one.broadcast_address)
        for one in networks
        if one.version == address.version
    )
