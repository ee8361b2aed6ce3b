"""What a scenario file says, as frozen values.

These classes are the language: the loader validates a file against them, the JSON Schema and the
language reference are generated from them. A field name is the YAML key unless ``rename`` says
otherwise; a key that is not here is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Keys = tuple[str | int, ...]
"""The way to a value, e.g. ``("send", "tcp", "dport")``."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the language: immutable and strict."""


Name = Annotated[str, Meta(min_length=1, max_length=200)]
HostName = Annotated[
    str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$", description="A host of the lab.", examples=["client"])
]
InterfaceName = Annotated[
    str,
    Meta(
        pattern=r"^[^\s/:]{1,15}$",
        description="An interface as the kernel names it: up to 15 characters, no space, `/` or `:`.",
        examples=["wan0"],
    ),
]
Mac = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$",
        description="An Ethernet address.",
        examples=["02:00:00:00:00:01"],
    ),
]
Byte = Annotated[int, Meta(ge=0, le=255)]
Word = Annotated[int, Meta(ge=0, le=65535)]
Port = Word
Number32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Count = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
CodePoint = Annotated[int, Meta(ge=0, le=63)]
MOST_PACKETS = 1000
"""Packets that one ``send`` may make."""
VlanId = Annotated[int, Meta(ge=0, le=4094)]
RulesetFiles = str | Annotated[list[str], Meta(min_length=1)]
VariableName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z][A-Za-z0-9_./-]*$", description="A variable's name, without the `$`.", examples=["wan"]),
]
DefineValue = (
    Annotated[
        str,
        Meta(
            pattern=r"^[^\s;#\\{}\"][^;#\\{}\"\n]*$",
            description="A word or expression on one line, without quotes, braces and semicolons.",
            examples=["wan0"],
        ),
    ]
    | int
)


# --- labs ---------------------------------------------------------------------------------------


VlanNumber = Annotated[int, Meta(ge=1, le=4094)]
AnyAddress = Annotated[str, Meta(description="An IPv4 or IPv6 address.", examples=["10.0.0.1"])]
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
            "permanent neighbour entries. Hosts without addresses of their own are always known.",
            examples=["known"],
        ),
    ] = "resolved"


# --- packets ------------------------------------------------------------------------------------


class Ether(Model, frozen=True, kw_only=True):
    """Ethernet header; what is not given comes from the lab."""

    src: Annotated[Mac | None, Meta(description="Source address.", examples=["02:00:00:00:00:01"])] = None
    dst: Annotated[Mac | None, Meta(description="Destination address.", examples=["ff:ff:ff:ff:ff:ff"])] = None
    type: Annotated[Word | None, Meta(description="EtherType.", examples=[0x88B5])] = None
    vlan: Annotated[VlanId | None, Meta(description="VLAN, in an 802.1Q tag.", examples=[10])] = None


class IPv4(Model, frozen=True, kw_only=True):
    """IPv4 header; what is not given comes from the lab or the protocol above."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["198.51.100.7"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.", examples=["10.0.2.2"])] = None
    ttl: Annotated[Byte, Meta(description="Time to live, in hops.", examples=[1])] = 64
    tos: Annotated[Byte, Meta(description="Type of service: DSCP and ECN bits.", examples=[0xB8])] = 0
    id: Annotated[Word, Meta(description="Identification.", examples=[4711])] = 1
    flags: Annotated[
        str,
        Meta(
            pattern=r"^((DF|MF|evil)(\+(DF|MF|evil))*)?$",
            description="Of `DF`, `MF` and `evil`, joined by `+`.",
            examples=["DF"],
        ),
    ] = ""
    frag: Annotated[int, Meta(ge=0, le=8191, description="Fragment offset, in units of 8 bytes.", examples=[185])] = 0
    proto: Annotated[Byte | None, Meta(description="Protocol number.", examples=[47])] = None
    options: Annotated[
        list[Literal["rr", "lsrr", "ssrr", "ra"]],
        Meta(
            max_length=4,
            description="Options, as nft calls them: `rr` (record route), `lsrr`, `ssrr` (loose, strict source route), "
            "`ra` (router alert).",
            examples=[["rr"]],
        ),
    ] = []
    checksum: Annotated[
        Word | None, Meta(description="Checksum, to give a wrong one; without it, the right one.", examples=[0xBAD])
    ] = None


class Routing(Model, frozen=True, kw_only=True):
    """IPv6 routing header (RFC 8200 section 4.4)."""

    type: Annotated[Byte, Meta(description="Routing type.", examples=[0, 2])] = 0
    addresses: Annotated[
        list[str], Meta(description="Where the packet is still to go, last stop last.", examples=[["2001:db8:2::2"]])
    ] = []


class Fragment(Model, frozen=True, kw_only=True):
    """IPv6 fragment header (RFC 8200 section 4.5)."""

    offset: Annotated[int, Meta(ge=0, le=8191, description="Offset, in units of 8 bytes.", examples=[185])] = 0
    more: Annotated[bool, Meta(description="Whether more fragments follow.", examples=[True])] = False
    id: Annotated[Number32, Meta(description="Identification.", examples=[4711])] = 1


class Extension(Model, frozen=True, kw_only=True):
    """An IPv6 extension header with fields."""

    rt: Annotated[Routing | None, Meta(description="Routing header.", examples=[{"type": 0}])] = None
    frag: Annotated[Fragment | None, Meta(description="Fragment header.", examples=[{"offset": 185}])] = None


class IPv6(Model, frozen=True, kw_only=True):
    """IPv6 header; what is not given comes from the lab or the protocol above."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["2001:db8:113::7"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.", examples=["2001:db8:2::2"])] = None
    hlim: Annotated[
        Byte | None, Meta(description="Hop limit; 64, and 255 for neighbour discovery (RFC 4861).", examples=[1])
    ] = None
    tc: Annotated[Byte, Meta(description="Traffic class: DSCP and ECN bits.", examples=[0xB8])] = 0
    fl: Annotated[int, Meta(ge=0, le=0xFFFFF, description="Flow label.", examples=[0x12345])] = 0
    nh: Annotated[Byte | None, Meta(description="Next header, after those of `headers`.", examples=[59])] = None
    headers: Annotated[
        list[Literal["hbh", "dst", "rt", "frag"] | Extension],
        Meta(
            max_length=8,
            description="Extension headers in order, as nft calls them: `hbh` (hop-by-hop options), `dst` (destination "
            "options), `rt` (routing), `frag` (fragment).",
            examples=[["hbh"], [{"frag": {"offset": 185}}]],
        ),
    ] = []


