"""The lab as a scenario file describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from harness.model.fields import AnyAddress, HostName, InterfaceName, Model, Number32

VlanNumber = Annotated[int, Meta(ge=1, le=4094)]


Prefix = Annotated[
    str,
    Meta(
        description="A network with prefix length, an address, or `default`.",
        examples=["10.9.0.0/16", "default", "2001:db8:9::/48"],
    ),
]


Table = (
    Annotated[int, Meta(ge=1, le=0xFFFFFFFF, description="A routing table by its number.", examples=[100])]
    | Literal["main", "local", "default"]
)


class VlanSpec(Model, frozen=True, kw_only=True):
    """An interface for one VLAN of another (802.1Q)."""

    link: Annotated[InterfaceName, Meta(description="The interface that carries the tagged frames.", examples=["lan0"])]
    id: Annotated[VlanNumber, Meta(description="The VLAN.", examples=[10])]


class VxlanSpec(Model, frozen=True, kw_only=True):
    """A tunnel for Ethernet frames in UDP (VXLAN, RFC 7348), between two hosts."""

    id: Annotated[int, Meta(ge=0, le=0xFFFFFF, description="The network identifier, VNI.", examples=[42])]
    local: Annotated[
        AnyAddress, Meta(description="The address of this host that packets are sent from.", examples=["10.0.0.1"])
    ]
    remote: Annotated[AnyAddress, Meta(description="The address of the host at the other end.", examples=["10.0.0.2"])]
    port: Annotated[
        int, Meta(ge=1, le=65535, description="The UDP port that packets are sent to.", examples=[8472])
    ] = 4789


class VrfSpec(Model, frozen=True, kw_only=True):
    """A routing domain of its own for some interfaces (VRF)."""

    table: Annotated[int, Meta(ge=1, le=0xFFFFFFFF, description="Its routing table.", examples=[10])]
    interfaces: Annotated[
        list[InterfaceName], Meta(min_length=1, description="The interfaces in it.", examples=[["lan0", "lan1"]])
    ]


class PortSpec(Model, frozen=True, kw_only=True):
    """Which VLANs pass a port of a bridge."""

    untagged: Annotated[
        VlanNumber | None, Meta(description="The VLAN of frames without a tag, both ways.", examples=[10])
    ] = None
    tagged: Annotated[list[VlanNumber], Meta(description="VLANs that keep their tag.", examples=[[20, 30]])] = []


class RouteSpec(Model, frozen=True, kw_only=True):
    """A route; either `via` or another `type` than unicast."""

    to: Annotated[Prefix, Meta(description="Where to.", examples=["10.9.0.0/16", "default"])]
    via: Annotated[
        str | None,
        Meta(description="Who takes it: a neighbouring host, or an address of one.", examples=["core", "10.0.0.2"]),
    ] = None
    type: Annotated[
        Literal["unicast", "blackhole", "unreachable", "prohibit"],
        Meta(description="What becomes of a packet: dropped in silence, or with an answer.", examples=["blackhole"]),
    ] = "unicast"
    metric: Annotated[
        Number32 | None, Meta(description="The lower, the sooner it is chosen of equal ones.", examples=[100])
    ] = None
    table: Annotated[Table, Meta(description="The routing table.", examples=[100])] = "main"


class RuleSpec(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A rule of the routing policy: which packets are looked up in which table. See ip-rule(8)."""

    from_: Annotated[Prefix | None, Meta(description="Source address.", examples=["192.168.2.0/24"])] = None
    to: Annotated[Prefix | None, Meta(description="Destination address.", examples=["10.9.0.0/16"])] = None
    mark: Annotated[Number32 | None, Meta(description="Mark, as set by `meta mark set`.", examples=[1])] = None
    mask: Annotated[Number32 | None, Meta(description="Bits of the mark that count.", examples=[255])] = None
    iif: Annotated[InterfaceName | None, Meta(description="Interface that it came in by.", examples=["lan0"])] = None
    oif: Annotated[
        InterfaceName | None, Meta(description="Interface that its sender is bound to.", examples=["wan0"])
    ] = None
    table: Annotated[Table | None, Meta(description="The table to look in.", examples=[100])] = None
    type: Annotated[
        Literal["unicast", "blackhole", "unreachable", "prohibit"],
        Meta(description="`unicast` looks in the table; others end the packet.", examples=["prohibit"]),
    ] = "unicast"
    priority: Annotated[Number32 | None, Meta(description="The lower, the sooner it is asked.", examples=[1000])] = None


