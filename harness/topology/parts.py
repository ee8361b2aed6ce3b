"""What a planned lab is made of: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from typing import Final, NamedTuple

import msgspec

Address = IPv4Address | IPv6Address
AddressOnLink = IPv4Interface | IPv6Interface
Subnet = IPv4Network | IPv6Network

DEFAULT: tuple[Subnet, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""Destinations of the default route."""
EVERYBODY = IPv4Address("255.255.255.255")
BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_MAC = "00:00:00:00:00:00"
LOOPBACK = "lo"
"""The loopback interface, which every host has."""


class End(NamedTuple):
    """One end of a link, written ``host:interface`` in a scenario."""

    host: str
    interface: str

    def __str__(self) -> str:
        return f"{self.host}:{self.interface}"


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of a host: an end of exactly one link, or made of others."""

    host: str
    name: str
    mac: str
    """Locally administered and the same in every run: ``02:00:00:00:HOST:INTERFACE``, counted from 1."""
    addresses: tuple[AddressOnLink, ...]
    peer: End
    """The other end of the link; of an interface that is not a wire, the first one below it, or itself."""
    reaches: tuple[End, ...]
    """The other interfaces with an address that are reached without a router."""
    mtu: int = 1500
    """Longest IP packet, in bytes."""
    given_mtu: int | None = None
    """The same where the lab sets it, else None."""

    @property
    def end(self) -> End:
        """This interface as an end of its link."""
        return End(self.host, self.name)

    def address(self, family: int, towards: Address | None = None) -> Address | None:
        """The first address of IP version ``family``, 4 or 6, for packets to ``towards``.

        A link-local IPv6 address serves for others, and others for them, only where there is none of the same scope
        (RFC 6724, rule 2).
        """
        own = (one.ip for one in self.addresses if one.version == family)
        wanted = towards is not None and is_on_link_only(towards)
        return min(own, key=lambda ip: is_on_link_only(ip) is not wanted, default=None)


def is_on_link_only(address: Address) -> bool:
    """Whether it is a link-local IPv6 address, which means something else on each link (RFC 4007)."""
    return address.version == 6 and address.is_link_local


MAIN: Final = 254
TABLES: Final = {"default": 253, "main": MAIN, "local": 255}
"""Routing tables with a name (``enum rt_class_t`` in linux/rtnetlink.h)."""


class RouteHop(NamedTuple):
    """Where a unicast route leads."""

    via: Address | None
    """None for destinations that are reached at the interface without a router."""
    interface: str
    weight: int = 1
    on_link: bool = False
    """Whether it is reached at the interface though no network there has its address."""

    def __str__(self) -> str:
        return str(self.via or self.interface) + (f" weight {self.weight}" if self.weight > 1 else "")


class Nexthop(NamedTuple):
    """A nexthop object, which routes refer to by its id."""

    id: int
    version: int
    hops: tuple[RouteHop, ...]
    """Its next hop; those of a group."""
    group: tuple[tuple[int, int], ...] = ()
    """Of a group the ids of its members, and their weights."""

    def __str__(self) -> str:
        return f"nexthop {self.id}"


class Route(NamedTuple):
    """A route that is not implied by an interface's own addresses."""

    destination: Subnet
    hops: tuple[RouteHop, ...]
    """Several share the flows; none unless unicast."""
    type: str = "unicast"
    """Or ``blackhole``, ``unreachable``, ``prohibit``, ``local``."""
    table: int = MAIN
    metric: int = 0
    nexthop: int = 0
    """Of a route by a nexthop object its id; ``hops`` are those of the object."""

    def __str__(self) -> str:
        by = f"by {', '.join(map(str, self.hops))}" if self.hops else self.type
        return f"{self.destination} {by}" if self.table == MAIN else f"{self.destination} {by} in table {self.table}"


class RoutingRule(NamedTuple):
    """A rule of the routing policy, for one IP version."""

    version: int
    source: Subnet | None
    destination: Subnet | None
    mark: int | None
    mask: int | None
    iif: str
    oif: str
    type: str
    table: int
    priority: int | None
    inverted: bool = False
    """Whether it applies to the packets that do *not* match."""
    dsfield: int = 0
    """The byte of DSCP and ECN, the latter 0; 0 for any."""
    suppress_prefixlength: int | None = None

    def __str__(self) -> str:
        named = (
            ("from", self.source),
            ("to", self.destination),
            ("mark", self.mark),
            ("iif", self.iif),
            ("oif", self.oif),
            ("dsfield", self.dsfield),
        )
        words = [f"{name} {value}" for name, value in named if value] or ["all"]
        ends = f"table {self.table}" if self.type == "unicast" else self.type
        if self.suppress_prefixlength is not None:
            ends += f" suppress_prefixlength {self.suppress_prefixlength}"
        return " ".join([*(["not"] * self.inverted), *words, ends])


class Neighbour(NamedTuple):
    """A neighbour: an address that is reached without a router."""

    interface: str
    address: Address
    mac: str
    known: bool = True
    """Whether it has a permanent entry. Others are resolved by ARP or Neighbour Discovery."""