class TCP(Model, frozen=True, kw_only=True):
    """TCP header."""

    sport: Annotated[Port, Meta(description="Source port.", examples=[1024])] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[443])]
    flags: Annotated[
        str, Meta(pattern="^[FSRPAUECN]*$", description="Flags by first letter, CWR as C.", examples=["S", "SA", "PA"])
    ] = "S"
    seq: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="Sequence number.", examples=[1001])] = 1000
    ack: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="Acknowledgement number.", examples=[2001])] = 0
    window: Annotated[Word, Meta(description="Window, in bytes.", examples=[1024])] = 64240
    mss: Annotated[Word | None, Meta(description="Option: maximum segment size, in bytes.", examples=[1460])] = None
    checksum: Annotated[
        Word | None, Meta(description="Checksum, to give a wrong one; without it, the right one.", examples=[0xBAD])
    ] = None


class UDP(Model, frozen=True, kw_only=True):
    """UDP header."""

    sport: Annotated[Port, Meta(description="Source port.", examples=[1024])] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[53])]
    checksum: Annotated[
        Word | None, Meta(description="Checksum, to give a wrong one; without it, the right one.", examples=[0xBAD])
    ] = None


class SCTP(Model, frozen=True, kw_only=True):
    """SCTP header and its first chunk (RFC 9260)."""

    sport: Annotated[Port, Meta(description="Source port.", examples=[1024])] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[3868])]
    tag: Annotated[Number32, Meta(description="Verification tag.", examples=[7])] = 0
    chunk: Annotated[
        Literal["init", "data", "heartbeat", "abort", "shutdown", "cookie-ack"],
        Meta(description="The chunk; the payload is that of `data`.", examples=["init"]),
    ] = "init"


class GRE(Model, frozen=True, kw_only=True):
    """GRE header (RFC 2784, RFC 2890); the payload is what is in the tunnel."""

    protocol: Annotated[Word, Meta(description="EtherType of what is inside.", examples=[0x6558])] = 0x0800
    key: Annotated[Number32 | None, Meta(description="Key.", examples=[7])] = None


class ICMP(Model, frozen=True, kw_only=True):
    """ICMP header; `{}` is an echo request."""

    type: Annotated[
        str | Byte, Meta(description="Name as nft writes it, or number.", examples=["echo-request", "time-exceeded", 8])
    ] = "echo-request"
    code: Annotated[Byte, Meta(description="Code.", examples=[1])] = 0
    id: Annotated[Word, Meta(description="Identifier of an echo.", examples=[7])] = 1
    seq: Annotated[Word, Meta(description="Sequence number of an echo.", examples=[2])] = 1


class ICMPv6(Model, frozen=True, kw_only=True):
    """ICMPv6 header; `{}` is an echo request."""

    type: Annotated[
        str | Byte,
        Meta(description="Name as nft writes it, or number.", examples=["echo-request", "nd-neighbor-solicit", 128]),
    ] = "echo-request"
    code: Annotated[Byte, Meta(description="Code.", examples=[1])] = 0
    id: Annotated[Word, Meta(description="Identifier of an echo.", examples=[7])] = 1
    seq: Annotated[Word, Meta(description="Sequence number of an echo.", examples=[2])] = 1


class ARP(Model, frozen=True, kw_only=True):
    """ARP message; addresses not given come from the lab."""

    op: Annotated[Literal["request", "reply"], Meta(description="Operation.", examples=["reply"])] = "request"
    src: Annotated[str | None, Meta(description="Sender's protocol address.", examples=["203.0.113.9"])] = None
    dst: Annotated[str | None, Meta(description="Target's protocol address.", examples=["203.0.113.1"])] = None


class Hex(Model, frozen=True, kw_only=True):
    """Bytes in hexadecimal."""

    hex: Annotated[
        str,
        Meta(
            pattern="^\\s*([0-9A-Fa-f]{2}\\s*)*$",
            description="Two digits for each byte, with or without spaces between bytes.",
            examples=["16 03 01", "deadbeef"],
        ),
    ]