class HostSpec(Model, frozen=True, kw_only=True):
    """One host of a lab: a network namespace of its own."""

    interfaces: Annotated[
        dict[InterfaceName, list[str]],
        Meta(
            description="Interfaces of the host and their addresses with prefix length.",
            examples=[{"wan0": ["203.0.113.1/24", "2001:db8:113::1/64"]}],
        ),
    ]
    bridges: Annotated[
        dict[InterfaceName, Annotated[list[InterfaceName], Meta(min_length=1)]],
        Meta(
            description="Bridges of the host and their ports; each is also one of `interfaces`, and the ports have no "
            "addresses.",
            examples=[{"br0": ["port0", "port1"]}],
        ),
    ] = {}
    vlans: Annotated[
        dict[InterfaceName, VlanSpec],
        Meta(
            description="VLAN interfaces of the host; each is also one of `interfaces`.",
            examples=[{"lan0.10": {"link": "lan0", "id": 10}}],
        ),
    ] = {}
    ports: Annotated[
        dict[InterfaceName, PortSpec],
        Meta(
            description="VLANs that pass ports of bridges, or a bridge's own interface. A bridge with such a port "
            "lets no other VLAN pass.",
            examples=[{"port0": {"untagged": 10}, "port1": {"tagged": [10, 20]}}],
        ),
    ] = {}
    vxlans: Annotated[
        dict[InterfaceName, VxlanSpec],
        Meta(
            description="VXLAN tunnels of the host; each is also one of `interfaces`.",
            examples=[{"vx0": {"id": 42, "local": "10.0.0.1", "remote": "10.0.0.2"}}],
        ),
    ] = {}
    vrfs: Annotated[
        dict[InterfaceName, VrfSpec],
        Meta(
            description="Routing domains of the host; each is also one of `interfaces`.",
            examples=[{"blue": {"table": 10, "interfaces": ["lan0"]}}],
        ),
    ] = {}
    dummies: Annotated[
        list[InterfaceName],
        Meta(
            description="Interfaces that lead nowhere, for addresses of the host itself; each is also one of "
            "`interfaces`.",
            examples=[["service0"]],
        ),
    ] = []
    mtu: Annotated[
        dict[InterfaceName, Annotated[int, Meta(ge=68, le=65535)]],
        Meta(description="Longest IP packet of an interface, in bytes, if not 1500.", examples=[{"wan0": 1492}]),
    ] = {}
    routes: Annotated[
        list[RouteSpec],
        Meta(
            description="Routes beside those that addresses and `gateway` make.",
            examples=[[{"to": "10.9.0.0/16", "via": "core"}, {"to": "10.0.0.0/8", "type": "unreachable"}]],
        ),
    ] = []
    rules: Annotated[
        list[RuleSpec],
        Meta(
            description="Rules of the routing policy.",
            examples=[[{"from": "192.168.2.0/24", "table": 100}, {"mark": 1, "table": 101}]],
        ),
    ] = []
    gateway: Annotated[
        HostName | None,
        Meta(description="The neighbouring host that takes what is for none of its links.", examples=["device"]),
    ] = None
    forwarding: Annotated[
        bool, Meta(description="Whether the host forwards IPv4 and IPv6 between interfaces.", examples=[True])
    ] = False
    sysctls: Annotated[
        dict[str, str | int],
        Meta(
            description="Settings of this host, as sysctl(8) names them.",
            examples=[{"net.ipv4.conf.all.rp_filter": 1}],
        ),
    ] = {}


class LabSpec(Model, frozen=True, kw_only=True):
    """A network: hosts, and links between their interfaces."""

    hosts: Annotated[
        dict[HostName, HostSpec],
        Meta(
            min_length=1,
            description="The hosts by name.",
            examples=[{"device": {"interfaces": {"eth0": ["192.0.2.10/24"]}}}],
        ),
    ]
    links: Annotated[
        list[Annotated[list[str], Meta(min_length=2, max_length=2)]],
        Meta(
            description="Pairs of `host:interface` joined by a wire.",
            examples=[[["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]]],
        ),
    ]
    device: Annotated[
        HostName, Meta(description="The host under test: it loads the ruleset.", examples=["gateway"])
    ] = "device"
    neighbours: Annotated[
        Literal["resolved", "known"],
        Meta(
            description="Whether hosts with programs (`listen`, `connect`, `exchange`), and others that answer them, "
            "resolve each other's Ethernet addresses by ARP and Neighbour Discovery, through the rulesets, or have "
            "permanent neighbour entries. Hosts without addresses of their own are always known. Only a lab that is "
            "written out, here or in a file, can say `known`; built-in labs resolve.",
            examples=["known"],
        ),
    ] = "resolved"
