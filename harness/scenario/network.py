"""The plan of a lab: who has which address, who is reached through whom.

Nothing here touches the system: :mod:`harness.lab` builds what this plan says, and
:mod:`harness.scenario.packet` takes addresses and next hops from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import NamedTuple

import msgspec

from harness.scenario.models import LabSpec
from harness.scenario.problem import Problem, unknown

Address = IPv4Address | IPv6Address
AddressOnLink = IPv4Interface | IPv6Interface
Subnet = IPv4Network | IPv6Network

DEFAULT: tuple[Subnet, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""Where a host sends what is for none of its links."""
EVERYBODY = IPv4Address("255.255.255.255")
BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_MAC = "00:00:00:00:00:00"
LOOPBACK = "lo"
"""The interface by which a host reaches itself; no lab has to name it."""


class End(NamedTuple):
    """One end of a link, written ``host:interface`` in a scenario."""

    host: str
    interface: str

    def __str__(self) -> str:
        return f"{self.host}:{self.interface}"


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of a host: an end of exactly one link, or a bridge over such ends."""

    host: str
    name: str
    mac: str
    """Locally administered, the same in every run: ``02:00:00:00:HOST:INTERFACE``, counted from 1."""
    addresses: tuple[AddressOnLink, ...]
    peer: End
    """The other end of the link; for a bridge, its first port."""
    reaches: tuple[End, ...]
    """The other interfaces with an address that are reached without a router."""

    @property
    def end(self) -> End:
        """This interface as an end of its link."""
        return End(self.host, self.name)

    def address(self, family: int) -> Address | None:
        """The first address of IP version ``family``, 4 or 6."""
        return next((one.ip for one in self.addresses if one.version == family), None)


class Route(NamedTuple):
    """A route that is not implied by an interface's own addresses."""

    destination: Subnet
    via: Address
    interface: str


class Neighbour(NamedTuple):
    """A permanent neighbour: nobody has to ask for it, so the lab is quiet."""

    interface: str
    address: Address
    mac: str


class Station(NamedTuple):
    """An Ethernet address that a bridge need not learn."""

    port: str
    mac: str


class Bridge(NamedTuple):
    """A bridge of a host; its own interface has the same name."""

    ports: tuple[str, ...]
    stations: tuple[Station, ...]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One host of the lab."""

    name: str
    interfaces: Mapping[str, Interface]
    bridges: Mapping[str, Bridge]
    routes: tuple[Route, ...]
    neighbours: tuple[Neighbour, ...]
    forwarding: bool
    sysctls: Mapping[str, str]
    """As ``sysctl(8)`` writes them, e.g. ``net.ipv4.conf.all.rp_filter``."""
    silent: bool
    """It neither holds a ruleset nor forwards: its kernel gets no addresses, so it answers nothing."""


class NextHop(NamedTuple):
    """How a host reaches an address."""

    interface: Interface
    """Where the packet leaves."""
    mac: str
    """Of the neighbour that takes it; a group's for broadcast and multicast."""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A lab as planned: everything given or derived, nothing left to choose."""

    hosts: Mapping[str, Host]
    device: str
    """The host under test."""

    @classmethod
    def of(cls, spec: LabSpec, loading: Collection[str] = ()) -> Network:
        """Plan ``spec``; the hosts ``loading`` have a ruleset beside the device under test.

        Raises :class:`~harness.scenario.problem.Problem`, with keys below the lab, when hosts,
        links and addresses do not fit together.
        """
        if spec.device not in spec.hosts:
            raise unknown(spec.device, spec.hosts, "host of the lab, so it cannot be the device under test", "device")
        interfaces = _interfaces(spec)
        return cls(
            hosts={
                name: Host(
                    name=name,
                    interfaces={one.name: one for one in interfaces.values() if one.host == name},
                    bridges={
                        bridge: Bridge(tuple(ports), tuple(_stations(spec, name, bridge, interfaces)))
                        for bridge, ports in host.bridges.items()
                    },
                    routes=tuple(_routes(spec, name, interfaces)),
                    neighbours=tuple(_neighbours(name, interfaces)),
                    forwarding=host.forwarding,
                    sysctls={key: str(value) for key, value in host.sysctls.items()},
                    silent=name != spec.device and name not in loading and not host.forwarding,
                )
                for name, host in spec.hosts.items()
            },
            device=spec.device,
        )

    @property
    def interfaces(self) -> Iterator[Interface]:
        """All interfaces of all hosts."""
        for host in self.hosts.values():
            yield from host.interfaces.values()

    @property
    def links(self) -> tuple[tuple[Interface, Interface], ...]:
        """Both ends of every link, each link once, in the order of the hosts."""
        seen: dict[End, Interface] = {}
        pairs = []
        for one in self.interfaces:
            if one.name in self.hosts[one.host].bridges:
                continue
            if one.peer in seen:
                pairs.append((seen[one.peer], one))
            seen[one.end] = one
        return tuple(pairs)

    def owner(self, address: Address) -> str | None:
        """The host that has ``address``."""
        return next((one.host for one in self.interfaces for own in one.addresses if own.ip == address), None)

    def address(self, host: str, family: int, *, towards: str) -> Address | None:
        """The address of IP version ``family`` by which ``towards`` calls ``host``.

        That of the interface facing ``towards`` when they share a link, else the host's first;
        None when the host has no address of that version.
        """
        own = self.hosts[host].interfaces.values()
        facing_first = sorted(own, key=lambda one: all(end.host != towards for end in one.reaches))
        return next((found for one in facing_first if (found := one.address(family)) is not None), None)

    def route(self, host: str, address: Address, *, local: bool = False) -> NextHop:
        """How ``host`` sends to ``address``: by the longest prefix, as the kernel would.

        With ``local`` it reaches itself, by its loopback interface.

        Raises :class:`~harness.scenario.problem.Problem`, without keys, when it has no route or
        when nobody on the link has the next hop's address.
        """
        here = self.hosts[host]
        if local and (address.is_loopback or self.owner(address) == host):
            return NextHop(_loopback(host), NO_MAC)
        if address.is_multicast or address == EVERYBODY:
            for one in here.interfaces.values():
                if one.address(address.version) is not None:
                    return NextHop(one, _group_mac(address))
            raise Problem(f"{host} has no IPv{address.version} address")
        ways: list[tuple[Subnet, Address, str]] = list(here.routes)
        ways += [(own.network, address, one.name) for one in here.interfaces.values() for own in one.addresses]
        matching = [way for way in ways if address in way[0]]
        if not matching:
            raise Problem(f"{host} has no route to {address}", remedy=f"give {host} a gateway in the lab")
        subnet, via, name = max(matching, key=lambda way: way[0].prefixlen)
        if via == subnet.broadcast_address and subnet.version == 4:
            return NextHop(here.interfaces[name], BROADCAST)
        for neighbour in here.neighbours:
            if (neighbour.interface, neighbour.address) == (name, via):
                return NextHop(here.interfaces[name], neighbour.mac)
        if via in (own.ip for own in here.interfaces[name].addresses):
            raise Problem(f"{via} is {host}'s own address")
        raise Problem(f"nobody on the link of {host}:{name} has {via}", remedy="say who takes it with ether: {dst: …}")