class Payload(Model, frozen=True, kw_only=True):
    """Bytes that are no text: in hexadecimal, or those of a file."""

    hex: Annotated[
        Annotated[str, Meta(pattern="^\\s*([0-9A-Fa-f]{2}\\s*)*$")] | None,
        Meta(
            description="Two digits for each byte, with or without spaces between bytes.",
            examples=["16 03 01", "deadbeef"],
        ),
    ] = None
    file: Annotated[
        Name | None,
        Meta(
            description="A file, seen from the scenario file, and within the same project.",
            examples=["captures/client-hello.bin"],
        ),
    ] = None


class Pcap(Model, frozen=True, kw_only=True):
    """Packets that were captured.

    They start at the sender, with the Ethernet addresses of its link; all else is as it was captured.
    """

    file: Annotated[
        Name,
        Meta(
            description="A pcap or pcapng file, seen from the scenario file, and within the same project.",
            examples=["captures/dns.pcapng"],
        ),
    ]
    packets: Annotated[
        str | Annotated[int, Meta(ge=1)] | None,
        Meta(description="Which of them, counted from 1, in this order; without it all.", examples=["1-5, 9", 3]),
    ] = None
    ether: Annotated[
        Literal["lab", "keep"],
        Meta(description="Whether Ethernet addresses are the lab's, or kept.", examples=["keep"]),
    ] = "lab"