class Station(NamedTuple):
    """A static entry in a bridge's forwarding database."""

    port: str
    mac: str
    vlan: int = 0
    """The VLAN, of a bridge with VLAN filtering; else 0."""


class Bridge(NamedTuple):
    """A bridge; its own interface has the same name."""

    ports: tuple[str, ...]
    stations: tuple[Station, ...]
    vlans: Mapping[str, Passing] = {}
    """The VLANs allowed by port, or at its own interface; empty for a bridge without VLAN filtering."""

    def __str__(self) -> str:
        return f"bridge of {', '.join(self.ports)}"


class Passing(NamedTuple):
    """The VLANs of a bridge's port."""

    untagged: int | None
    tagged: tuple[int, ...]


class Vlan(NamedTuple):
    """An interface for one VLAN of another."""

    link: str
    id: int
    protocol: str = "802.1q"

    def __str__(self) -> str:
        tag = "" if self.protocol == "802.1q" else f" ({self.protocol})"
        return f"VLAN {self.id} of {self.link}{tag}"


class Macvlan(NamedTuple):
    """An interface with an Ethernet address of its own on another."""

    link: str
    mode: str = "bridge"
    """Or ``private``: it reaches no other on the same interface."""

    def __str__(self) -> str:
        return f"macvlan on {self.link}"


class Vxlan(NamedTuple):
    """A tunnel for Ethernet frames."""

    id: int
    local: Address
    remote: Address
    port: int

    def __str__(self) -> str:
        return f"VXLAN {self.id} to {self.remote}"


class Tunnel(NamedTuple):
    """A tunnel for IP packets."""

    kind: str
    """``ipip`` or ``gre``."""
    local: Address
    remote: Address
    key: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} to {self.remote}"


class WireguardPeer(NamedTuple):
    """A peer of a WireGuard interface."""

    end: End
    """Its interface."""
    allowed: tuple[Subnet, ...]
    endpoint: tuple[Address, int] | None
    """Address and UDP port at which it is called; None where it calls first."""


class Wireguard(NamedTuple):
    """A WireGuard interface."""

    port: int
    peers: tuple[WireguardPeer, ...]
    mark: int = 0
    """The mark of encrypted packets; 0 for none."""

    def __str__(self) -> str:
        return f"WireGuard with {', '.join(peer.end.host for peer in self.peers)}"


class Ipsec(NamedTuple):
    """IPsec as one host has it."""

    local: Address
    remote: Address
    spi_in: int
    spi_out: int
    reqid: int
    mode: str
    """``tunnel`` or ``transport``."""
    selectors: tuple[tuple[Subnet, Subnet], ...]
    """Source and destination of what it encrypts."""

    def __str__(self) -> str:
        return f"IPsec ({self.mode}) to {self.remote}"


class Netem(NamedTuple):
    """What becomes of packets that leave by an interface."""

    delay: float = 0
    """Seconds."""
    loss: bool = False
    """Whether all are lost."""


class Vrf(NamedTuple):
    """A routing domain."""

    table: int
    interfaces: tuple[str, ...]

    def __str__(self) -> str:
        return f"VRF of {', '.join(self.interfaces)}, table {self.table}"


class Dummy(NamedTuple):
    """An interface that leads nowhere."""

    def __str__(self) -> str:
        return "leads nowhere"


Made = Bridge | Vlan | Macvlan | Vxlan | Tunnel | Wireguard | Vrf | Dummy
"""An interface that is not the end of a wire."""


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One host of the lab."""

    name: str
    interfaces: Mapping[str, Interface]
    made: Mapping[str, Made]
    """The interfaces that are not ends of wires, in an order in which they can be created."""
    routes: tuple[Route, ...]
    rules: tuple[RoutingRule, ...]
    nexthops: tuple[Nexthop, ...] = ()
    neighbours: tuple[Neighbour, ...]
    forwarding: bool
    sysctls: Mapping[str, str]
    """As ``sysctl(8)`` writes them, e.g. ``net.ipv4.conf.all.rp_filter``."""
    silent: bool
    """It neither loads a ruleset nor forwards, nor ends a tunnel for IP: its interfaces get no addresses, so its kernel
    answers nothing."""
    speaking: frozenset[str]
    """The interfaces that get their addresses: all, or of a silent host the local ends of its tunnels."""
    netem: Mapping[str, Netem] = {}
    """By interface."""
    modules: tuple[str, ...] = ()
    """Kernel modules that it needs, by their names with underscores."""
    checksum_offload: tuple[str, ...] = ()
    """The ends of wires that leave checksums of what the host's sockets send to the link."""
    ipsec: tuple[Ipsec, ...] = ()
    """The packets that it encrypts and decrypts."""
    down: frozenset[str] = frozenset()
    """The interfaces that a step has set down."""

    def routes_in_kernel(self, route: Route) -> bool:
        """Whether the kernel has ``route``: that of a silent host has those of its tunnels alone."""
        return not self.silent or any(hop.interface in self.speaking for hop in route.hops)

    @property
    def bridges(self) -> dict[str, Bridge]:
        """Those of :attr:`made` that are bridges."""
        return {name: one for name, one in self.made.items() if isinstance(one, Bridge)}
