"""The rtnetlink requests that build a lab, and what it says of links. See rtnetlink(7)."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final, NamedTuple

from harness.linux.netlink import CHANGE, NEW, SET, Netlink, Request, attribute, attributes, nested, text
from harness.topology.parts import Dummy, Made, Neighbour, Passing, Route, RoutingRule, Vlan, Vrf, Vxlan

NETLINK_ROUTE: Final = 0
LOOPBACK: Final = 1
"""Index of ``lo`` in every namespace (``LOOPBACK_IFINDEX`` in include/net/flow.h)."""

# linux/rtnetlink.h
RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_NEWRULE = 16, 18, 19, 20, 24, 28, 32
RTM_DELNEIGH, RTM_GETNEIGH, RTM_SETNEIGHTBL = 29, 30, 67
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RT_TABLE_UNSPEC, RTPROT_STATIC = 0, 4
RTN: Final = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
# linux/if.h, linux/if_link.h, linux/veth.h
IFF_UP, IF_OPER_UP = 1, 6
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 5, 16, 18, 28
IFLA_IFALIAS = 20
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_MASTER = 10
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_VLAN_FILTERING, IFLA_BR_MCAST_SNOOPING, IFLA_BR_VLAN_DEFAULT_PVID = 1, 7, 23, 39
IFLA_VLAN_ID, IFLA_VRF_TABLE = 1, 1
IFLA_VXLAN_ID, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 1, 7, 15
IFLA_VXLAN_GROUP: Final = {4: 2, 6: 16}
IFLA_VXLAN_LOCAL: Final = {4: 4, 6: 17}
# linux/if_bridge.h
IFLA_AF_SPEC, IFLA_BRIDGE_FLAGS, IFLA_BRIDGE_VLAN_INFO, BRIDGE_FLAGS_SELF = 26, 0, 2, 2
BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 2, 4
# linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD, IFA_F_PERMANENT = 0x02, 0x80
# linux/neighbour.h
NDA_DST, NDA_LLADDR, NDA_VLAN = 1, 2, 5
NUD_NOARP, NUD_PERMANENT, NTF_MASTER = 0x40, 0x80, 0x04
NUD_NONE, NUD_INCOMPLETE, NTF_USE = 0x00, 0x01, 0x01
NUD_VALID: Final = NUD_PERMANENT | NUD_NOARP | 0x02 | 0x04 | 0x08 | 0x10  # reachable, stale, delay, probe
NDTA_NAME, NDTA_PARMS = 1, 6
NDTPA_IFINDEX, NDTPA_BASE_REACHABLE_TIME, NDTPA_DELAY_PROBE_TIME, NDTPA_MCAST_PROBES = 1, 4, 7, 11
NEIGHBOUR_TABLES: Final = {4: "arp_cache", 6: "ndisc_cache"}
DAY_MS: Final = 86_400_000
# linux/fib_rules.h
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 1, 2, 3, 6, 10, 15, 16, 17
FR_ACT: Final = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
# linux/sockios.h, linux/ethtool.h
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # struct rtmsg and fib_rule_hdr: family, lengths, tos, table, two more, type, flags
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # struct ndmsg: family, index, state, flags, type


class VethEnd(NamedTuple):
    """One end of a virtual wire."""

    host: str
    name: str
    ifindex: int
    mac: str
    namespace: int
    """Descriptor of the network namespace that it stands in."""
    mtu: int = 1500


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
            attribute(IFLA_MTU, struct.pack("=I", end.mtu)),
            # One queue each way: a packet's path does not depend on the number of CPUs.
            attribute(IFLA_NUM_TX_QUEUES, struct.pack("=I", 1)),
            attribute(IFLA_NUM_RX_QUEUES, struct.pack("=I", 1)),
        ]
    )


def bridge(name: str, index: int, mac: str, *, knows_vlans: bool = False) -> Request:
    """A bridge that forwards at once and says nothing by itself: no spanning tree, no multicast snooping."""
    settings = [
        attribute(IFLA_BR_FORWARD_DELAY, struct.pack("=I", 0)),
        attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    ]
    if knows_vlans:
        settings.append(attribute(IFLA_BR_VLAN_FILTERING, b"\1"))
        settings.append(attribute(IFLA_BR_VLAN_DEFAULT_PVID, struct.pack("=H", 0)))  # none but those given
    return _made("bridge", name, index, mac, *settings)


def made(of: Made, name: str, index: int, mac: str, mtu: int | None, links: Mapping[str, int]) -> Request:
    """An interface that is no end of a wire; ``links`` are the indexes of the host's interfaces by name."""
    more = b"" if mtu is None else attribute(IFLA_MTU, struct.pack("=I", mtu))
    match of:
        case Vlan():
            more += attribute(IFLA_LINK, struct.pack("=I", links[of.link]))
            return _made("vlan", name, index, mac, attribute(IFLA_VLAN_ID, struct.pack("=H", of.id)), more=more)
        case Vxlan():
            settings = (
                attribute(IFLA_VXLAN_ID, struct.pack("=I", of.id)),
                attribute(IFLA_VXLAN_LOCAL[of.local.version], of.local.packed),
                attribute(IFLA_VXLAN_GROUP[of.remote.version], of.remote.packed),
                attribute(IFLA_VXLAN_PORT, struct.pack("!H", of.port)),
                attribute(IFLA_VXLAN_LEARNING, b"\0"),
            )
            return _made("vxlan", name, index, mac, *settings, more=more)
        case Vrf():
            return _made("vrf", name, index, mac, attribute(IFLA_VRF_TABLE, struct.pack("=I", of.table)), more=more)
        case Dummy():
            return _made("dummy", name, index, mac, more=more)
        case _:
            return bridge(name, index, mac, knows_vlans=bool(of.vlans))