class Send(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A packet, or several in a row, and where it starts.

    Layers not named are filled in: addresses from the lab, protocol numbers, lengths and
    checksums from the layers above. What is given is kept. The packet is IPv6 where a layer or
    an address says so, else IPv4.
    """

    from_: Annotated[
        HostName,
        Meta(
            description="The host that sends it. The host under test, and routers, send through their own kernel, from "
            "the output hook on; the others from an interface.",
            examples=["client", "device"],
        ),
    ]
    to: Annotated[
        str | None,
        Meta(
            description="The destination: a host of the lab, by its address that faces the sender, or an address.",
            examples=["server", "203.0.113.1"],
        ),
    ] = None
    ether: Annotated[Ether | None, Meta(description="Ethernet header.", examples=[{"dst": "ff:ff:ff:ff:ff:ff"}])] = None
    arp: Annotated[ARP | None, Meta(description="An ARP message.", examples=[{"op": "request"}])] = None
    ip: Annotated[IPv4 | None, Meta(description="IPv4 header.", examples=[{"src": "198.51.100.7", "ttl": 1}])] = None
    ip6: Annotated[IPv6 | None, Meta(description="IPv6 header; `{}` asks for IPv6.", examples=[{"hlim": 1}])] = None
    tcp: Annotated[TCP | None, Meta(description="TCP header.", examples=[{"dport": 443, "flags": "S"}])] = None
    udp: Annotated[UDP | None, Meta(description="UDP header.", examples=[{"dport": 53}])] = None
    sctp: Annotated[SCTP | None, Meta(description="SCTP header.", examples=[{"dport": 3868}])] = None
    gre: Annotated[GRE | None, Meta(description="GRE header.", examples=[{"key": 7}])] = None
    icmp: Annotated[ICMP | None, Meta(description="ICMP header.", examples=[{"type": "echo-request"}])] = None
    icmpv6: Annotated[ICMPv6 | None, Meta(description="ICMPv6 header.", examples=[{"type": "echo-request"}])] = None
    payload: Annotated[
        str | Payload,
        Meta(
            description="Bytes after the last header: as UTF-8 text, in hexadecimal, or a file's.",
            examples=["GET / HTTP/1.0", {"hex": "16 03 01"}, {"file": "captures/client-hello.bin"}],
        ),
    ] = ""
    packet: Annotated[
        str | None,
        Meta(
            description="Instead of headers: layers as scapy writes them. It is read, never evaluated. Lists of "
            "values, ranges such as `(1, 10)` and subnets stand for a packet each; addresses left out come from the "
            "lab.",
            examples=['IP(dst="10.0.2.2")/TCP(dport=[80, 443], flags="S")'],
        ),
    ] = None
    pcap: Annotated[
        Name | Pcap | None,
        Meta(
            description="Instead of headers: the packets of a capture file.",
            examples=["captures/dns.pcapng", {"file": "captures/dns.pcapng", "packets": "1-5"}],
        ),
    ] = None
    count: Annotated[
        int,
        Meta(ge=1, le=MOST_PACKETS, description="How many times it is sent, each a packet of its own.", examples=[10]),
    ] = 1
    interval: Annotated[
        Annotated[str, Meta(pattern=r"^\d{1,6}(\.\d{1,3})?(us|ms|s)$")] | None,
        Meta(
            description="Time from one packet to the next, at least: a number and `us`, `ms` or `s`. Without it, and "
            "without `rate`, they follow at once.",
            examples=["10ms"],
        ),
    ] = None
    rate: Annotated[
        Annotated[str, Meta(pattern=r"^\d{1,6}/(second|s|minute|min)$")] | None,
        Meta(description="Instead of `interval`: how many in a time, at most.", examples=["100/s", "30/minute"]),
    ] = None

    @property
    def pace(self) -> float:
        """Seconds from one packet to the next, at least."""
        if self.rate is not None:
            number, _, unit = self.rate.partition("/")
            return (1 if unit.startswith("s") else 60) / int(number)
        if self.interval is not None:
            unit = self.interval.lstrip("0123456789.")
            return float(self.interval.removesuffix(unit)) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]
        return 0.0


# --- flows --------------------------------------------------------------------------------------


class Listen(Model, frozen=True, kw_only=True):
    """A program that takes connections or requests, until the scenario ends.

    It is a socket of the host's own kernel, so the host has its addresses and answers for itself, as
    do all hosts that `listen`, `connect` or `exchange` name.
    """

    on: Annotated[HostName, Meta(description="The host that it runs on.", examples=["server"])]
    tcp: Annotated[Port | None, Meta(description="Its TCP port, on all addresses.", examples=[443])] = None
    udp: Annotated[Port | None, Meta(description="Its UDP port, on all addresses.", examples=[53])] = None


class Connect(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A TCP connection by the kernels of both ends: SYN, SYN-ACK, ACK, with NAT and conntrack as in life.

    It stays until the scenario ends, or until it fails.
    """

    from_: Annotated[
        HostName, Meta(description="The host that connects; it may be the one under test.", examples=["client"])
    ]
    to: Annotated[
        str,
        Meta(
            description="The destination: a host of the lab, by its address that faces the sender, or an address.",
            examples=["server", "203.0.113.1"],
        ),
    ]
    tcp: Annotated[Port, Meta(description="The port to connect to.", examples=[443])]
    sport: Annotated[
        Annotated[int, Meta(ge=1, le=65535)], Meta(description="The port to connect from.", examples=[50001])
    ] = 40000
    family: Annotated[
        Literal["ip", "ip6"] | None,
        Meta(description="The IP version, where `to` is a host that has both; without it, `ip`.", examples=["ip6"]),
    ] = None


class Exchange(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A request by one program and the answer of another that listens.

    Over TCP it goes through the connection that a `connect` before it has made to the same place.
    """

    from_: Annotated[
        HostName, Meta(description="The host that asks; it may be the one under test.", examples=["client"])
    ]
    to: Annotated[
        str,
        Meta(
            description="The destination: a host of the lab, by its address that faces the sender, or an address.",
            examples=["server", "203.0.113.1"],
        ),
    ]
    tcp: Annotated[Port | None, Meta(description="The port of the connection.", examples=[443])] = None
    udp: Annotated[Port | None, Meta(description="The port to ask.", examples=[53])] = None
    sport: Annotated[
        Annotated[int, Meta(ge=1, le=65535)], Meta(description="The port to ask from.", examples=[50001])
    ] = 40000
    family: Annotated[
        Literal["ip", "ip6"] | None,
        Meta(description="The IP version, where `to` is a host that has both; without it, `ip`.", examples=["ip6"]),
    ] = None
    request: Annotated[
        str | Hex,
        Meta(
            description="What is asked, as UTF-8 text or in hexadecimal.", examples=["GET / HTTP/1.0", {"hex": "00 01"}]
        ),
    ] = "request"
    answer: Annotated[
        str | Hex, Meta(description="What the program that listens answers.", examples=["200 OK", {"hex": "80 01"}])
    ] = "answer"


class Wait(Model, frozen=True, kw_only=True):
    """A wait for a fact, never for a time. All that is given must become true."""

    elements: Annotated[
        Annotated[dict[str, list[str | int]], Meta(min_length=1)] | None,
        Meta(
            description="Sets and maps, as in `expect`: each has exactly these elements. A set whose elements time out "
            "ends empty.",
            examples=[{"inet filter banned": []}],
        ),
    ] = None
    conntrack: Annotated[
        Literal["none"] | None,
        Meta(description="The device knows no connection any more.", examples=["none"]),
    ] = None
    within: Annotated[
        Annotated[float, Meta(gt=0, le=600)],
        Meta(description="Seconds after which it is in vain, and the scenario an error.", examples=[30]),
    ] = 10


# --- expectations -------------------------------------------------------------------------------


class SeesTCP(Model, frozen=True, kw_only=True):
    """TCP header of a packet that arrived; `{}` asks only that it is TCP."""

    flags: Annotated[
        Annotated[str, Meta(pattern="^[FSRPAUECN]*$")] | None,
        Meta(description="All flags that it has.", examples=["SA", "RA"]),
    ] = None
    seq: Annotated[Number32 | None, Meta(description="Sequence number.", examples=[0])] = None
    ack: Annotated[Number32 | None, Meta(description="Acknowledgement number.", examples=[1001])] = None
    mss: Annotated[Word | None, Meta(description="Option: maximum segment size, in bytes.", examples=[1360])] = None


class SeesUDP(Model, frozen=True, kw_only=True):
    """UDP header of a packet that arrived; its ports are `sport` and `dport`."""


class SeesICMP(Model, frozen=True, kw_only=True):
    """ICMP or ICMPv6 header of a packet that arrived; `{}` asks only for the protocol."""

    type: Annotated[
        str | Byte | None,
        Meta(description="Name as nft writes it, or number.", examples=["echo-reply", "destination-unreachable", 3]),
    ] = None
    code: Annotated[
        str | Byte | None,
        Meta(description="Number; or name, for destination-unreachable.", examples=["port-unreachable", 3]),
    ] = None


class SeesARP(Model, frozen=True, kw_only=True):
    """An ARP message that arrived; its addresses are `src` and `dst`."""

    op: Annotated[Literal["request", "reply"] | None, Meta(description="Operation.", examples=["reply"])] = None


class Sees(Model, frozen=True, kw_only=True):
    """A packet as it arrived; each key given must hold."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["203.0.113.1"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.", examples=["10.0.2.2"])] = None
    sport: Annotated[Port | None, Meta(description="Source port.", examples=[40000])] = None
    dport: Annotated[Port | None, Meta(description="Destination port.", examples=[8080])] = None
    ttl: Annotated[Byte | None, Meta(description="Time to live or hop limit.", examples=[63])] = None
    tos: Annotated[Byte | None, Meta(description="Type of service or traffic class.", examples=[0xB8])] = None
    dscp: Annotated[
        CodePoint | None,
        Meta(description="Differentiated services code point: the upper six bits of `tos`.", examples=[46]),
    ] = None
    vlan: Annotated[
        VlanId | None,
        Meta(description="VLAN of the innermost tag; 0 for a packet without one.", examples=[10]),
    ] = None
    length: Annotated[Word | None, Meta(description="Bytes from the IP header on.", examples=[40])] = None
    tcp: Annotated[SeesTCP | None, Meta(description="TCP header.", examples=[{"flags": "RA"}])] = None
    udp: Annotated[SeesUDP | None, Meta(description="UDP header.", examples=[{}])] = None
    icmp: Annotated[
        SeesICMP | None,
        Meta(description="ICMP header.", examples=[{"type": "destination-unreachable", "code": "port-unreachable"}]),
    ] = None
    icmpv6: Annotated[SeesICMP | None, Meta(description="ICMPv6 header.", examples=[{"type": "echo-reply"}])] = None
    arp: Annotated[SeesARP | None, Meta(description="ARP message.", examples=[{"op": "reply"}])] = None


