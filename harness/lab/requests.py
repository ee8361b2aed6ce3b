"""The requests that build a lab. See rtnetlink(7)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, Final, NamedTuple

from pyroute2.netlink import NLM_F_ACK
from pyroute2.netlink.rtnl import RTM_SETNEIGHTBL, ndmsg
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg

from harness.lab.rtnetlink import LOOPBACK, REMEMBERED, NetlinkRequest, family, message, written
from harness.topology.parts import (
    Address,
    Bridge,
    Macvlan,
    Made,
    Neighbour,
    Netem,
    Passing,
    Route,
    RoutingRule,
    Tunnel,
    Vlan,
    Vrf,
    Vxlan,
    Wireguard,
)

NEIGHBOUR_TABLES: Final = {4: "arp_cache", 6: "ndisc_cache"}
DAY_MS: Final = 86_400_000
PROBES: Final = 3
"""The kernel's default (MAX_MCAST_SOLICIT of RFC 4861)."""
RETRANS_MS: Final = 100
"""Between two of them, where every neighbour of the lab has a permanent entry: whoever is asked for is not there. An
answer would come within the call that sends the question, as the wires of a lab have no delay."""

IFA_F_NODAD, IFA_F_PERMANENT = 0x02, 0x80  # linux/if_addr.h
BRIDGE_FLAGS_SELF, BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 2, 2, 4  # linux/if_bridge.h
PROTOCOLS: Final = {"802.1q": 0x8100, "802.1ad": 0x88A8}  # linux/if_ether.h
NETEM_HANDLE: Final = 0x10000
GRE_KEY: Final = 0x2000  # linux/if_tunnel.h, in network byte order
IFLA_NET_NS_FD: Final = 28  # linux/if_link.h
_HERE, _THERE = 0x7FFFFFFE, 0x7FFFFFFF
"""In place of the descriptors of namespaces, which differ from lab to lab, in requests that are remembered."""
FIB_RULE_INVERT, RTNH_F_ONLINK, RT_SCOPE_HOST = 2, 4, 254  # linux/fib_rules.h, linux/rtnetlink.h
FR_ACT: Final = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}  # linux/fib_rules.h


class WireEnd(NamedTuple):
    """One end of a virtual wire."""

    host: str
    name: str
    ifindex: int
    mac: str
    namespace: int
    """Descriptor of the network namespace that it stands in."""
    mtu: int = 1500


def wire(one: WireEnd, other: WireEnd) -> NetlinkRequest:
    """A virtual wire, veth(4); each end is created in its namespace with its name, index and Ethernet address."""
    planned = _wire(one._replace(namespace=_HERE), other._replace(namespace=_THERE))
    data = planned.data.replace(_in_namespace(_HERE), _in_namespace(one.namespace))
    return planned._replace(data=data.replace(_in_namespace(_THERE), _in_namespace(other.namespace)))


def _in_namespace(descriptor: int) -> bytes:
    """The attribute that names a namespace."""
    return struct.pack("=HHI", 8, IFLA_NET_NS_FD, descriptor)


