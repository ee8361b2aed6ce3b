"""What a scenario file says, as frozen values.

These classes are the language: the loader validates a file against them, the JSON Schema and the
language reference are generated from them. A field name is the YAML key unless ``rename`` says
otherwise; a key that is not here is refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.observation import Verdict


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the language: immutable and strict."""


Name = Annotated[str, Meta(min_length=1, max_length=200)]
HostName = Annotated[
    str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$", description="A host of the lab.", examples=["client"])
]
InterfaceName = Annotated[str, Meta(pattern=r"^[^\s/:]{1,15}$", description="An interface, as the kernel names it.")]
Byte = Annotated[int, Meta(ge=0, le=255)]
Word = Annotated[int, Meta(ge=0, le=65535)]
Port = Word


# --- labs ---------------------------------------------------------------------------------------


class HostSpec(Model, frozen=True, kw_only=True):
    """One host of a lab: a network namespace of its own."""

    interfaces: Annotated[
        dict[InterfaceName, list[str]],
        Meta(
            description="Interfaces of the host and their addresses with prefix length.",
            examples=[{"wan0": ["203.0.113.1/24", "2001:db8:113::1/64"]}],
        ),
    ]
    gateway: Annotated[
        HostName | None, Meta(description="The neighbouring host that forwards for this one.", examples=["device"])
    ] = None
    forwarding: Annotated[bool, Meta(description="Whether the host forwards IPv4 and IPv6 between interfaces.")] = False
    sysctls: Annotated[
        dict[str, str | int],
        Meta(description="Settings below /proc/sys/net of this host.", examples=[{"net.ipv4.conf.all.rp_filter": 1}]),
    ] = {}