FlowResult = Literal["connected", "answered", "refused", "unreachable", "half-open", "timeout"]
ConntrackState = Literal[
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
]
"""``enum tcp_conntrack`` in include/uapi/linux/netfilter/nf_conntrack_tcp.h, by number."""
ConntrackStatus = Annotated[
    str,
    Meta(
        pattern="^!?(EXPECTED|SEEN_REPLY|ASSURED|CONFIRMED|SRC_NAT|DST_NAT|SEQ_ADJUST|FIXED_TIMEOUT|TEMPLATE"
        "|UNTRACKED|HELPER|OFFLOAD|HW_OFFLOAD)$",
        description="A flag of `enum ip_conntrack_status` without `IPS_`.",
        examples=["ASSURED", "!ASSURED"],
    ),
]


class Delivered(Model, frozen=True, kw_only=True):
    """Where the packet must have arrived, and as what."""

    to: Annotated[str, Meta(description="A host, or `nowhere`.", examples=["server", "nowhere"])]
    sees: Annotated[
        Sees | None, Meta(description="How it must look there, after NAT.", examples=[{"src": "203.0.113.1"}])
    ] = None


class Dropped(Model, frozen=True, kw_only=True):
    """How the kernel gave the packet up; each key given must hold."""

    reason: Annotated[
        str | None,
        Meta(
            description="The kernel's reason without `SKB_DROP_REASON_`, or alternatives `a | b`: kernels differ.",
            examples=["NETFILTER_DROP", "IP_RPFILTER", "IP_INHDR | NOT_SPECIFIED"],
        ),
    ] = None
    function: Annotated[
        str | None,
        Meta(
            description="The function that gave it up, or alternatives.",
            examples=["ip_rcv_finish_core", "ip_forward | ip6_forward"],
        ),
    ] = None
    host: Annotated[
        HostName | None, Meta(description="On this host; without it, on the device under test.", examples=["edge"])
    ] = None


class HopDetail(Model, frozen=True, kw_only=True):
    """What a function of the path must have met; each key given must hold."""

    host: Annotated[
        HostName | None, Meta(description="On this host; without it, on the device under test.", examples=["server"])
    ] = None
    device: Annotated[str | None, Meta(description="With `skb->dev` being this interface.", examples=["wan0"])] = None
    chain: Annotated[
        str | None, Meta(description="For `nft_do_chain`: family, table and chain.", examples=["inet filter forward"])
    ] = None
    hook: Annotated[str | None, Meta(description="For `nft_do_chain`: the hook.", examples=["forward"])] = None
    verdict: Annotated[
        Literal["accept", "drop", "queue", "stolen"] | None,
        Meta(description="For `nft_do_chain`: its answer; a reject is a drop to it.", examples=["accept"]),
    ] = None
    reason: Annotated[
        str | None, Meta(description="For functions that drop: the kernel's reason.", examples=["NETFILTER_DROP"])
    ] = None
    optional: Annotated[
        bool,
        Meta(
            description="It may be left out: some kernels have it, others do not. Where it is met before the next "
            "entry that is not optional, it counts.",
            examples=[True],
        ),
    ] = False


PathEntry = Annotated[
    str | Annotated[dict[str, HopDetail], Meta(min_length=1, max_length=1)],
    Meta(
        description="A function, or alternatives `a | b`; as a mapping, with what it must have met.",
        examples=["ip_rcv", "dev_queue_xmit | __dev_queue_xmit", {"nft_do_chain": {"chain": "inet filter forward"}}],
    ),
]


