"""The rtnetlink requests that build a lab, and what it says of links. See rtnetlink(7)."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, NamedTuple

from harness.netlink import CHANGE, NEW, Netlink, Request, attribute, attributes, nested, text
from harness.scenario.network import Neighbour, Route

NETLINK_ROUTE: Final = 0
LOOPBACK: Final = 1
"""Index of ``lo`` in every namespace (``LOOPBACK_IFINDEX`` in include/net/flow.h)."""

# linux/rtnetlink.h
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH = 16, 18, 20, 24, 28
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
# linux/if.h, linux/if_link.h, linux/veth.h
IFF_UP, IF_OPER_UP = 1, 6
IFLA_ADDRESS, IFLA_IFNAME, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 16, 18, 28
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_MASTER = 10
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_MCAST_SNOOPING = 1, 23
# linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD, IFA_F_PERMANENT = 0x02, 0x80
# linux/neighbour.h
NDA_DST, NDA_LLADDR, NUD_NOARP, NUD_PERMANENT, NTF_MASTER = 1, 2, 0x40, 0x80, 0x04
# linux/sockios.h, linux/ethtool.h
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # struct ndmsg: family, index, state, flags, type


class VethEnd(NamedTuple):
    """One end of a virtual wire."""

    host: str
    name: str
    ifindex: int
    mac: str
    namespace: int
    """Descriptor of the network namespace that it stands in."""


def veth(one: VethEnd, other: VethEnd) -> Request:
    """A wire; each end is born in its namespace with its name, index and address."""
    link = nested(
        IFLA_LINKINFO,
        text(IFLA_INFO_KIND, "veth"),
        nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, _end(other))),
    )
    return Request(RTM_NEWLINK, NEW, _end(one) + link, f"the link {one.host}:{one.name} to {other.host}:{other.name}")


def _end(end: VethEnd) -> bytes:
    return b"".join(
        [
            _LINK.pack(socket.AF_UNSPEC, 0, end.ifindex, 0, 0),
            text(IFLA_IFNAME, end.name),
            attribute(IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", ""))),
            attribute(IFLA_NET_NS_FD, struct.pack("=I", end.namespace)),
            # One queue each way: a packet's path does not depend on the number of CPUs.
            attribute(IFLA_NUM_TX_QUEUES, struct.pack("=I", 1)),
            attribute(IFLA_NUM_RX_QUEUES, struct.pack("=I", 1)),
        ]
    )


def bridge(name: str, index: int, mac: str) -> Request:
    """A bridge that forwards at once and says nothing by itself: no spanning tree, no multicast snooping."""
    settings = nested(
        IFLA_INFO_DATA,
        attribute(IFLA_BR_FORWARD_DELAY, struct.pack("=I", 0)),
        attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + text(IFLA_IFNAME, name)
    body += attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    return Request(
        RTM_NEWLINK, NEW, body + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), settings), f"bridge {name}"
    )


def port(index: int, bridge: int, name: str) -> Request:
    """Make the interface ``name`` a port of the bridge with index ``bridge``."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_MASTER, struct.pack("=I", bridge))
    return Request(RTM_NEWLINK, CHANGE, body, f"bridge port {name}")


def station(mac: str, index: int) -> Request:
    """An Ethernet address that the bridge need not learn: behind the port with ``index``."""
    # NUD_PERMANENT would make it the bridge's own (fdb_to_nud in net/bridge/br_fdb.c).
    head = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0)
    body = head + attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return Request(RTM_NEWNEIGH, NEW, body, f"bridge station {mac}")


def up(index: int) -> Request:
    """Switch the interface on."""
    return Request(RTM_NEWLINK, CHANGE, _LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP), f"interface {index} up")


def address(own: IPv4Interface | IPv6Interface, index: int) -> Request:
    """An address of an interface, usable at once (no duplicate address detection)."""
    head = _ADDRESS.pack(_family(own.version), own.network.prefixlen, IFA_F_NODAD | IFA_F_PERMANENT, 0, index)
    packed = own.ip.packed
    return Request(
        RTM_NEWADDR, NEW, head + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed), f"address {own}"
    )


def route(planned: Route, index: int) -> Request:
    """A route by way of a gateway."""
    subnet = planned.destination
    head = _ROUTE.pack(_family(subnet.version), subnet.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    destination = attribute(RTA_DST, subnet.network_address.packed) if subnet.prefixlen else b""
    by = attribute(RTA_GATEWAY, planned.via.packed) + attribute(RTA_OIF, struct.pack("=i", index))
    return Request(RTM_NEWROUTE, NEW, head + destination + by, f"the route to {subnet} by {planned.via}")


def neighbour(planned: Neighbour, index: int) -> Request:
    """A neighbour that nobody needs to ask for."""
    head = _NEIGHBOUR.pack(_family(planned.address.version), index, NUD_PERMANENT, 0, 0)
    mac = attribute(NDA_LLADDR, bytes.fromhex(planned.mac.replace(":", "")))
    return Request(
        RTM_NEWNEIGH, NEW, head + attribute(NDA_DST, planned.address.packed) + mac, f"neighbour {planned.address}"
    )


def links_up(link: Netlink) -> Iterator[int]:
    """Indexes of the interfaces that pass packets (RFC 2863, ifOperStatus up)."""
    for message in link.dump(RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "the links"):
        _, _, index, _, _ = _LINK.unpack_from(message.body)
        for kind, payload in attributes(message.body[_LINK.size :]):
            if kind == IFLA_OPERSTATE and payload[0] == IF_OPER_UP:
                yield index


def checksum_in_software(name: str) -> None:
    """Have the kernel write true checksums into what it sends by interface ``name``.

    Else the bytes captured from a virtual wire carry only the pseudo header's sum. To be called
    in the interface's namespace.
    """
    value = array.array("I", [ETHTOOL_STXCSUM, 0])  # struct ethtool_value
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), value.buffer_info()[0]))


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6