class LabSpec(Model, frozen=True, kw_only=True):
    """A network: hosts, and links between their interfaces."""

    hosts: Annotated[dict[HostName, HostSpec], Meta(min_length=1, description="The hosts by name.")]
    links: Annotated[
        list[Annotated[list[str], Meta(min_length=2, max_length=2)]],
        Meta(
            description="Pairs of `host:interface` joined by a wire.",
            examples=[[["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]]],
        ),
    ]
    device: Annotated[HostName, Meta(description="The host under test: it loads the ruleset.")] = "device"


# --- packets ------------------------------------------------------------------------------------


class Ether(Model, frozen=True, kw_only=True):
    """Ethernet header; what is not given comes from the lab."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["02:00:00:00:00:01"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.")] = None
    type: Annotated[Word | None, Meta(description="EtherType.", examples=[0x0800])] = None


class IPv4(Model, frozen=True, kw_only=True):
    """IPv4 header; what is not given comes from the lab or the protocol above."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["198.51.100.7"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.")] = None
    ttl: Annotated[Byte, Meta(description="Time to live, in hops.")] = 64
    tos: Annotated[Byte, Meta(description="Type of service: DSCP and ECN bits.")] = 0
    id: Annotated[Word, Meta(description="Identification.")] = 1
    flags: Annotated[str, Meta(description="Of `DF`, `MF`, `evil`, joined by +.", examples=["DF"])] = ""
    frag: Annotated[int, Meta(ge=0, le=8191, description="Fragment offset, in units of 8 bytes.")] = 0
    proto: Annotated[Byte | None, Meta(description="Protocol number.")] = None


class IPv6(Model, frozen=True, kw_only=True):
    """IPv6 header; what is not given comes from the lab or the protocol above."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["2001:db8:113::7"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.")] = None
    hlim: Annotated[Byte, Meta(description="Hop limit.")] = 64
    tc: Annotated[Byte, Meta(description="Traffic class: DSCP and ECN bits.")] = 0
    fl: Annotated[int, Meta(ge=0, le=0xFFFFF, description="Flow label.")] = 0
    nh: Annotated[Byte | None, Meta(description="Next header.")] = None


class TCP(Model, frozen=True, kw_only=True):
    """TCP header."""

    sport: Annotated[Port, Meta(description="Source port.")] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[443])]
    flags: Annotated[
        str, Meta(pattern="^[FSRPAUECN]*$", description="Flags by first letter.", examples=["S", "SA", "PA"])
    ] = "S"
    seq: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="Sequence number.")] = 1000
    ack: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="Acknowledgement number.")] = 0
    window: Annotated[Word, Meta(description="Window, in bytes.")] = 64240


class UDP(Model, frozen=True, kw_only=True):
    """UDP header."""

    sport: Annotated[Port, Meta(description="Source port.")] = 40000
    dport: Annotated[Port, Meta(description="Destination port.", examples=[53])]


class ICMP(Model, frozen=True, kw_only=True):
    """ICMP header."""

    type: Annotated[str | Byte, Meta(description="Name as nft writes it, or number.", examples=["echo-request"])] = (
        "echo-request"
    )
    code: Annotated[Byte, Meta(description="Code.")] = 0
    id: Annotated[Word, Meta(description="Identifier of an echo.")] = 1
    seq: Annotated[Word, Meta(description="Sequence number of an echo.")] = 1


class ICMPv6(ICMP, frozen=True, kw_only=True):
    """ICMPv6 header."""


class ARP(Model, frozen=True, kw_only=True):
    """ARP message; addresses not given come from the lab."""

    op: Annotated[Literal["request", "reply"], Meta(description="Operation.")] = "request"
    src: Annotated[str | None, Meta(description="Sender's protocol address.")] = None
    dst: Annotated[str | None, Meta(description="Target's protocol address.")] = None


class Send(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A packet, and where it starts.

    Layers not named are filled in: addresses from the lab, protocol numbers, lengths and
    checksums from the layers above. What is given is kept.
    """

    from_: Annotated[HostName, Meta(description="The host whose interface sends it.", examples=["client"])]
    to: Annotated[
        str | None,
        Meta(description="A host of the lab, or an address: the destination.", examples=["server", "203.0.113.1"]),
    ] = None
    ether: Ether | None = None
    arp: ARP | None = None
    ip: IPv4 | None = None
    ip6: IPv6 | None = None
    tcp: TCP | None = None
    udp: UDP | None = None
    icmp: ICMP | None = None
    icmpv6: ICMPv6 | None = None
    payload: Annotated[str, Meta(description="Bytes after the last header, as UTF-8 text.")] = ""


# --- expectations -------------------------------------------------------------------------------


class Sees(Model, frozen=True, kw_only=True):
    """The packet as it arrived; each key given must hold."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["203.0.113.1"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.")] = None
    sport: Annotated[Port | None, Meta(description="Source port.")] = None
    dport: Annotated[Port | None, Meta(description="Destination port.")] = None
    ttl: Annotated[Byte | None, Meta(description="Time to live or hop limit.")] = None
    tos: Annotated[Byte | None, Meta(description="Type of service or traffic class.")] = None


class Delivered(Model, frozen=True, kw_only=True):
    """Where the packet must have arrived, and as what."""

    to: Annotated[str, Meta(description="A host, or `nowhere`.", examples=["server", "nowhere"])]
    sees: Annotated[Sees | None, Meta(description="How it must look there, after NAT.")] = None


class HopDetail(Model, frozen=True, kw_only=True):
    """What a function of the path must have met; each key given must hold."""

    host: Annotated[HostName | None, Meta(description="On this host; without it, on the device under test.")] = None
    device: Annotated[str | None, Meta(description="With `skb->dev` being this interface.", examples=["wan0"])] = None
    chain: Annotated[
        str | None, Meta(description="For `nft_do_chain`: family, table and chain.", examples=["inet filter forward"])
    ] = None
    hook: Annotated[str | None, Meta(description="For `nft_do_chain`: the hook.", examples=["forward"])] = None
    verdict: Annotated[Verdict | None, Meta(description="For `nft_do_chain`: its answer.")] = None
    reason: Annotated[
        str | None, Meta(description="For functions that drop: the kernel's reason.", examples=["NETFILTER_DROP"])
    ] = None


PathEntry = Annotated[
    str | Annotated[dict[str, HopDetail], Meta(min_length=1, max_length=1)],
    Meta(
        description="A function, or alternatives `a | b`; as a mapping, with what it must have met.",
        examples=["ip_rcv", "dev_queue_xmit | __dev_queue_xmit", {"nft_do_chain": {"chain": "inet filter forward"}}],
    ),
]


class Expect(Model, frozen=True, kw_only=True, rename={"with_": "with"}):
    """What must be true of the packet. At least one key must be given."""

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
    delivered: Annotated[
        str | Delivered | None,
        Meta(description="The host where the packet arrives, or `nowhere`.", examples=["server", "nowhere"]),
    ] = None
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers that the packet passes on the device, in this order; others may stand between.",
            examples=[["Device", "IPv4", "Netfilter", "Routing", "Xmit"]],
        ),
    ] = None
    path: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | None,
        Meta(description="Kernel functions that the packet meets, in this order; others may stand between."),
    ] = None
    never: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | None,
        Meta(description="Kernel functions that the packet must not meet."),
    ] = None


class Action(Model, frozen=True, kw_only=True):
    """One packet sent, and what must become of it."""

    send: Send
    expect: Annotated[
        Expect | UnsetType, Meta(description="Without it the packet only sets the stage, as a first packet of a flow.")
    ] = UNSET


class Scenario(Model, frozen=True, kw_only=True):
    """One test: a packet and what must become of it, or several in a row."""

    name: Annotated[Name, Meta(description="A sentence; it becomes the test's id.")]
    send: Send | UnsetType = UNSET
    expect: Expect | UnsetType = UNSET
    steps: Annotated[
        Annotated[list[Action], Meta(min_length=1)] | UnsetType,
        Meta(description="Several packets in order, instead of `send` and `expect`."),
    ] = UNSET
    marks: Annotated[list[str], Meta(description="pytest marks, for `-m`.", examples=[["slow"]])] = []


class ScenarioFile(Model, frozen=True, kw_only=True):
    """One scenario file."""

    lab: Annotated[
        str | LabSpec, Meta(description="A built-in lab, or one of your own.", examples=["router", "host"])
    ] = "router"
    ruleset: Annotated[
        str, Meta(description="nft file to load in the device, relative to this file.", examples=["rulesets/edge.nft"])
    ]
    scenarios: Annotated[list[Scenario], Meta(min_length=1, description="The scenarios.")]