class FlowSeen(Model, frozen=True, kw_only=True):
    """How a `connect` or `exchange` went, and what the program at its other end saw of it."""

    result: Annotated[FlowResult | None, Meta(description="How it went; see `flow`.", examples=["connected"])] = None
    by: Annotated[HostName | None, Meta(description="The host whose program took it.", examples=["server"])] = None
    src: Annotated[
        str | None, Meta(description="The address that the program was called from, after NAT.", examples=["10.0.2.1"])
    ] = None
    sport: Annotated[Port | None, Meta(description="The port that it was called from.", examples=[40000])] = None
    dst: Annotated[
        str | None, Meta(description="The address that it was called at, after NAT.", examples=["10.0.2.2"])
    ] = None
    dport: Annotated[Port | None, Meta(description="The port that it was called at.", examples=[8443])] = None


class Ends(Model, frozen=True, kw_only=True):
    """One direction of a connection, as conntrack knows it; each key given must hold."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["203.0.113.5"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.", examples=["203.0.113.1"])] = None
    sport: Annotated[Port | None, Meta(description="Source port.", examples=[40000])] = None
    dport: Annotated[Port | None, Meta(description="Destination port.", examples=[443])] = None


class Tracked(Model, frozen=True, kw_only=True):
    """The packet's entry in the device's connection tracking, afterwards; each key given must hold."""

    state: Annotated[
        ConntrackState | None,
        Meta(description="Of a TCP connection, as conntrack(8) writes it.", examples=["ESTABLISHED"]),
    ] = None
    status: Annotated[
        Annotated[list[ConntrackStatus], Meta(min_length=1)] | None,
        Meta(
            description="Flags that it has; a `!` before one says that it has not.",
            examples=[["ASSURED"], ["SEEN_REPLY", "!ASSURED"]],
        ),
    ] = None
    mark: Annotated[Number32 | None, Meta(description="Its mark, `ct mark`.", examples=[16])] = None
    zone: Annotated[Word | None, Meta(description="Its zone.", examples=[1])] = None
    helper: Annotated[str | None, Meta(description="Its helper.", examples=["ftp"])] = None
    original: Annotated[
        Ends | None, Meta(description="As the first packet came.", examples=[{"dst": "203.0.113.1", "dport": 443}])
    ] = None
    reply: Annotated[
        Ends | None,
        Meta(description="As answers come, which is where NAT shows.", examples=[{"src": "10.0.2.2", "sport": 8443}]),
    ] = None


class Exactly(Model, frozen=True, kw_only=True):
    """A path without gaps: of the functions that it names, no call but these."""

    exactly: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)],
        Meta(
            description="Functions that the packet meets, in this order. On the hosts that are named, and on the "
            "device where none is, it meets none of these functions at another place or more often.",
            examples=[["ip_rcv", {"nft_do_chain": {"chain": "inet edge forward", "verdict": "accept"}}, "ip_output"]],
        ),
    ]
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers whose other functions are forbidden as well: what it meets of them is all listed.",
            examples=[["NAT"]],
        ),
    ] = None


class Expect(Model, frozen=True, kw_only=True, rename={"with_": "with"}):
    """What must be true of the packet, and of each packet where several are sent. At least one key must be given.

    After `connect` and `exchange`, which are of several packets, it is about the one that decided: the
    first that the ruleset dropped or rejected, on its way or on the way back; when it let all pass, the
    first.
    """

    packets: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_PACKETS)] | None,
        Meta(
            description="In a list of expectations: how many packets this entry is about, from where the one before it "
            "ended. The last one may leave it out: it is about the rest.",
            examples=[5],
        ),
    ] = None
    verdict: Annotated[
        Literal["accept", "drop", "reject", "queue", "stolen"] | None,
        Meta(description="What the ruleset decides.", examples=["accept"]),
    ] = None
    with_: Annotated[
        str | None,
        Meta(
            description="For `verdict: reject`: with what, in nft's words.",
            examples=["tcp reset", "icmp port-unreachable", "icmpv6 admin-prohibited"],
        ),
    ] = None
    rule: Annotated[
        str | int | None,
        Meta(
            description="The deciding rule: its text, comment, handle or file:line; or `policy`, or "
            "`inet filter forward policy`.",
            examples=["tcp dport 443 accept", "edge.nft:18", 9, "policy"],
        ),
    ] = None
    rules: Annotated[
        Annotated[list[str | int], Meta(min_length=1)] | None,
        Meta(
            description="Rules and policies that the packet meets, in this order, named as in `rule`; others may stand "
            "between. Met is a rule that said something: a verdict, a jump, or to go on after all its tests held.",
            examples=[["iifname wan0 jump from_wan", "tcp dport 443 accept"]],
        ),
    ] = None
    dropped: Annotated[
        str | Dropped | None,
        Meta(
            description="The kernel's reason to give the packet up, whoever decided it.",
            examples=["NETFILTER_DROP", {"reason": "IP_RPFILTER"}],
        ),
    ] = None
    delivered: Annotated[
        str | Delivered | None,
        Meta(description="The host where the packet arrives, or `nowhere`.", examples=["server", "nowhere"]),
    ] = None
    reply: Annotated[
        Literal["none"] | Sees | None,
        Meta(
            description="What the sender gets in answer, by the device or another host that answers, or `none`.",
            examples=[{"tcp": {"flags": "RA"}}, {"icmp": {"type": "echo-reply"}}, "none"],
        ),
    ] = None
    flow: Annotated[
        FlowResult | FlowSeen | None,
        Meta(
            description="How `connect` or `exchange` went. `connected`: both ends have the connection; `answered`: the "
            "answer came; `refused`: a TCP reset came; `unreachable`: an ICMP error came that a program sees; "
            "`half-open`: only the caller has the connection; `timeout`: nothing came that a program sees, and the "
            "kernel has no packet of it left.",
            examples=["connected", {"result": "answered", "by": "server", "src": "10.0.2.1"}],
        ),
    ] = None
    conntrack: Annotated[
        Literal["none"] | Tracked | None,
        Meta(
            description="The connection that the device's connection tracking has for the packet, or `none`.",
            examples=[{"state": "ESTABLISHED", "status": ["ASSURED"]}, "none"],
        ),
    ] = None
    mark: Annotated[
        Number32 | None,
        Meta(
            description="The packet's mark (`meta mark`) when the last chain or rule of the device spoke of it.",
            examples=[16],
        ),
    ] = None
    log: Annotated[
        str | None,
        Meta(
            description="The prefix of a `log` statement that the device ran for the packet. Seen is the call in the "
            "kernel and the rule; what a kernel writes for other namespaces than its first nobody can read.",
            examples=["refused: "],
        ),
    ] = None
    route: Annotated[
        InterfaceName | None,
        Meta(description="The interface by which the device sends it on, or `lo` to itself.", examples=["lan0"]),
    ] = None
    counters: Annotated[
        Annotated[dict[str, Count], Meta(min_length=1)] | None,
        Meta(
            description="Named counters by family, table and name, and how many packets each counts afterwards, since "
            "the ruleset was loaded.",
            examples=[{"inet filter refused": 1}],
        ),
    ] = None
    elements: Annotated[
        Annotated[dict[str, list[str | int]], Meta(min_length=1)] | None,
        Meta(
            description="Sets and maps by family, table and name, and all elements (of a map: keys) that each has "
            "afterwards, in any order, as nft writes them.",
            examples=[{"inet filter blocked": ["203.0.113.5", "198.51.100.0/24"]}],
        ),
    ] = None
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers that the packet passes on the device, in this order; others may stand between.",
            examples=[["Device", "IPv4", "Netfilter", "Routing", "Xmit"]],
        ),
    ] = None
    path: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | Exactly | None,
        Meta(
            description="Kernel functions that the packet meets, in this order; others may stand between, unless it "
            "says `exactly`.",
            examples=[["ip_rcv", {"nft_do_chain": {"chain": "inet filter forward"}}, "ip_forward"]],
        ),
    ] = None
    never: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | None,
        Meta(
            description="Kernel functions that the packet must not meet.",
            examples=[["kfree_skb_reason | sk_skb_reason_drop"]],
        ),
    ] = None


Expects = Annotated[
    list[Expect],
    Meta(
        min_length=1,
        description="One entry after the other, each about as many packets as it says.",
        examples=[[{"packets": 5, "verdict": "accept"}, {"verdict": "drop"}]],
    ),
]


class Action(Model, frozen=True, kw_only=True):
    """One thing done, and what must become of it: a packet sent, a flow of real sockets, or what prepares them."""

    send: Annotated[
        Send | UnsetType, Meta(description="The packet.", examples=[{"from": "client", "to": "server", "icmp": {}}])
    ] = UNSET
    nft: Annotated[
        str | UnsetType,
        Meta(
            description="Instead of a packet: an nft command that changes elements of a set or map.",
            examples=["add element inet edge blocked { 203.0.113.5 }"],
        ),
    ] = UNSET
    listen: Annotated[
        Listen | UnsetType,
        Meta(
            description="Instead of a packet: a program that listens from now on.",
            examples=[{"on": "server", "tcp": 443}],
        ),
    ] = UNSET
    connect: Annotated[
        Connect | UnsetType,
        Meta(
            description="Instead of a packet: a TCP connection between the kernels of two hosts.",
            examples=[{"from": "client", "to": "server", "tcp": 443}],
        ),
    ] = UNSET
    exchange: Annotated[
        Exchange | UnsetType,
        Meta(
            description="Instead of a packet: a request and its answer, by UDP or through a TCP connection.",
            examples=[{"from": "client", "to": "server", "udp": 53}],
        ),
    ] = UNSET
    wait: Annotated[
        Wait | UnsetType,
        Meta(
            description="Instead of a packet: a wait for a fact.",
            examples=[{"elements": {"inet filter banned": []}, "within": 30}],
        ),
    ] = UNSET
    expect: Annotated[
        Expect | Expects | UnsetType,
        Meta(
            description="What must become of it. Without it the packet only sets the stage, as the first of a flow.",
            examples=[{"verdict": "accept"}],
        ),
    ] = UNSET

    @property
    def entries(self) -> tuple[tuple[Keys, Expect], ...]:
        """All that is expected, however it is written, and where each stands below the action."""
        if isinstance(self.expect, list):
            return tuple((("expect", index), expect) for index, expect in enumerate(self.expect))
        return () if self.expect is UNSET else ((("expect",), self.expect),)

    def expected_of(self, count: int) -> tuple[tuple[Keys, Expect], ...]:
        """What is expected of each of ``count`` packets, and where that stands below the action."""
        each: list[tuple[Keys, Expect]] = []
        for keys, expect in self.entries or ((("expect",), Expect()),):
            each += [(keys, expect)] * (count - len(each) if expect.packets is None else expect.packets)
        return tuple(each)


class Scenario(Model, frozen=True, kw_only=True):
    """One test: a packet and what must become of it, or several steps in a row."""

    name: Annotated[
        Name,
        Meta(
            description="A sentence that no other scenario of the file has; it becomes the test's id.",
            examples=["HTTPS from the client reaches the web server"],
        ),
    ]
    send: Annotated[
        Send | UnsetType, Meta(description="The packet.", examples=[{"from": "client", "to": "server", "icmp": {}}])
    ] = UNSET
    expect: Annotated[
        Expect | Expects | UnsetType,
        Meta(description="What must become of the packet.", examples=[{"verdict": "drop", "rule": "policy"}]),
    ] = UNSET
    steps: Annotated[
        Annotated[list[Action], Meta(min_length=1)] | UnsetType,
        Meta(
            description="Several packets and flows in order, instead of `send` and `expect`.",
            examples=[
                [
                    {"send": {"from": "client", "to": "server", "tcp": {"dport": 443}}},
                    {
                        "send": {
                            "from": "server",
                            "to": "client",
                            "tcp": {"sport": 443, "dport": 40000, "flags": "SA"},
                        },
                        "expect": {"verdict": "accept"},
                    },
                ]
            ],
        ),
    ] = UNSET
    each: Annotated[
        Annotated[list[Annotated[dict[str, Any], Meta(min_length=1)]], Meta(min_length=1)] | UnsetType,
        Meta(
            description="Makes a scenario of each entry, whose values take the place of `$name` in it.",
            examples=[[{"port": 80, "verdict": "accept"}, {"port": 23, "verdict": "drop"}]],
        ),
    ] = UNSET
    matrix: Annotated[
        Annotated[dict[str, Annotated[list[Any], Meta(min_length=1)]], Meta(min_length=1)] | UnsetType,
        Meta(
            description="As `each`, for every combination of the values.",
            examples=[{"port": [80, 443], "host": ["client", "server"]}],
        ),
    ] = UNSET
    lab: Annotated[
        str | LabSpec | UnsetType, Meta(description="A lab for this scenario alone.", examples=["bridge"])
    ] = UNSET
    interfaces: Annotated[
        dict[InterfaceName, InterfaceName] | UnsetType,
        Meta(
            description="New names for interfaces of the device under test, for this scenario alone. With a `lab` of "
            "its own a scenario does not use those of the file.",
            examples=[{"eth0": "ens3"}],
        ),
    ] = UNSET
    ruleset: Annotated[
        RulesetFiles | UnsetType,
        Meta(
            description="A ruleset for this scenario alone; with `matrix`, the same scenario for several.",
            examples=["rulesets/edge-next.nft"],
        ),
    ] = UNSET
    marks: Annotated[
        list[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="A name.", examples=["slow"])]],
        Meta(description="pytest marks, for `-m`.", examples=[["slow"]]),
    ] = []
    may_miss: Annotated[
        list[
            Annotated[
                str,
                Meta(
                    pattern=r"^\S(.{0,198}\S)?$",
                    description="A part of the reason of the skip, upper or lower case.",
                    examples=["the kernel has no secmark"],
                ),
            ]
        ],
        Meta(
            description="What the scenario needs and may miss, each as a part of the reason of the skip: skipped for "
            "that, it is no scenario that a run in CI has left untested.",
            examples=[["the kernel has no secmark"]],
        ),
    ] = []


class ScenarioFile(Model, frozen=True, kw_only=True):
    """A scenario file: a lab, a ruleset, and what the ruleset must do with which packets."""

    lab: Annotated[
        str | LabSpec,
        Meta(
            description="A built-in lab by its name; a lab of your own, written here; or one in a file: "
            "`labs/NAME.yaml`, seen from the scenario file. The folder must be called `labs`.",
            examples=["router", "labs/office.yaml"],
        ),
    ] = "router"
    interfaces: Annotated[
        dict[InterfaceName, InterfaceName],
        Meta(
            description="New names for interfaces of the device under test, as the ruleset has them.",
            examples=[{"wan0": "enp1s0", "lan0": "enp2s0"}],
        ),
    ] = {}
    ruleset: Annotated[
        RulesetFiles,
        Meta(
            description="nft file to load in the device under test, as `nft -f` would; or a file of iptables-save or "
            "ip6tables-save, a folder of `.nft` files, or a list of these, loaded in order; seen from the scenario "
            "file, and within the same project.",
            examples=["rulesets/edge.nft", ["rules.v4", "rules.v6"]],
        ),
    ]
    rulesets: Annotated[
        dict[HostName, RulesetFiles],
        Meta(
            description="What other hosts of the lab load. Their rules are named with the host: `edge: tcp dport 22 "
            "drop`.",
            examples=[{"edge": "rulesets/edge.nft"}],
        ),
    ] = {}
    defines: Annotated[
        dict[VariableName, DefineValue | Annotated[list[DefineValue], Meta(min_length=1)]],
        Meta(
            description="Variables for the rulesets, as `nft -D` sets them; a list becomes a set.",
            examples=[{"wan": "wan0", "open_ports": [80, 443]}],
        ),
    ] = {}
    scenarios: Annotated[
        list[Scenario],
        Meta(
            min_length=1,
            description="The scenarios; each is a test.",
            examples=[
                [
                    {
                        "name": "Nobody reaches SSH from outside",
                        "send": {"from": "client", "to": "device", "tcp": {"dport": 22}},
                        "expect": {"verdict": "drop", "rule": "policy", "delivered": "nowhere"},
                    }
                ]
            ],
        ),
    ]
