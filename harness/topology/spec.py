"""The lab as a scenario file describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from harness.model.fields import AnyAddress, HostName, InterfaceName, Model, Number32
from harness.topology.interfaces import (
    IpsecSpec,
    MacvlanSpec,
    NetemSpec,
    PortSpec,
    Prefix,
    TunnelSpec,
    VlanSpec,
    VrfSpec,
    VxlanSpec,
    WireguardSpec,
)

Table = (
    Annotated[int, Meta(ge=1, le=0xFFFFFFFF, description="A routing table by its number.", examples=[100])]
    | Literal["main", "local", "default"]
)


class HopSpec(Model, frozen=True, kw_only=True):
    """One of several next hops of a route."""

    via: Annotated[str, Meta(description="A directly connected host, or an address of one.", examples=["isp1"])]
    weight: Annotated[
        Annotated[int, Meta(ge=1, le=256)], Meta(description="Its share of the flows, among the weights.", examples=[2])
    ] = 1


NexthopId = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]


class MemberSpec(Model, frozen=True, kw_only=True):
    """A member of a nexthop group."""

    id: Annotated[NexthopId, Meta(description="The id of a nexthop of the host that is no group.", examples=[2])]
    weight: Annotated[
        Annotated[int, Meta(ge=1, le=256)], Meta(description="Its share of the flows, among the weights.", examples=[3])
    ] = 1


class NexthopSpec(Model, frozen=True, kw_only=True):
    """A nexthop object as of `ip nexthop`, which routes refer to by its id: a next hop, or a group of others."""

    id: Annotated[NexthopId, Meta(description="Its id.", examples=[1])]
    via: Annotated[
        str | None, Meta(description="A directly connected host, or an address of one.", examples=["isp1", "10.0.0.2"])
    ] = None
    dev: Annotated[
        InterfaceName | None,
        Meta(description="The interface, as in `routes`.", examples=["tun0"]),
    ] = None
    family: Annotated[
        Literal["ip", "ip6"] | None,
        Meta(description="The IP version where `via` is a host that has both; `ip` unless given.", examples=["ip6"]),
    ] = None
    group: Annotated[
        Annotated[list[NexthopId | MemberSpec], Meta(min_length=1, max_length=256)] | None,
        Meta(
            description="Instead of a next hop: nexthops further up in the list over which flows are distributed "
            "(multipath).",
            examples=[[1, {"id": 2, "weight": 3}]],
        ),
    ] = None


class RouteSpec(Model, frozen=True, kw_only=True):
    """A route: with `via`, with `dev` or both, or of another `type` than unicast."""

    to: Annotated[Prefix, Meta(description="Destination prefix.", examples=["10.9.0.0/16", "default"])]
    via: Annotated[
        str | Annotated[list[str | HopSpec], Meta(min_length=2)] | None,
        Meta(
            description="Next hop: a directly connected host, or an address of one. Flows are distributed over "
            "several (multipath).",
            examples=["core", "10.0.0.2", ["isp1", {"via": "isp2", "weight": 2}]],
        ),
    ] = None
    dev: Annotated[
        InterfaceName | None,
        Meta(
            description="The interface at which the destination is reached without a next hop, such as a tunnel; with "
            "`via`, at which that address is reached, though it may lie in no network of the interface.",
            examples=["tun0"],
        ),
    ] = None
    nexthop: Annotated[
        NexthopId | None,
        Meta(description="Instead of `via` and `dev`: the id of one of the host's `nexthops`.", examples=[10]),
    ] = None
    type: Annotated[
        Literal["unicast", "blackhole", "unreachable", "prohibit", "local"],
        Meta(
            description="Route type: `blackhole` drops silently; `unreachable` and `prohibit` send an ICMP error; "
            "`local` delivers to the host itself, as for `tproxy`.",
            examples=["blackhole"],
        ),
    ] = "unicast"
    metric: Annotated[
        Number32 | None,
        Meta(description="Metric; of routes to the same prefix the one with the lowest is used.", examples=[100]),
    ] = None
    table: Annotated[Table, Meta(description="The routing table.", examples=[100])] = "main"


class RuleSpec(Model, frozen=True, kw_only=True, rename={"from_": "from", "not_": "not"}):
    """A routing policy rule: which packets are looked up in which table. See ip-rule(8)."""

    not_: Annotated[
        bool,
        Meta(description="Whether the rule selects the packets that its other keys do not match.", examples=[True]),
    ] = False
    from_: Annotated[Prefix | None, Meta(description="Source address.", examples=["192.168.2.0/24"])] = None
    to: Annotated[Prefix | None, Meta(description="Destination address.", examples=["10.9.0.0/16"])] = None
    mark: Annotated[Number32 | None, Meta(description="Packet mark, as set by `meta mark set`.", examples=[1])] = None
    mask: Annotated[Number32 | None, Meta(description="Mask for the mark.", examples=[255])] = None
    iif: Annotated[InterfaceName | None, Meta(description="Input interface.", examples=["lan0"])] = None
    oif: Annotated[
        InterfaceName | None, Meta(description="Interface that the sending socket is bound to.", examples=["wan0"])
    ] = None
    dsfield: Annotated[
        Annotated[int, Meta(ge=0, le=255)] | None,
        Meta(description="The byte of DSCP and ECN, the latter 0: DSCP times 4.", examples=[184]),
    ] = None
    table: Annotated[Table | None, Meta(description="The routing table to look up.", examples=[100])] = None
    suppress_prefixlength: Annotated[
        Annotated[int, Meta(ge=0, le=128)] | None,
        Meta(
            description="A route that is found is ignored if its prefix is of this length or shorter: with 0, default "
            "routes.",
            examples=[0],
        ),
    ] = None
    type: Annotated[
        Literal["unicast", "blackhole", "unreachable", "prohibit"],
        Meta(description="Rule type: `unicast` looks up the table; the others drop the packet.", examples=["prohibit"]),
    ] = "unicast"
    priority: Annotated[
        Number32 | None, Meta(description="Rule priority; lower is evaluated first.", examples=[1000])
    ] = None


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
            description="Bridges of the host and their ports. Each bridge is also listed in `interfaces`; ports have "
            "no addresses.",
            examples=[{"br0": ["port0", "port1"]}],
        ),
    ] = {}
    vlans: Annotated[
        dict[InterfaceName, VlanSpec],
        Meta(
            description="VLAN interfaces of the host; each is also listed in `interfaces`.",
            examples=[{"lan0.10": {"link": "lan0", "id": 10}}],
        ),
    ] = {}
    macvlans: Annotated[
        dict[InterfaceName, MacvlanSpec],
        Meta(
            description="Interfaces on top of another, with their own Ethernet address; each is also listed in "
            "`interfaces`.",
            examples=[{"vrrp0": {"link": "lan0"}}],
        ),
    ] = {}
    ports: Annotated[
        dict[InterfaceName, PortSpec],
        Meta(
            description="VLAN filtering: the VLANs that ports of bridges, or a bridge's own interface, let through. A "
            "bridge with such a port filters all other VLANs.",
            examples=[{"port0": {"untagged": 10}, "port1": {"tagged": [10, 20]}}],
        ),
    ] = {}
    vxlans: Annotated[
        dict[InterfaceName, VxlanSpec],
        Meta(
            description="VXLAN tunnels of the host; each is also listed in `interfaces`.",
            examples=[{"vx0": {"id": 42, "local": "10.0.0.1", "remote": "10.0.0.2"}}],
        ),
    ] = {}
    vrfs: Annotated[
        dict[InterfaceName, VrfSpec],
        Meta(
            description="VRFs of the host; each is also listed in `interfaces`.",
            examples=[{"blue": {"table": 10, "interfaces": ["lan0"]}}],
        ),
    ] = {}
    tunnels: Annotated[
        dict[InterfaceName, TunnelSpec],
        Meta(
            description="Tunnels for IP packets; each is also listed in `interfaces`.",
            examples=[{"tun0": {"kind": "gre", "local": "10.0.0.1", "remote": "10.0.0.2"}}],
        ),
    ] = {}
    wireguards: Annotated[
        dict[InterfaceName, WireguardSpec],
        Meta(
            description="WireGuard interfaces; each is also listed in `interfaces`.",
            examples=[{"wg0": {"peers": {"laptop": {"allowed": ["10.8.0.2/32"]}}}}],
        ),
    ] = {}
    netem: Annotated[
        dict[InterfaceName, NetemSpec],
        Meta(
            description="Delay and loss by interface, as with tc-netem(8).",
            examples=[{"wan0": {"delay": 0.05}}],
        ),
    ] = {}
    dummies: Annotated[
        list[InterfaceName],
        Meta(
            description="Dummy interfaces, for addresses of the host itself; each is also listed in `interfaces`.",
            examples=[["service0"]],
        ),
    ] = []
    mtu: Annotated[
        dict[InterfaceName, Annotated[int, Meta(ge=68, le=65535)]],
        Meta(description="MTU of an interface, in bytes; 1500 unless given.", examples=[{"wan0": 1492}]),
    ] = {}
    checksum_offload: Annotated[
        list[InterfaceName],
        Meta(
            description="Ends of links with TX checksum offload, the kernel's default for a veth: packets from this "
            "host's sockets carry only the pseudo-header checksum until they leave, and rules and captures see that. "
            "On ends not listed, the kernel completes checksums before any rule.",
            examples=[["wan0"]],
        ),
    ] = []
    routes: Annotated[
        list[RouteSpec],
        Meta(
            description="Routes in addition to connected routes and the one by `gateway`.",
            examples=[[{"to": "10.9.0.0/16", "via": "core"}, {"to": "10.0.0.0/8", "type": "unreachable"}]],
        ),
    ] = []
    nexthops: Annotated[
        list[NexthopSpec],
        Meta(
            description="Nexthop objects and groups, for `nexthop` of routes.",
            examples=[[{"id": 1, "via": "isp1"}, {"id": 2, "via": "isp2"}, {"id": 10, "group": [1, 2]}]],
        ),
    ] = []
    rules: Annotated[
        list[RuleSpec],
        Meta(
            description="Routing policy rules.",
            examples=[[{"from": "192.168.2.0/24", "table": 100}, {"mark": 1, "table": 101}]],
        ),
    ] = []
    gateway: Annotated[
        HostName | None,
        Meta(description="Default gateway: a directly connected host.", examples=["device"]),
    ] = None
    forwarding: Annotated[
        bool, Meta(description="Whether the host forwards IPv4 and IPv6 between interfaces.", examples=[True])
    ] = False
    sysctls: Annotated[
        dict[str, str | int],
        Meta(
            description="Kernel settings of this host, by their sysctl(8) names.",
            examples=[{"net.ipv4.conf.all.rp_filter": 1}],
        ),
    ] = {}
    modules: Annotated[
        list[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,55}$")]],
        Meta(
            max_length=32,
            description="Kernel modules that are loaded before the lab is built, as modprobe(8) would on this host: "
            "br_netfilter, nf_nat_ftp, ip_vs_rr, sch_fq. They are loaded for the whole kernel. In a microVM, modules "
            "loaded for a scenario are unloaded after it; hosts without br_netfilter do not filter what their "
            "bridges forward. Natively `--nft-modules` must permit them.",
            examples=[["br_netfilter"]],
        ),
    ] = []


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
            description="Pairs of `host:interface`, each connected by a veth link.",
            examples=[[["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]]],
        ),
    ]
    device: Annotated[
        HostName, Meta(description="The device under test: the host that loads `ruleset`.", examples=["gateway"])
    ] = "device"
    ipsec: Annotated[
        list[IpsecSpec],
        Meta(
            description="IPsec between hosts: ESP by states and policies.",
            examples=[[{"ends": [{"address": "203.0.113.1"}, {"address": "198.51.100.1"}], "reqid": 7}]],
        ),
    ] = []
    anycast: Annotated[
        list[AnyAddress],
        Meta(
            description="Addresses that several hosts may have, on different links; routes decide which of them a "
            "packet reaches.",
            examples=[["10.0.0.53"]],
        ),
    ] = []
    neighbours: Annotated[
        Literal["resolved", "known"],
        Meta(
            description="Whether hosts with programs (`listen`, `connect`, `exchange`), and others that answer them, "
            "resolve each other's Ethernet addresses by ARP and Neighbour Discovery, subject to the rulesets, or have "
            "permanent neighbour entries. Silent hosts always have permanent entries. Only a lab of your own, written "
            "here or in a file, can set `known`; built-in labs resolve.",
            examples=["known"],
        ),
    ] = "resolved"
