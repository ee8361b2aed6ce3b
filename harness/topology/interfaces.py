"""Interfaces other than ends of wires, what is set at interfaces, and IPsec, as a scenario file describes them."""

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


class VlanSpec(Model, frozen=True, kw_only=True):
    """An interface for one VLAN of another."""

    link: Annotated[InterfaceName, Meta(description="The interface that carries the tagged frames.", examples=["lan0"])]
    id: Annotated[VlanNumber, Meta(description="The VLAN identifier.", examples=[10])]
    protocol: Annotated[
        Literal["802.1q", "802.1ad"],
        Meta(
            description="The tag: `802.1ad` is the outer one of a provider, which may carry `802.1q` (QinQ).",
            examples=["802.1ad"],
        ),
    ] = "802.1q"


class MacvlanSpec(Model, frozen=True, kw_only=True):
    """An interface on top of another, with its own Ethernet address (macvlan), such as that of a VRRP virtual
    router."""

    link: Annotated[InterfaceName, Meta(description="The interface that carries its frames.", examples=["wan0"])]
    mode: Annotated[
        Literal["bridge", "private"],
        Meta(
            description="Whether those on the same interface exchange frames (`bridge`) or not (`private`). None of "
            "them reaches the interface that carries it.",
            examples=["private"],
        ),
    ] = "bridge"


class VxlanSpec(Model, frozen=True, kw_only=True):
    """A tunnel for Ethernet frames in UDP (VXLAN, RFC 7348), between two hosts."""

    id: Annotated[int, Meta(ge=0, le=0xFFFFFF, description="The network identifier, VNI.", examples=[42])]
    local: Annotated[
        AnyAddress, Meta(description="The local tunnel endpoint: an address of this host.", examples=["10.0.0.1"])
    ]
    remote: Annotated[AnyAddress, Meta(description="The remote tunnel endpoint.", examples=["10.0.0.2"])]
    port: Annotated[int, Meta(ge=1, le=65535, description="The UDP destination port.", examples=[8472])] = 4789


class TunnelSpec(Model, frozen=True, kw_only=True):
    """A tunnel for IP packets, between two hosts whose kernels have addresses: the device, routers, or hosts with
    programs."""

    kind: Annotated[
        Literal["ipip", "gre"], Meta(description="IPv4 in IPv4 (RFC 2003), or GRE over IPv4.", examples=["gre"])
    ]
    local: Annotated[
        AnyAddress, Meta(description="The local tunnel endpoint: an address of this host.", examples=["10.0.0.1"])
    ]
    remote: Annotated[AnyAddress, Meta(description="The remote tunnel endpoint.", examples=["10.0.0.2"])]
    key: Annotated[Number32 | None, Meta(description="The key of a GRE tunnel.", examples=[7])] = None


class WireguardPeerSpec(Model, frozen=True, kw_only=True):
    """A peer of a WireGuard interface: the interface of another host that names this host as its peer."""

    allowed: Annotated[
        list[Prefix],
        Meta(
            min_length=1,
            description="Networks whose packets go to the peer, and from which it may send (`AllowedIPs`). Routes to "
            "them are given by `routes`, with `dev`.",
            examples=[["10.8.0.2/32", "192.168.2.0/24"]],
        ),
    ]
    endpoint: Annotated[
        AnyAddress | None,
        Meta(
            description="The peer's address; without it, the peer sends first, as one behind NAT does.",
            examples=["203.0.113.1"],
        ),
    ] = None
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description="The peer's UDP port; default: that of its interface.", examples=[443]),
    ] = None


class WireguardSpec(Model, frozen=True, kw_only=True):
    """A WireGuard interface. Keys are random, made for each run."""

    peers: Annotated[
        dict[HostName, WireguardPeerSpec],
        Meta(
            min_length=1,
            description="The peers by their hosts.",
            examples=[{"laptop": {"allowed": ["10.8.0.2/32"]}}],
        ),
    ]
    port: Annotated[int, Meta(ge=1, le=65535, description="The UDP port that it listens on.", examples=[51820])] = 51820
    mark: Annotated[
        Number32 | None,
        Meta(description="The mark of the encrypted packets (`FwMark`), for routing rules.", examples=[51820]),
    ] = None


class NetemSpec(Model, frozen=True, kw_only=True):
    """Delay or loss of packets that leave by an interface, as with tc-netem(8)."""

    delay: Annotated[
        Annotated[float, Meta(ge=0, le=10)], Meta(description="A fixed delay, in seconds.", examples=[0.05])
    ] = 0
    loss: Annotated[bool, Meta(description="Whether all are lost, though the link has a carrier.", examples=[True])] = (
        False
    )


class VrfSpec(Model, frozen=True, kw_only=True):
    """A VRF: a routing domain of its own for some interfaces."""

    table: Annotated[int, Meta(ge=1, le=0xFFFFFFFF, description="Its routing table.", examples=[10])]
    interfaces: Annotated[
        list[InterfaceName],
        Meta(min_length=1, description="The interfaces enslaved to it.", examples=[["lan0", "lan1"]]),
    ]


class PortSpec(Model, frozen=True, kw_only=True):
    """VLAN filtering at a port of a bridge."""

    untagged: Annotated[
        VlanNumber | None, Meta(description="The VLAN of untagged frames, in both directions.", examples=[10])
    ] = None
    tagged: Annotated[list[VlanNumber], Meta(description="VLANs whose frames leave tagged.", examples=[[20, 30]])] = []


Spi = Annotated[int, Meta(ge=256, le=0xFFFFFFFF)]


class IpsecEndSpec(Model, frozen=True, kw_only=True):
    """One end of IPsec."""

    address: Annotated[AnyAddress, Meta(description="An address of its host.", examples=["203.0.113.1"])]
    networks: Annotated[
        list[Prefix],
        Meta(
            description="The networks behind it, for tunnel mode. Without networks at both ends it is transport mode, "
            "for packets between the two addresses.",
            examples=[["192.168.1.0/24"]],
        ),
    ] = []
    spi: Annotated[
        Spi | None,
        Meta(description="The SPI of the packets that it receives; one is chosen unless given.", examples=[0x2001]),
    ] = None


class IpsecSpec(Model, frozen=True, kw_only=True):
    """ESP between two hosts, as a key exchange daemon would set it up: states and policies of both.

    The algorithm is AES-GCM (RFC 4106); keys are random, made for each run.
    """

    ends: Annotated[
        list[IpsecEndSpec],
        Meta(
            min_length=2,
            max_length=2,
            description="Both ends.",
            examples=[
                [
                    {"address": "203.0.113.1", "networks": ["192.168.1.0/24"]},
                    {"address": "198.51.100.1", "networks": ["192.168.2.0/24"]},
                ]
            ],
        ),
    ]
    reqid: Annotated[
        int, Meta(ge=1, le=0xFFFFFFFF, description="The number that policies and states share.", examples=[1])
    ] = 1