def _loopback(host: str) -> Interface:
    return Interface(host=host, name=LOOPBACK, mac=NO_MAC, addresses=(), peer=End(host, LOOPBACK), reaches=())


def _interfaces(spec: LabSpec) -> dict[End, Interface]:
    """Every interface of the lab by its end, in the order of the file."""
    _check_bridges(spec)
    peers = _peers(spec)
    owners: dict[Address, End] = {}
    interfaces = {}
    for number, (name, host) in enumerate(spec.hosts.items(), 1):
        subnets: dict[Subnet, str] = {}
        for index, (interface, texts) in enumerate(host.interfaces.items(), 1):
            end = End(name, interface)
            bridge = host.bridges.get(interface)
            if bridge is None and end not in peers:
                raise Problem(
                    f"{end} is not linked to anything",
                    "hosts",
                    name,
                    "interfaces",
                    interface,
                    remedy="add it to links:",
                )
            addresses = []
            for place, text in enumerate(texts):
                keys = ("hosts", name, "interfaces", interface, place)
                address = _address_on_link(text, *keys)
                if address.ip in owners:
                    raise Problem(f"{address.ip} is also the address of {owners[address.ip]}", *keys)
                owners[address.ip] = end
                for subnet, where in subnets.items():
                    if where != interface and subnet.version == address.version and subnet.overlaps(address.network):
                        raise Problem(f"{address.network} overlaps {subnet} of {name}:{where}", *keys)
                subnets[address.network] = interface
                addresses.append(address)
            mac = f"02:00:00:00:{number:02x}:{index:02x}"
            interfaces[end] = Interface(
                host=name,
                name=interface,
                mac=mac,
                addresses=tuple(addresses),
                peer=End(name, bridge[0]) if bridge else peers[end],
                reaches=tuple(
                    one for one in _segment(spec, end, peers) if spec.hosts[one.host].interfaces[one.interface]
                ),
            )
    return interfaces


def _check_bridges(spec: LabSpec) -> None:
    for name, host in spec.hosts.items():
        owners: dict[str, str] = {}
        for bridge, ports in host.bridges.items():
            keys = ("hosts", name, "bridges", bridge)
            if bridge not in host.interfaces:
                remedy = f"give it its addresses, or none: interfaces: {{{bridge}: []}}"
                raise Problem(f"{name} has no interface {bridge}", *keys, remedy=remedy, about_key=True)
            for index, port in enumerate(ports):
                if port not in host.interfaces:
                    raise unknown(port, host.interfaces, f"interface of {name}", *keys, index)
                if port in host.bridges:
                    raise Problem(f"{port} is a bridge itself", *keys, index)
                if port in owners:
                    raise Problem(f"{port} is already a port of {owners[port]}", *keys, index)
                if host.interfaces[port]:
                    keys = ("hosts", name, "interfaces", port)
                    raise Problem(f"a port of {bridge} has no addresses", *keys, remedy=f"give them to {bridge}")
                owners[port] = bridge