@lru_cache(REMEMBERED)
def _wire(one: WireEnd, other: WireEnd) -> NetlinkRequest:
    information = [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", {"attrs": [["VETH_INFO_PEER", _peer(other)]]}]]
    return written(
        f"the link {one.host}:{one.name} to {other.host}:{other.name}",
        "link add",
        index=one.ifindex,
        linkinfo={"attrs": information},
        attrs=_attributes(one),
    )


def _peer(end: WireEnd) -> dict[str, Any]:
    return {"index": end.ifindex, "attrs": _attributes(end)}


def _attributes(end: WireEnd) -> list[list[Any]]:
    # One queue each way: a packet's path does not depend on the number of CPUs.
    return [
        *(["IFLA_IFNAME", end.name], ["IFLA_ADDRESS", end.mac], ["IFLA_MTU", end.mtu]),
        *(["IFLA_NET_NS_FD", end.namespace], ["IFLA_NUM_TX_QUEUES", 1], ["IFLA_NUM_RX_QUEUES", 1]),
    ]


def made(of: Made, name: str, index: int, mac: str, mtu: int | None, links: Mapping[str, int]) -> NetlinkRequest:
    """An interface that is no end of a wire; ``links`` are the indexes of the host's interfaces by name."""
    own = {"ifname": name, "index": index, "address": mac, "mtu": mtu}
    match of:
        case Bridge():
            return bridge(name, index, mac, knows_vlans=bool(of.vlans))
        case Vlan():
            specific = {
                "kind": "vlan",
                "link": links[of.link],
                "vlan_id": of.id,
                "vlan_protocol": PROTOCOLS[of.protocol],
            }
        case Macvlan():
            specific = {"kind": "macvlan", "link": links[of.link], "macvlan_mode": of.mode}
        case Vxlan():
            version = "6" if of.local.version == 6 else ""
            ends = {f"vxlan_local{version}": str(of.local), f"vxlan_group{version}": str(of.remote)}
            specific = {"kind": "vxlan", "vxlan_id": of.id, "vxlan_port": of.port, "vxlan_learning": 0, **ends}
        case Tunnel():
            own = {"ifname": name, "index": index, "mtu": mtu}  # whose Ethernet address is that of its local end
            specific = {"kind": of.kind, f"{of.kind}_local": str(of.local), f"{of.kind}_remote": str(of.remote)}
            if of.key is not None:
                keys = {
                    f"gre_{way}{what}": value for way in "io" for what, value in (("key", of.key), ("flags", GRE_KEY))
                }
                specific |= keys
        case Wireguard():
            own = {"ifname": name, "index": index, "mtu": mtu}  # it has no Ethernet address
            specific = {"kind": "wireguard"}
        case Vrf():
            specific = {"kind": "vrf", "vrf_table": of.table}
        case _:
            specific = {"kind": "dummy"}
    return _made(tuple((own | specific).items()))


def bridge(name: str, index: int, mac: str, *, knows_vlans: bool = False) -> NetlinkRequest:
    """A bridge that forwards at once and sends nothing by itself: no spanning tree, no multicast snooping."""
    # Of VLANs it has none but those given.
    vlans = {"br_vlan_filtering": 1, "br_vlan_default_pvid": 0} if knows_vlans else {}
    own = {"kind": "bridge", "ifname": name, "index": index, "address": mac}
    return _made(tuple((own | {"br_forward_delay": 0, "br_mcast_snooping": 0} | vlans).items()))


@lru_cache(REMEMBERED)
def _made(settings: tuple[tuple[str, Any], ...]) -> NetlinkRequest:
    arguments = dict(settings)
    return written(f"{arguments['kind']} {arguments['ifname']}", "link add", **arguments)


@lru_cache(REMEMBERED)
def port(index: int, master: int, name: str) -> NetlinkRequest:
    """Make the interface ``name`` a port of the bridge, or put it into the VRF, with index ``master``."""
    return written(f"port {name}", "link set", index=index, master=master)


@lru_cache(REMEMBERED)
def passing(index: int, vlans: Passing, name: str, *, is_bridge: bool) -> NetlinkRequest:
    """Let ``vlans`` pass the port ``name``, or the bridge's own interface."""
    entries = [{"flags": 0, "vid": vlan} for vlan in vlans.tagged]
    if vlans.untagged:
        entries.append({"flags": BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED, "vid": vlans.untagged})
    own = [["IFLA_BRIDGE_FLAGS", BRIDGE_FLAGS_SELF]] if is_bridge else []
    infos = [["IFLA_BRIDGE_VLAN_INFO", entry] for entry in entries]
    return written(f"VLANs of port {name}", "vlan_filter add", index=index, IFLA_AF_SPEC={"attrs": [*own, *infos]})


@lru_cache(REMEMBERED)
def station(mac: str, index: int, vlan: int = 0) -> NetlinkRequest:
    """An Ethernet address that the bridge need not learn: behind the port with ``index``."""
    # The state "permanent" would make it the bridge's own (fdb_to_nud in net/bridge/br_fdb.c).
    return written(
        f"bridge station {mac}",
        "fdb add",
        ifindex=index,
        lladdr=mac,
        vlan=vlan or None,
        state=ndmsg.states["noarp"],
        flags=ndmsg.flags["master"],
    )


@lru_cache(REMEMBERED)
def up(index: int, state: str = "up") -> NetlinkRequest:
    """Switch the interface on; or with "down", off."""
    return written(f"interface {index} {state}", "link set", index=index, state=state)


@lru_cache(REMEMBERED)
def address(own: IPv4Interface | IPv6Interface, index: int, command: str = "add") -> NetlinkRequest:
    """An address of an interface, usable at once (no duplicate address detection); or with "del", its removal."""
    return written(
        f"address {own}",
        f"addr {command}",
        index=index,
        family=family(own.version),
        address=str(own.ip),
        local=str(own.ip),
        prefixlen=own.network.prefixlen,
        flags=IFA_F_NODAD | IFA_F_PERMANENT,
    )


@lru_cache(REMEMBERED)
def route(planned: Route, indexes: tuple[int, ...], command: str = "add") -> NetlinkRequest:
    """A route by its next hops, at the interfaces with ``indexes``, or one that ends the packet; or what removes it.

    ``command`` is "add", "replace" or "del".
    """
    onward: dict[str, Any] = {}
    if len(planned.hops) == 1:
        (hop,) = planned.hops
        onward = {"gateway": str(hop.via) if hop.via else None, "oif": indexes[0]}
        if hop.on_link:
            onward["flags"] = RTNH_F_ONLINK
    elif planned.hops:
        onward = {
            "multipath": [
                {"gateway": str(hop.via), "oif": index, "hops": hop.weight - 1}
                for hop, index in zip(planned.hops, indexes, strict=True)
            ]
        }
    elif planned.type == "local":
        onward = {"oif": LOOPBACK, "scope": RT_SCOPE_HOST}
    return written(
        f"the route to {planned}",
        f"route {command}",
        family=family(planned.destination.version),
        dst=str(planned.destination),
        type=planned.type,
        table=planned.table,
        priority=planned.metric or None,
        **{name: value for name, value in onward.items() if value is not None},
    )


@lru_cache(REMEMBERED)
def rule(planned: RoutingRule, command: str = "add") -> NetlinkRequest:
    """A rule of the routing policy; with the ``command`` "del", what removes it."""
    subnets = {
        name: subnet
        for name, subnet in (("dst", planned.destination), ("src", planned.source))
        if subnet is not None and subnet.prefixlen
    }
    return written(
        f"the rule {planned}",
        f"rule {command}",
        family=family(planned.version),
        action=FR_ACT[planned.type],
        flags=FIB_RULE_INVERT if planned.inverted else None,
        tos=planned.dsfield or None,
        suppress_prefixlen=planned.suppress_prefixlength,
        iifname=planned.iif or None,
        oifname=planned.oif or None,
        fwmark=planned.mark,
        fwmask=planned.mask,
        priority=planned.priority,  # None leaves the choice to the kernel; without it pyroute2 chooses 32000
        table=planned.table or None,
        **{name: str(subnet.network_address) for name, subnet in subnets.items()},
        **{f"{name}_len": subnet.prefixlen for name, subnet in subnets.items()},
    )


@lru_cache(REMEMBERED)
def neighbour(planned: Neighbour, index: int) -> NetlinkRequest:
    """A neighbour that nobody needs to ask for."""
    # What a tunnel or multicast has sent already may have begun to ask for it: "replace".
    return _neighbour("replace", planned.address, index, lladdr=planned.mac, state=ndmsg.states["permanent"])


@lru_cache(REMEMBERED)
def ask_for_neighbour(address: IPv4Address, index: int) -> NetlinkRequest:
    """Have the kernel send an ARP request, as for a packet (neigh_event_send in include/net/neighbour.h)."""
    return _neighbour("replace", address, index, state=ndmsg.states["none"], flags=ndmsg.flags["use"])


@lru_cache(REMEMBERED)
def await_neighbour(address: IPv6Address, index: int) -> NetlinkRequest:
    """An entry that an advertisement completes; the kernel sends no solicitation of its own for it."""
    return _neighbour("replace", address, index, state=ndmsg.states["incomplete"])


@lru_cache(REMEMBERED)
def forget_neighbour(address: Address, index: int) -> NetlinkRequest:
    """Remove an entry."""
    return _neighbour("del", address, index, state=ndmsg.states["none"])


def _neighbour(command: str, address: Address, index: int, **more: Any) -> NetlinkRequest:
    return written(
        f"neighbour {address}",
        f"neigh {command}",
        family=family(address.version),
        dst=str(address),
        ifindex=index,
        **more,
    )


@lru_cache(REMEMBERED)
def alias(index: int, words: str) -> NetlinkRequest:
    """Words beside the interface's name, that only people read."""
    return written("the alias of an interface", "link set", index=index, ifalias=words)


@lru_cache(REMEMBERED)
def resolution(index: int, version: int, *, probes: int) -> NetlinkRequest:
    """How neighbours at one interface are resolved (neightbl_set in net/core/neighbour.c).

    The kernel asks ``probes`` times, one second apart; with 0 a packet to an unknown neighbour is dropped at once
    (__neigh_event_send). What was resolved is believed for a day, so no timer asks again.
    """
    times = [[f"NDTPA_{name}", DAY_MS] for name in ("BASE_REACHABLE_TIME", "DELAY_PROBE_TIME")]
    return _neighbour_table(index, version, [["NDTPA_IFINDEX", index], *times, ["NDTPA_MCAST_PROBES", probes]])


@lru_cache(REMEMBERED)
def quick_resolution(index: int, version: int) -> NetlinkRequest:
    """Ask for an unknown neighbour at the interface at intervals of :data:`RETRANS_MS` instead of a second."""
    parameters = [["NDTPA_IFINDEX", index], ["NDTPA_RETRANS_TIME", RETRANS_MS]]
    return _neighbour_table(index, version, parameters)


def _neighbour_table(index: int, version: int, parameters: list[list[Any]]) -> NetlinkRequest:
    attributes = [["NDTA_NAME", NEIGHBOUR_TABLES[version]], ["NDTA_PARMS", {"attrs": parameters}]]
    data = message(ndtmsg, RTM_SETNEIGHTBL, NLM_F_ACK, family=family(version), attrs=attributes)
    return NetlinkRequest(data, f"the resolution of neighbours at interface {index}")


@lru_cache(REMEMBERED)
def netem(index: int, planned: Netem, name: str) -> NetlinkRequest:
    """Delay or lose what leaves by the interface ``name`` (net/sched/sch_netem.c)."""
    return written(
        f"netem {name}",
        "tc replace",
        kind="netem",
        index=index,
        handle=NETEM_HANDLE,
        delay=round(planned.delay * 1_000_000),
        loss=100 if planned.loss else 0,
        limit=1000,
    )