def _made(kind: str, name: str, index: int, mac: str, *settings: bytes, more: bytes = b"") -> Request:
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + text(IFLA_IFNAME, name)
    body += attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) + more
    information = [text(IFLA_INFO_KIND, kind)] + ([nested(IFLA_INFO_DATA, *settings)] if settings else [])
    return Request(RTM_NEWLINK, NEW, body + nested(IFLA_LINKINFO, *information), f"{kind} {name}")


def port(index: int, master: int, name: str) -> Request:
    """Make the interface ``name`` a port of the bridge, or put it into the VRF, with index ``master``."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_MASTER, struct.pack("=I", master))
    return Request(RTM_NEWLINK, CHANGE, body, f"port {name}")


def passing(index: int, vlans: Passing, name: str, *, is_bridge: bool) -> Request:
    """Let ``vlans`` pass the port ``name``, or the bridge's own interface."""
    head = _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    entries = [(0, vlan) for vlan in vlans.tagged]
    if vlans.untagged:
        entries.append((BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED, vlans.untagged))
    own = [attribute(IFLA_BRIDGE_FLAGS, struct.pack("=H", BRIDGE_FLAGS_SELF))] if is_bridge else []
    infos = [attribute(IFLA_BRIDGE_VLAN_INFO, struct.pack("=HH", *entry)) for entry in entries]
    return Request(RTM_SETLINK, CHANGE, head + nested(IFLA_AF_SPEC, *own, *infos), f"VLANs of port {name}")


def station(mac: str, index: int, vlan: int = 0) -> Request:
    """An Ethernet address that the bridge need not learn: behind the port with ``index``."""
    # NUD_PERMANENT would make it the bridge's own (fdb_to_nud in net/bridge/br_fdb.c).
    head = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0)
    body = head + attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    if vlan:
        body += attribute(NDA_VLAN, struct.pack("=H", vlan))
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
    """A route by way of a gateway at the interface with ``index``, or one that ends the packet."""
    subnet = planned.destination
    # The header has room for eight bits of the table only.
    head = _ROUTE.pack(
        *(_family(subnet.version), subnet.prefixlen, 0, 0),
        *(RT_TABLE_UNSPEC, RTPROT_STATIC, 0, RTN[planned.type], 0),
    )
    body = head + (attribute(RTA_DST, subnet.network_address.packed) if subnet.prefixlen else b"")
    body += attribute(RTA_TABLE, struct.pack("=I", planned.table))
    if planned.metric:
        body += attribute(RTA_PRIORITY, struct.pack("=I", planned.metric))
    if planned.via is not None:
        body += attribute(RTA_GATEWAY, planned.via.packed) + attribute(RTA_OIF, struct.pack("=i", index))
    return Request(RTM_NEWROUTE, NEW, body, f"the route to {planned}")


def rule(planned: RoutingRule) -> Request:
    """A rule of the routing policy."""
    lengths = [subnet.prefixlen if subnet else 0 for subnet in (planned.destination, planned.source)]
    head = _ROUTE.pack(_family(planned.version), *lengths, 0, RT_TABLE_UNSPEC, 0, 0, FR_ACT[planned.type], 0)
    body = head
    for kind, subnet in ((FRA_DST, planned.destination), (FRA_SRC, planned.source)):
        if subnet is not None and subnet.prefixlen:
            body += attribute(kind, subnet.network_address.packed)
    for kind, name in ((FRA_IIFNAME, planned.iif), (FRA_OIFNAME, planned.oif)):
        if name:
            body += text(kind, name)
    numbers = (
        *((FRA_FWMARK, planned.mark), (FRA_FWMASK, planned.mask), (FRA_PRIORITY, planned.priority)),
        (FRA_TABLE, planned.table or None),
    )
    for kind, number in numbers:
        if number is not None:
            body += attribute(kind, struct.pack("=I", number))
    return Request(RTM_NEWRULE, NEW, body, f"the rule {planned}")