def _segment(spec: LabSpec, start: End, peers: Mapping[End, End], *, without: End | None = None) -> list[End]:
    """All other ends that ``start`` reaches over wires and bridges, nearest first; ``without`` is no way there."""
    found, at = [start], 0
    while at < len(found):
        here = found[at]
        at += 1
        near = [peers[here]] if here in peers else []
        for bridge, ports in spec.hosts[here.host].bridges.items():
            ends = [End(here.host, one) for one in (bridge, *ports)]
            if here in ends and ends[0] != without:
                near += ends
        found += [end for end in dict.fromkeys(near) if end not in found]
    return found[1:]


def _stations(spec: LabSpec, host: str, bridge: str, interfaces: Mapping[End, Interface]) -> Iterator[Station]:
    """Who is behind which port: what the bridge would learn from traffic that a lab does not have."""
    peers = {end: one.peer for end, one in interfaces.items() if end.interface not in spec.hosts[end.host].bridges}
    for port in spec.hosts[host].bridges[bridge]:
        for end in _segment(spec, End(host, port), peers, without=End(host, bridge)):
            if interfaces[end].addresses:
                yield Station(port, interfaces[end].mac)


def _address_on_link(text: str, *keys: str | int) -> AddressOnLink:
    try:
        address = ip_interface(text)
    except ValueError:
        raise Problem(f"'{text}' is not an address with prefix length, such as 10.0.2.1/24", *keys) from None
    if "/" not in text:
        raise Problem(
            f"'{text}' has no prefix length", *keys, remedy=f"write {text}/{24 if address.version == 4 else 64}"
        )
    return address


def _peers(spec: LabSpec) -> dict[End, End]:
    """The other end of each end, both ways."""
    peers: dict[End, End] = {}
    for number, texts in enumerate(spec.links):
        ends = []
        for side, text in enumerate(texts):
            keys = ("links", number, side)
            host, colon, interface = text.partition(":")
            if not colon:
                raise Problem(f"'{text}' is not host:interface", *keys)
            if host not in spec.hosts:
                raise unknown(host, spec.hosts, "host of the lab", *keys)
            own = spec.hosts[host].interfaces
            if interface not in own:
                raise unknown(interface, own, f"interface of {host}", *keys)
            end = End(host, interface)
            if interface in spec.hosts[host].bridges:
                raise Problem(f"{end} is a bridge", *keys, remedy="link its ports")
            if end in peers or end in ends:
                raise Problem(
                    f"{end} is linked twice", *keys, remedy="a wire has two ends; give each its own interface"
                )
            ends.append(end)
        one, other = ends
        peers |= {one: other, other: one}
    return peers


def _neighbours(host: str, interfaces: Mapping[End, Interface]) -> Iterator[Neighbour]:
    """Everybody who can be reached without a gateway."""
    for one in interfaces.values():
        if one.host == host and one.addresses:
            for end in one.reaches:
                for address in interfaces[end].addresses:
                    yield Neighbour(one.name, address.ip, interfaces[end].mac)


def _routes(spec: LabSpec, host: str, interfaces: Mapping[End, Interface]) -> Iterator[Route]:
    """Default routes by the gateway's addresses on a subnet that both are on."""
    gateway = spec.hosts[host].gateway
    if gateway is None:
        return
    keys = ("hosts", host, "gateway")
    if gateway not in spec.hosts:
        raise unknown(gateway, spec.hosts, "host of the lab", *keys)
    found: dict[int, tuple[Address, str]] = {}
    for one in interfaces.values():
        if one.host == host:
            own_subnets = {own.network for own in one.addresses}
            near = [address for end in one.reaches if end.host == gateway for address in interfaces[end].addresses]
            for address in near:
                if address.network in own_subnets:
                    found.setdefault(address.version, (address.ip, one.name))
    if not found:
        raise Problem(f"{gateway} is not on a subnet of {host}, so it cannot be its gateway", *keys)
    for default in DEFAULT:
        if default.version in found:
            yield Route(default, *found[default.version])


def _group_mac(address: Address) -> str:
    """Where broadcast and multicast go: RFC 1112 section 6.4, RFC 2464 section 7."""
    if address == EVERYBODY:
        return BROADCAST
    octets = address.packed
    if address.version == 6:
        return (b"\x33\x33" + octets[-4:]).hex(":")
    return bytes([0x01, 0x00, 0x5E, octets[1] & 0x7F, *octets[2:]]).hex(":")
