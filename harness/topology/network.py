"""The plan of a lab: addresses, links and routes.

Nothing here touches the system: :mod:`harness.lab` builds what this plan says, and
:mod:`harness.packets.frames` takes addresses and next hops from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import NamedTuple

import msgspec

from harness.bounds import HOSTS, INTERFACES
from harness.model.problem import Problem, Problems, unknown
from harness.topology import addressing, ipsec, routing, sysctls, tunnels
from harness.topology.ethernet import group_mac
from harness.topology.parts import (
    BROADCAST,
    EVERYBODY,
    LOOPBACK,
    MAIN,
    NO_MAC,
    Address,
    Bridge,
    Dummy,
    End,
    HostPlan,
    Interface,
    Ipsec,
    Macvlan,
    Made,
    Netem,
    Passing,
    Route,
    RoutingRule,
    Subnet,
    Tunnel,
    Vlan,
    Vrf,
    Wireguard,
    is_on_link_only,
)
from harness.topology.segments import LAYER_3, Wiring, creation, kind, knows_vlans
from harness.topology.spec import HostSpec, LabSpec


class NextHop(NamedTuple):
    """How a host sends to an address."""

    interface: Interface
    """The output interface."""
    mac: str
    """Ethernet address of the neighbour; of the group for broadcast and multicast."""
    address: Address | None = None
    """IP address of the neighbour; None for broadcast and multicast."""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A lab as planned, with everything derived that its description leaves open."""

    hosts: Mapping[str, HostPlan]
    device: str
    """The host under test."""
    resolves: bool = True
    """Whether hosts resolve their neighbours where programs run."""

    @classmethod
    def of(cls, spec: LabSpec, loading: Collection[str] = ()) -> Network:
        """Plan ``spec``; the hosts ``loading`` have a ruleset beside the device under test.

        Raises :class:`~harness.model.problem.Problem`, with keys below the lab, when hosts,
        links and addresses do not fit together: all that do not depend on each other, together.
        """
        if len(spec.hosts) > HOSTS:
            raise Problem(f"has {len(spec.hosts):,} hosts, and {HOSTS} is the limit", "hosts")
        if (count := sum(len(host.interfaces) for host in spec.hosts.values())) > INTERFACES:
            raise Problem(f"has {count:,} interfaces, and {INTERFACES:,} is the limit", "hosts")
        if spec.device not in spec.hosts:
            raise unknown(spec.device, spec.hosts, "host of the lab, so it cannot be the device under test", "device")
        wiring = Wiring(spec)
        interfaces = addressing.interfaces(wiring)
        encrypting = ipsec.plan(spec.ipsec, interfaces)
        loading = {*loading, *encrypting}  # their kernels do it
        problems = Problems()
        hosts = {}
        for name in spec.hosts:
            with problems.collected():
                hosts[name] = _host(name, wiring, interfaces, loading, encrypting.get(name, ()))
        problems.refuse()
        return cls(
            hosts=hosts,
            device=spec.device,
            resolves=spec.neighbours == "resolved",
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
            if one.name in self.hosts[one.host].made:
                continue
            if one.peer in seen:
                pairs.append((seen[one.peer], one))
            seen[one.end] = one
        return tuple(pairs)

    def owner(self, address: Address) -> str | None:
        """The host that has ``address``."""
        return next((one.host for one in self.interfaces for own in one.addresses if own.ip == address), None)

    def address(self, host: str, family: int, *, towards: str) -> Address | None:
        """The address of IP version ``family`` at which ``towards`` reaches ``host``.

        That of the interface facing ``towards`` when they share a link, else the host's first;
        None when the host has no address of that version.
        """
        own = self.hosts[host].interfaces.values()
        facing_first = sorted(own, key=lambda one: all(end.host != towards for end in one.reaches))
        return next((found for one in facing_first if (found := one.address(family)) is not None), None)

    def route(self, host: str, address: Address, *, local: bool = False) -> NextHop:
        """How ``host`` sends to ``address``: by the longest matching prefix, as in the kernel.

        With ``local`` also to itself, by its loopback interface.

        Raises :class:`~harness.model.problem.Problem`, without keys, when it has no route or
        when no host on the link has the next hop's address.
        """
        here = self.hosts[host]
        if local and (address.is_loopback or self.owner(address) == host):
            return NextHop(_loopback(host), NO_MAC)
        if address.is_multicast or address == EVERYBODY:
            for one in here.interfaces.values():
                if one.address(address.version) is not None:
                    return NextHop(one, group_mac(address))
            raise Problem(f"{host} has no IPv{address.version} address")
        for neighbour in here.neighbours if is_on_link_only(address) else ():
            if neighbour.address == address:
                return NextHop(here.interfaces[neighbour.interface], neighbour.mac, address)
        return _next_hop(here, _longest_match(here, address))

    def enters_tunnel(self, host: str, address: Address) -> bool:
        """Whether what ``host`` sends to ``address`` leaves by a tunnel for IP, or encrypted: by its kernel."""
        if any(address in far for one in self.hosts[host].ipsec for _, far in one.selectors):
            return True
        with suppress(Problem):
            return isinstance(self.hosts[host].made.get(self.route(host, address).interface.name), Tunnel | Wireguard)
        return False


class _Way(NamedTuple):
    to: Subnet
    via: Address | None
    interface: str
    metric: int = 0
    type: str = "unicast"

    @classmethod
    def by(cls, route: Route, address: Address) -> _Way:
        """Towards ``address``; of several next hops by the first."""
        if not route.hops:
            return cls(route.destination, None, "", route.metric, route.type)
        hop = route.hops[0]
        return cls(route.destination, hop.via or address, hop.interface, route.metric)


def _longest_match(here: HostPlan, address: Address) -> _Way:
    """The route to ``address`` of the longest prefix, then of the lowest metric."""
    # For a frame's first hop only: rules and other tables are left to the kernel.
    given = (route for route in here.routes if route.table == MAIN)
    ways = [_Way.by(route, address) for route in given]
    ways += [_Way(own.network, address, one.name) for one in here.interfaces.values() for own in one.addresses]
    matching = [way for way in ways if address in way.to]
    if not matching:
        raise Problem(f"{here.name} has no route to {address}", remedy=f"give {here.name} a gateway in the lab")
    return max(matching, key=lambda way: (way.to.prefixlen, -way.metric))


def _next_hop(here: HostPlan, way: _Way) -> NextHop:
    """The next hop of ``here`` by the route ``way``."""
    subnet, via, name, _, kind = way
    if via is None:
        raise Problem(f"{here.name}'s route to {subnet} is of type {kind}")
    if isinstance(here.made.get(name), Tunnel | Wireguard):
        return NextHop(here.interfaces[name], NO_MAC)
    if subnet.version == 4 and subnet.prefixlen < 31 and via == subnet.broadcast_address:
        return NextHop(here.interfaces[name], BROADCAST)
    for neighbour in here.neighbours:
        if (neighbour.interface, neighbour.address) == (name, via):
            return NextHop(here.interfaces[name], neighbour.mac, via)
    if via in (own.ip for own in here.interfaces[name].addresses):
        raise Problem(f"{via} is {here.name}'s own address")
    raise Problem(
        f"no host on the link of {here.name}:{name} has {via}",
        remedy="set the Ethernet destination if that is intended",
    )


def _loopback(host: str) -> Interface:
    return Interface(
        host=host, name=LOOPBACK, mac=NO_MAC, addresses=(), peer=End(host, LOOPBACK), reaches=(), mtu=65535
    )


def _host(
    name: str,
    wiring: Wiring,
    interfaces: Mapping[End, Interface],
    loading: Collection[str],
    encrypted: tuple[Ipsec, ...],
) -> HostPlan:
    spec = wiring.spec
    host = spec.hosts[name]
    for setting in host.sysctls:
        sysctls.check(setting, "hosts", name, "sysctls")
    own = {one.name: one for one in interfaces.values() if one.host == name}
    place = _with_nexthops(_place(name, wiring, interfaces), host)
    routes = tuple(_routes(host, place))
    silent = name != spec.device and name not in loading and not (host.forwarding or host.tunnels or host.wireguards)
    starts = {ip_address(tunnel.local) for tunnel in host.vxlans.values()}
    speaking = (one.name for one in own.values() if not silent or any(owned.ip in starts for owned in one.addresses))
    return HostPlan(
        name=name,
        interfaces=own,
        made={one: _made(name, one, wiring, interfaces) for one in creation(host)},
        routes=routes,
        nexthops=tuple(place.nexthops.values()),
        rules=tuple(_rules(host, place, routes)),
        neighbours=tuple(
            one for one in addressing.neighbours(name, interfaces) if kind(host, one.interface) not in LAYER_3
        ),
        forwarding=host.forwarding,
        sysctls={key: str(value) for key, value in host.sysctls.items()},
        silent=silent,
        netem={one: Netem(said.delay, said.loss) for one, said in host.netem.items()},
        speaking=frozenset(speaking),
        checksum_offload=tuple(host.checksum_offload),
        ipsec=encrypted,
        modules=tuple(module.replace("-", "_") for module in host.modules),
    )


def _place(name: str, wiring: Wiring, interfaces: Mapping[End, Interface]) -> routing.Place:
    vrfs = wiring.spec.hosts[name].vrfs.values()
    domains = {interface: vrf.table for vrf in vrfs for interface in vrf.interfaces}
    return routing.Place(name, tuple(wiring.spec.hosts), interfaces, domains)


def _with_nexthops(place: routing.Place, host: HostSpec) -> routing.Place:
    """``place`` with the host's nexthop objects."""
    for index, said in enumerate(host.nexthops):
        with below("hosts", place.name, "nexthops", index):
            made = routing.nexthop(place, said)
        place = place._replace(nexthops={**place.nexthops, made.id: made})
    return place


def _routes(host: HostSpec, place: routing.Place) -> Iterator[Route]:
    if host.gateway is not None:
        with below("hosts", place.name, "gateway"):
            yield from routing.gateway(place, host.gateway)
    for index, said in enumerate(host.routes):
        with below("hosts", place.name, "routes", index):
            yield from routing.routes(place, said)


def _rules(host: HostSpec, place: routing.Place, own: Collection[Route]) -> Iterator[RoutingRule]:
    for index, said in enumerate(host.rules):
        with below("hosts", place.name, "rules", index):
            yield from routing.rules(place, said, own)


@contextmanager
def below(*keys: str | int) -> Iterator[None]:
    """Say where in the lab what is wrong in the block stands."""
    try:
        yield
    except Problem as problem:
        raise problem.below(*keys) from None


def _made(name: str, interface: str, wiring: Wiring, interfaces: Mapping[End, Interface]) -> Made:
    host = wiring.spec.hosts[name]
    match kind(host, interface):
        case "bridges":
            ports = tuple(host.bridges[interface])
            stations = dict.fromkeys(wiring.stations(name, interface, interfaces))
            passing = {
                port: Passing(said.untagged, tuple(said.tagged))
                for port, said in host.ports.items()
                if port in (interface, *ports)
            }
            return Bridge(ports, tuple(stations), passing if knows_vlans(host, interface) else {})
        case "vlans":
            vlan = host.vlans[interface]
            return Vlan(vlan.link, vlan.id, vlan.protocol)
        case "macvlans":
            return Macvlan(host.macvlans[interface].link, host.macvlans[interface].mode)
        case "vxlans":
            return tunnels.vxlan(host.vxlans[interface])
        case "tunnels":
            return tunnels.tunnel(host.tunnels[interface])
        case "wireguards":
            return tunnels.wireguard(wiring.spec, name, host.wireguards[interface])
        case "vrfs":
            return Vrf(host.vrfs[interface].table, tuple(host.vrfs[interface].interfaces))
        case _:
            return Dummy()
