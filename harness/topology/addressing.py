"""The interfaces of a lab with their addresses, and which hosts see which of them on their links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address, ip_interface
from typing import NamedTuple

from harness.model.problem import Problem, Problems
from harness.topology.ethernet import station_mac
from harness.topology.parts import Address, AddressOnLink, End, Interface, Neighbour, Subnet, is_on_link_only
from harness.topology.segments import Wiring, kind
from harness.topology.spec import HostSpec, LabSpec


def interfaces(wiring: Wiring) -> dict[End, Interface]:
    """Every interface of the lab by its end, in the order of the file.

    Raises :class:`~harness.model.problem.Problem`, all of its interfaces and addresses together.
    """
    problems = Problems()
    spec = wiring.spec
    owners: dict[Address, list[End]] = {}
    anycast = frozenset(_anycast(spec))
    made = {}
    for number, (name, host) in enumerate(spec.hosts.items(), 1):
        numbers = {interface: index for index, interface in enumerate(host.interfaces, 1)}
        domains = {interface: vrf for vrf, of in host.vrfs.items() for interface in of.interfaces}
        subnets = _Subnets()
        for interface, texts in host.interfaces.items():
            end = End(name, interface)
            keys = ("hosts", name, "interfaces", interface)
            with problems.collected():
                if not kind(host, interface) and end not in wiring.peers:
                    raise Problem(f"{end} is not linked to anything", *keys, remedy="add it to links:")
            addresses = []
            for place, text in enumerate(texts):
                with problems.collected():
                    address = address_on_link(text, *keys, place)
                    others = owners.setdefault(address.ip, [])
                    for other in others:
                        if _excludes(other, end, address.ip, wiring, anycast):
                            raise Problem(f"{address.ip} is also the address of {other}", *keys, place)
                    others.append(end)
                    if not is_on_link_only(address.ip):
                        _add(subnets, address.network, end, domains.get(interface, ""), *keys, place)
                    addresses.append(address)
            carrier, wire = _carrier(host, interface), _carrier(host, interface, macvlans=True)
            made[end] = Interface(
                host=name,
                name=interface,
                mac=station_mac(number, numbers[carrier]),
                addresses=tuple(addresses),
                peer=wiring.peers.get(end) or End(name, _under(host, interface)),
                reaches=tuple(one for one in wiring.reached(end) if spec.hosts[one.host].interfaces[one.interface]),
                mtu=host.mtu.get(interface, host.mtu.get(wire, 1500)),
                given_mtu=host.mtu.get(interface),
            )
    problems.refuse()
    return made


def _excludes(other: End, end: End, address: Address, wiring: Wiring, anycast: Collection[Address]) -> bool:
    """Whether ``end`` cannot have the ``address`` since ``other`` has it."""
    if end in wiring.reached(other):
        return True
    if is_on_link_only(address):
        return end.host != other.host
    return address not in anycast or end.host == other.host


class _OwnSubnet(NamedTuple):
    """A subnet, and the interface that has it."""

    subnet: Subnet
    interface: str


class _Subnets:
    """The subnets of a host, found by the prefixes of their addresses: a router may have two thousand."""

    def __init__(self) -> None:
        self._with: dict[_Prefix, list[_OwnSubnet]] = defaultdict(list)
        """By each of its prefixes, its own too: of the first two interfaces, which is enough to find another."""
        self._own: dict[_Prefix, list[_OwnSubnet]] = defaultdict(list)
        """By its own."""

    def add(self, subnet: Subnet, interface: str, domain: str) -> None:
        """Add one that ``interface`` has in the VRF ``domain``, "" for none."""
        one = _OwnSubnet(subnet, interface)
        prefixes = list(_prefixes(subnet, domain))
        for known in (*(self._with[prefix] for prefix in prefixes), self._own[prefixes[-1]]):
            if len(known) < 2 and all(other.interface != interface for other in known):
                known.append(one)

    def overlapping(self, subnet: Subnet, interface: str, domain: str) -> _OwnSubnet | None:
        """One of another interface, by which the kernel might send what is for ``subnet``."""
        prefixes = list(_prefixes(subnet, domain))
        inside = self._with.get(prefixes[-1], [])
        around = (one for prefix in prefixes for one in self._own.get(prefix, ()))
        return next((one for one in (*inside, *around) if one.interface != interface), None)


def _add(subnets: _Subnets, subnet: Subnet, end: End, domain: str, *keys: str | int) -> None:
    """Add ``subnet`` of the interface ``end`` in the VRF ``domain``.

    Raises :class:`~harness.model.problem.Problem` with ``keys`` where it overlaps one of another interface.
    """
    if found := subnets.overlapping(subnet, end.interface, domain):
        raise Problem(f"{subnet} overlaps {found.subnet} of {end.host}:{found.interface}", *keys)
    subnets.add(subnet, end.interface, domain)


_Prefix = tuple[str, int, int, int]
"""VRF, version of IP, length and bits."""


def _prefixes(subnet: Subnet, domain: str) -> Iterator[_Prefix]:
    """The prefixes that all addresses of ``subnet`` have, the longest last."""
    bits = int(subnet.network_address)
    for length in range(subnet.prefixlen + 1):
        yield domain, subnet.version, length, bits >> subnet.max_prefixlen - length


def _anycast(spec: LabSpec) -> Iterator[Address]:
    """The addresses that several hosts may have."""
    for place, text in enumerate(spec.anycast):
        try:
            yield ip_address(text)
        except ValueError:
            raise Problem(f"'{text}' is not an address", "anycast", place) from None


def _carrier(host: HostSpec, interface: str, *, macvlans: bool = False) -> str:
    """The interface whose Ethernet address it has: a VLAN interface has that of the one below.

    With ``macvlans`` the one below these, too, whose MTU they have.
    """
    while below := host.vlans.get(interface) or (host.macvlans.get(interface) if macvlans else None):
        interface = below.link
    return interface


def _under(host: HostSpec, interface: str) -> str:
    """The first interface below one; itself for a tunnel or a dummy."""
    if interface in host.bridges:
        return host.bridges[interface][0]
    if interface in host.vrfs:
        return host.vrfs[interface].interfaces[0]
    below = host.vlans.get(interface) or host.macvlans.get(interface)
    return below.link if below else interface


def address_on_link(text: str, *keys: str | int) -> AddressOnLink:
    """An address with prefix length. Raises :class:`~harness.model.problem.Problem` with ``keys``."""
    try:
        address = ip_interface(text)
    except ValueError:
        raise Problem(f"'{text}' is not an address with prefix length, such as 10.0.2.1/24", *keys) from None
    if "/" not in text:
        raise Problem(
            f"'{text}' has no prefix length", *keys, remedy=f"write {text}/{24 if address.version == 4 else 64}"
        )
    return address


def neighbours(host: str, interfaces: Mapping[End, Interface]) -> Iterator[Neighbour]:
    """The neighbours of ``host``: all addresses that it reaches without a gateway."""
    for one in interfaces.values():
        if one.host == host and one.addresses:
            for end in one.reaches:
                for address in interfaces[end].addresses:
                    yield Neighbour(one.name, address.ip, interfaces[end].mac)
