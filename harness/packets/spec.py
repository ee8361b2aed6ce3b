"""Packets as a scenario file describes them: those to send, and header fields to compare.

Above 400 lines, since each field has its description and example here, from which schema and reference are made.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from harness.model.fields import (
    MOST_PACKETS,
    Byte,
    CodePoint,
    HostName,
    Mac,
    Model,
    Name,
    Number32,
    Port,
    PortChoice,
    VlanId,
    Word,
)


class Ether(Model, frozen=True, kw_only=True):
    """Ethernet header; what is not given comes from the lab."""

    src: Annotated[Mac | None, Meta(description="Source address.", examples=["02:00:00:00:00:01"])] = None
    dst: Annotated[Mac | None, Meta(description="Destination address.", examples=["ff:ff:ff:ff:ff:ff"])] = None
    type: Annotated[Word | None, Meta(description="EtherType.", examples=[0x88B5])] = None
    vlan: Annotated[VlanId | None, Meta(description="VLAN identifier, in an 802.1Q tag.", examples=[10])] = None


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
            description="IP options by their names in nft: `rr` (record route), `lsrr`, `ssrr` (loose, strict source "
            "route), `ra` (router alert).",
            examples=[["rr"]],
        ),
    ] = []
    checksum: Annotated[
        Word | None, Meta(description="Checksum; computed unless given, such as to make it wrong.", examples=[0xBAD])
    ] = None


class Routing(Model, frozen=True, kw_only=True):
    """IPv6 routing header (RFC 8200 section 4.4)."""

    type: Annotated[Byte, Meta(description="Routing type.", examples=[0, 2])] = 0
    addresses: Annotated[
        list[str],
        Meta(description="Remaining addresses to visit, the final destination last.", examples=[["2001:db8:2::2"]]),
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
            description="Extension headers in order, by their names in nft: `hbh` (hop-by-hop options), `dst` "
            "(destination options), `rt` (routing), `frag` (fragment).",
            examples=[["hbh"], [{"frag": {"offset": 185}}]],
        ),
    ] = []


class TCP(Model, frozen=True, kw_only=True):
    """TCP header."""

    sport: Annotated[Port, Meta(description="Source port.", examples=[1024])] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[443])]
    flags: Annotated[
        str,
        Meta(
            pattern="^[FSRPAUECN]*$", description="Flags by their first letter; C is CWR.", examples=["S", "SA", "PA"]
        ),
    ] = "S"
    seq: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="Sequence number.", examples=[1001])] = 1000
    ack: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="Acknowledgement number.", examples=[2001])] = 0
    window: Annotated[Word, Meta(description="Window, in bytes.", examples=[1024])] = 64240
    mss: Annotated[Word | None, Meta(description="Option: maximum segment size, in bytes.", examples=[1460])] = None
    checksum: Annotated[
        Word | None, Meta(description="Checksum; computed unless given, such as to make it wrong.", examples=[0xBAD])
    ] = None


class UDP(Model, frozen=True, kw_only=True):
    """UDP header."""

    sport: Annotated[Port, Meta(description="Source port.", examples=[1024])] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[53])]
    checksum: Annotated[
        Word | None, Meta(description="Checksum; computed unless given, such as to make it wrong.", examples=[0xBAD])
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
    """GRE header (RFC 2784, RFC 2890); the payload is the tunnelled packet."""

    protocol: Annotated[Word, Meta(description="EtherType of the payload.", examples=[0x6558])] = 0x0800
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


HEX: Final = "^\\s*([0-9A-Fa-f]{2}\\s*)*$"
"""A pattern for bytes in hexadecimal: two digits each, with or without spaces between them."""


class Payload(Model, frozen=True, kw_only=True):
    """Binary bytes: in hexadecimal, or from a file."""

    hex: Annotated[
        Annotated[str, Meta(pattern=HEX)] | None,
        Meta(
            description="Two digits for each byte, with or without spaces between bytes.",
            examples=["16 03 01", "deadbeef"],
        ),
    ] = None
    file: Annotated[
        Name | None,
        Meta(
            description="Path of a file, relative to the scenario file and within its project.",
            examples=["captures/client-hello.bin"],
        ),
    ] = None


class Pcap(Model, frozen=True, kw_only=True):
    """Packets that were captured.

    They start at the sender, with the Ethernet addresses of its link; everything else is as captured.
    """

    file: Annotated[
        Name,
        Meta(
            description="Path of a pcap or pcapng file, relative to the scenario file and within its project.",
            examples=["captures/dns.pcapng"],
        ),
    ]
    packets: Annotated[
        str | Annotated[int, Meta(ge=1)] | None,
        Meta(description="Which packets, counted from 1, in this order; all unless given.", examples=["1-5, 9", 3]),
    ] = None
    ether: Annotated[
        Literal["lab", "keep"],
        Meta(description="Whether Ethernet addresses are replaced by the lab's, or kept.", examples=["keep"]),
    ] = "lab"


Form = Literal["headers", "packet", "pcap"]
"""How packets are written: header by header, as an expression of layers, or as a capture file."""


class Send(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A packet, or several in a row, and where it starts.

    Layers not named are filled in: addresses from the lab, protocol numbers, lengths and
    checksums from the layers above. What is given is kept. The packet is IPv6 where a layer or
    an address says so, else IPv4.
    """

    from_: Annotated[
        HostName,
        Meta(
            description="The host that sends it. The device under test, and routers, send through their own IP stack, "
            "from the output hook on; the others inject the frame at an interface.",
            examples=["client", "device"],
        ),
    ]
    to: Annotated[
        str | None,
        Meta(
            description="The destination: an address, or a host of the lab, which stands for its address that faces "
            "the sender.",
            examples=["server", "203.0.113.1"],
        ),
    ] = None
    ether: Annotated[Ether | None, Meta(description="Ethernet header.", examples=[{"dst": "ff:ff:ff:ff:ff:ff"}])] = None
    arp: Annotated[ARP | None, Meta(description="An ARP message.", examples=[{"op": "request"}])] = None
    ip: Annotated[IPv4 | None, Meta(description="IPv4 header.", examples=[{"src": "198.51.100.7", "ttl": 1}])] = None
    ip6: Annotated[
        IPv6 | None, Meta(description="IPv6 header; `{}` makes the packet IPv6.", examples=[{"hlim": 1}])
    ] = None
    tcp: Annotated[TCP | None, Meta(description="TCP header.", examples=[{"dport": 443, "flags": "S"}])] = None
    udp: Annotated[UDP | None, Meta(description="UDP header.", examples=[{"dport": 53}])] = None
    sctp: Annotated[SCTP | None, Meta(description="SCTP header.", examples=[{"dport": 3868}])] = None
    gre: Annotated[GRE | None, Meta(description="GRE header.", examples=[{"key": 7}])] = None
    icmp: Annotated[ICMP | None, Meta(description="ICMP header.", examples=[{"type": "echo-request"}])] = None
    icmpv6: Annotated[ICMPv6 | None, Meta(description="ICMPv6 header.", examples=[{"type": "echo-request"}])] = None
    payload: Annotated[
        str | Payload,
        Meta(
            description="Bytes after the last header: as UTF-8 text, in hexadecimal, or from a file.",
            examples=["GET / HTTP/1.0", {"hex": "16 03 01"}, {"file": "captures/client-hello.bin"}],
        ),
    ] = ""
    packet: Annotated[
        str | None,
        Meta(
            description="Instead of headers: layers in scapy's notation. The expression is parsed, never evaluated. "
            "Lists of values, ranges such as `(1, 10)` and subnets expand to one packet per value; addresses left out "
            "come from the lab.",
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
        Meta(
            ge=1,
            le=MOST_PACKETS,
            description="How many times it is sent; each is observed as a packet of its own.",
            examples=[10],
        ),
    ] = 1
    interval: Annotated[
        Annotated[str, Meta(pattern=r"^\d{1,6}(\.\d{1,3})?(us|ms|s)$")] | None,
        Meta(
            description="Minimum time between packets: a number and `us`, `ms` or `s`. Without it, and without "
            "`rate`, packets are sent back to back.",
            examples=["10ms"],
        ),
    ] = None
    rate: Annotated[
        Annotated[str, Meta(pattern=r"^\d{1,6}/(second|s|minute|min)$")] | None,
        Meta(description="Instead of `interval`: the maximum rate.", examples=["100/s", "30/minute"]),
    ] = None

    @property
    def form(self) -> Form:
        """How it is written; of a well-formed one the others are empty."""
        if self.pcap is not None:
            return "pcap"
        return "headers" if self.packet is None else "packet"

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

    src: Annotated[
        str | None, Meta(description="Source address, or alternatives `a | b`.", examples=["203.0.113.1"])
    ] = None
    dst: Annotated[
        str | None,
        Meta(
            description="Destination address, or alternatives `a | b`.",
            examples=["10.0.2.2", "10.0.2.2 | 10.0.2.3"],
        ),
    ] = None
    sport: Annotated[PortChoice | None, Meta(description="Source port, or alternatives.", examples=[40000])] = None
    dport: Annotated[
        PortChoice | None, Meta(description="Destination port, or alternatives.", examples=[8080, "8080 | 8081"])
    ] = None
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