def neighbour(planned: Neighbour, index: int) -> Request:
    """A neighbour that nobody needs to ask for."""
    head = _NEIGHBOUR.pack(_family(planned.address.version), index, NUD_PERMANENT, 0, 0)
    mac = attribute(NDA_LLADDR, bytes.fromhex(planned.mac.replace(":", "")))
    # What a tunnel or multicast has sent already may have begun to ask for it.
    return Request(
        RTM_NEWNEIGH, SET, head + attribute(NDA_DST, planned.address.packed) + mac, f"neighbour {planned.address}"
    )


def alias(index: int, words: str) -> Request:
    """Words beside the interface's name, that only people read."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + text(IFLA_IFALIAS, words)
    return Request(RTM_NEWLINK, CHANGE, body, "the alias of an interface")


def aliases(link: Netlink) -> dict[int, str]:
    """The aliases of interfaces, by index; those that have none left out."""
    found = {}
    for message in link.dump(RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "the links"):
        _, _, index, _, _ = _LINK.unpack_from(message.body)
        for kind, payload in attributes(message.body[_LINK.size :]):
            if kind == IFLA_IFALIAS:
                found[index] = bytes(payload).rstrip(b"\0").decode(errors="replace")
    return found


PROBES: Final = 3
"""The kernel's default (MAX_MCAST_SOLICIT of RFC 4861)."""


def resolution(index: int, version: int, *, probes: int) -> Request:
    """How neighbours at one interface are resolved (neightbl_set in net/core/neighbour.c).

    The kernel asks ``probes`` times, one second apart; with 0 a packet to an unknown neighbour is dropped at once
    (__neigh_event_send). What was resolved is believed for a day, so no timer asks again.
    """
    times = [attribute(kind, struct.pack("=Q", DAY_MS)) for kind in (NDTPA_BASE_REACHABLE_TIME, NDTPA_DELAY_PROBE_TIME)]
    times.append(attribute(NDTPA_MCAST_PROBES, struct.pack("=I", probes)))
    body = struct.pack("=B3x", _family(version)) + text(NDTA_NAME, NEIGHBOUR_TABLES[version])
    body += nested(NDTA_PARMS, attribute(NDTPA_IFINDEX, struct.pack("=I", index)), *times)
    return Request(RTM_SETNEIGHTBL, CHANGE, body, f"the resolution of neighbours at interface {index}")


def ask_for_neighbour(address: IPv4Address, index: int) -> Request:
    """Have the kernel send an ARP request, as for a packet (neigh_event_send in include/net/neighbour.h)."""
    head = _NEIGHBOUR.pack(socket.AF_INET, index, NUD_NONE, NTF_USE, 0)
    return Request(RTM_NEWNEIGH, SET, head + attribute(NDA_DST, address.packed), f"neighbour {address}")


def await_neighbour(address: IPv6Address, index: int) -> Request:
    """An entry that an advertisement completes; the kernel sends no solicitation of its own for it."""
    head = _NEIGHBOUR.pack(socket.AF_INET6, index, NUD_INCOMPLETE, 0, 0)
    return Request(RTM_NEWNEIGH, SET, head + attribute(NDA_DST, address.packed), f"neighbour {address}")


def forget_neighbour(address: IPv4Address | IPv6Address, index: int) -> Request:
    """Remove an entry."""
    head = _NEIGHBOUR.pack(_family(address.version), index, 0, 0, 0)
    return Request(RTM_DELNEIGH, CHANGE, head + attribute(NDA_DST, address.packed), f"neighbour {address}")


def neighbours(link: Netlink, version: int) -> Iterator[tuple[int, bytes, int]]:
    """The neighbour entries: index of the interface, address and state (``NUD_*``)."""
    body = _NEIGHBOUR.pack(_family(version), 0, 0, 0, 0)
    for message in link.dump(RTM_GETNEIGH, body, "the neighbours"):
        _, index, state, _, _ = _NEIGHBOUR.unpack_from(message.body)
        for kind, payload in attributes(message.body[_NEIGHBOUR.size :]):
            if kind == NDA_DST:
                yield index, bytes(payload), state


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
