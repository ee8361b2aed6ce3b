"""A lab: the hosts and links of a :class:`~harness.topology.network.Network`, in the kernel."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv6Interface
from typing import Final

from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.lab import nexthops, requests
from harness.lab.cgroups import Cgroups
from harness.lab.ipsec import protect
from harness.lab.namespace import Namespace
from harness.lab.requests import WireEnd
from harness.lab.required_modules import BRIDGE_NETFILTER
from harness.lab.rtnetlink import LOOPBACK, NetlinkError, NetlinkRequest, RouteSocket
from harness.lab.wireguard import introduce
from harness.packets.resolving import solicited
from harness.topology import network, parts
from harness.topology.parts import Bridge, Interface, Macvlan, Vlan, Vrf, is_on_link_only
from harness.wait import wait_until

READY_S: Final = 10.0
"""Seconds within which all links must be up."""

JOINED_S: Final = 1.0
"""Seconds to wait for the multicast groups of all addresses to be joined."""

SUPPRESSED: Final = 8
"""Looks in a row, with a pause between each two, at a group that has been joined and that this host does not report: it
has heard another's report (RFC 2710, 4). A group that is being joined looks so for a moment."""

COMMON: Final = {
    # A new namespace copies its IPv4 settings from the host's present ones (devinet_init_net in
    # net/ipv4/devinet.c), but a lab must be the same everywhere: these are the kernel's defaults.
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.log_martians": "0",
    "net.ipv4.conf.default.log_martians": "0",
}
QUIET_IPV6: Final = {
    # Addresses only as planned: no link-local ones, no duplicate detection, no router discovery.
    "net.ipv6.conf.default.addr_gen_mode": "1",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    # A host must report its multicast groups. With MLD version 1 and the shortest interval it has
    # done so before the first packet of a scenario; `_wait_for_reports` checks that.
    "net.ipv6.conf.default.force_mld_version": "1",
    "net.ipv6.conf.default.mldv1_unsolicited_report_interval": "1",
}
SILENT_IPV6: Final = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
UNFILTERED_BRIDGES: Final = {
    # With br_netfilter loaded or built in, a new namespace filters bridged IP as if it were routed
    # (br_netfilter_sysctl_default() in net/bridge/br_netfilter_hooks.c). Rulesets that need it get it, see
    # harness.ruleset.hosts.
    "net.bridge.bridge-nf-call-iptables": "0",
    "net.bridge.bridge-nf-call-ip6tables": "0",
    "net.bridge.bridge-nf-call-arptables": "0",
}
UNLIMITED_ICMP: Final = {"net.ipv4.icmp_ratemask": "0"}
UNLIMITED_ICMPV6: Final = {"net.ipv6.icmp.ratemask": "\n"}
"""No type of ICMP error is limited in rate, neither for each destination nor, where that limit belongs to the whole
machine, by icmp_msgs_per_sec: icmpv4_mask_allow() in net/ipv4/icmp.c, icmpv6_mask_allow() in net/ipv6/icmp.c."""
_LIMITS_ICMP: Final = ("net.ipv4.icmp_rate", "net.ipv4.icmp_msgs")
_LIMITS_ICMPV6: Final = "net.ipv6.icmp.rate"
FORWARDING: Final = {"net.ipv4.ip_forward": "1"}
FORWARDING_IPV6: Final = {"net.ipv6.conf.all.forwarding": "1"}

FIRST_INDEX: Final = 100
"""Index of the lab's first interface. Loaded tunnel modules (gre, ipip, sit, …) create interfaces in every new
namespace, from 2 on (Documentation/admin-guide/sysctl/net.rst, fb_tunnels_only_for_init_net)."""

MODULES: Final = {
    "bridge": "the module bridge, and CONFIG_BRIDGE_VLAN_FILTERING where ports: names VLANs",
    "vlan": "the module 8021q",
    "macvlan": "the module macvlan",
    "vxlan": "the module vxlan",
    "ipip": "the module ipip",
    "gre": "the module ip_gre",
    "netem": "the module sch_netem",
    "wireguard": "the module wireguard",
    "vrf": "the module vrf",
    "dummy": "the module dummy",
}
"""The kernel's modules by kind of interface."""

SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # linux/sockios.h, linux/ethtool.h
MAF_TIMER_RUNNING, MAF_LAST_REPORTER, MAF_LOADED = 0x01, 0x02, 0x04
"""A multicast group's report is still to be sent; has been sent, or is to be; the interface has the group's address
(include/net/if_inet6.h)."""


class Host:
    """A host of the lab: a namespace with interfaces."""

    def __init__(
        self,
        plan: parts.HostPlan,
        namespace: Namespace,
        interfaces: Mapping[str, int],
        cgroups: Cgroups | None = None,
    ) -> None:
        self.plan = plan
        self.cgroups = cgroups or namespace.enter(Cgroups)
        """Those of the lab, which all hosts share."""
        self.name = plan.name
        self.namespace = namespace
        self.inum = namespace.inum
        """Number of the namespace, ``net->ns.inum`` in the kernel."""
        self.interfaces = interfaces
        """Index by name, without ``lo``; indexes are unique in the lab."""
        self.netlink = namespace.enter(RouteSocket)
        """For requests to rtnetlink, from any thread; closed with the namespace."""
        self.names = {LOOPBACK: "lo"} | {index: name for name, index in interfaces.items()}
        """Of its interfaces, by their indexes."""

    def interface(self, index: int) -> str:
        """Name of the interface with ``index``, which is ``skb->dev->ifindex``; "" when there is none."""
        return self.names.get(index, "")


class Lab:
    """A built lab.

    Hosts that neither load a ruleset nor forward are silent: their interfaces have no addresses, so their
    kernels answer nothing.
    """

    def __init__(self, plan: network.Network, hosts: Mapping[str, Host]) -> None:
        self.network = plan
        self.hosts = hosts
        self.device = hosts[plan.device]
        """The host under test."""
        self.by_inum: Mapping[int, Host] = {host.inum: host for host in hosts.values()}
        """The hosts by number of their namespace."""

    def stations(self) -> dict[str, frozenset[bytes]]:
        """What bridges have in their forwarding databases, by host; see :meth:`RouteSocket.stations`."""
        bridging = (
            host for host in self.hosts.values() if any(isinstance(one, Bridge) for one in host.plan.made.values())
        )
        return {host.name: host.netlink.stations() for host in bridging}

    def follow(self, plan: network.Network) -> None:
        """Take ``plan`` for that of the lab, which has been changed to it."""
        self.network = plan
        for host in self.hosts.values():
            host.plan = plan.hosts[host.name]

    @classmethod
    @contextmanager
    def build(cls, plan: network.Network) -> Iterator[Lab]:
        """Build ``plan``, idle and with all links up; nothing of it is left after the ``with``.

        Raises :class:`~harness.errors.Unsupported` when this machine cannot do it, and
        :class:`~harness.errors.HarnessError` when the kernel refuses a part of the plan.
        """
        with ExitStack() as stack:
            cgroups = stack.enter_context(Cgroups())
            indexes = iter(range(FIRST_INDEX, 1 << 31))
            hosts = {}
            for planned in plan.hosts.values():
                namespace = stack.enter_context(Namespace(planned.name))
                namespace.sysctl(_settings(planned))  # before the links, which copy them
                own_indexes = {name: next(indexes) for name in planned.interfaces}
                hosts[planned.name] = Host(planned, namespace, own_indexes, cgroups)
            links = plan.links
            for host in hosts.values():
                own = [pair for pair in links if pair[0].host == host.name]
                ask(host, [requests.wire(_end(one, hosts), _end(other, hosts)) for one, other in own])
            is_quick = not any(host.plan.netem for host in hosts.values())
            # Silent hosts first: the links of the others then have carrier at once.
            for host in sorted(hosts.values(), key=lambda host: not host.plan.silent):
                ask(host, [*_links(host), *_addresses(host, is_quick=is_quick), *_routes(host)])
                if host.plan.sysctls:
                    host.namespace.sysctl(host.plan.sysctls)
            introduce(hosts)
            protect(hosts)
            for host in hosts.values():
                _wait_until_ready(host)
            yield cls(plan, hosts)


def _settings(host: parts.HostPlan) -> dict[str, str]:
    ipv6 = os.path.exists("/proc/sys/net/ipv6")  # noqa: PTH110 - pathlib is slow to import in a guest
    settings = dict(COMMON)
    if os.path.exists("/proc/sys/net/bridge"):  # noqa: PTH110
        settings |= {} if BRIDGE_NETFILTER in host.modules else UNFILTERED_BRIDGES
    if ipv6:
        settings |= SILENT_IPV6 if host.silent and not host.speaking else QUIET_IPV6
    if host.forwarding:
        settings |= FORWARDING | (FORWARDING_IPV6 if ipv6 else {})
    # Answers to many packets would end after six; a lab that sets a limit has it.
    if not any(name.startswith(_LIMITS_ICMP) for name in host.sysctls):
        settings |= UNLIMITED_ICMP
    if ipv6 and not any(name.startswith(_LIMITS_ICMPV6) for name in host.sysctls):
        settings |= UNLIMITED_ICMPV6
    return settings


def _end(one: parts.Interface, hosts: Mapping[str, Host]) -> WireEnd:
    host = hosts[one.host]
    return WireEnd(one.host, one.name, host.interfaces[one.name], one.mac, host.namespace.fd, one.mtu)


def _links(host: Host) -> Iterator[NetlinkRequest]:
    """Create the interfaces that are not wires, and set all interfaces up."""
    plan, indexes = host.plan, host.interfaces
    for name, of in plan.made.items():
        own = plan.interfaces[name]
        yield requests.made(of, name, indexes[name], own.mac, own.given_mtu, indexes)
    for name, of in plan.made.items():
        members = of.ports if isinstance(of, Bridge) else of.interfaces if isinstance(of, Vrf) else ()
        yield from (requests.port(indexes[port], indexes[name], port) for port in members)
        if isinstance(of, Bridge):
            for port, vlans in of.vlans.items():
                yield requests.passing(indexes[port], vlans, port, is_bridge=port == name)
            yield from (requests.station(one.mac, indexes[one.port], one.vlan) for one in of.stations)
    yield from (requests.up(index) for index in (LOOPBACK, *indexes.values()))
    yield from (requests.netem(indexes[name], said, name) for name, said in plan.netem.items())


def _addresses(host: Host, *, is_quick: bool) -> Iterator[NetlinkRequest]:
    """Addresses and neighbours of the interfaces that have addresses.

    With ``is_quick`` no wire of the lab has a delay.
    """
    plan, indexes = host.plan, host.interfaces
    resolving = {(one.interface, one.address.version): None for one in plan.neighbours if not one.known}
    for one in plan.interfaces.values():
        if one.name in plan.speaking:
            if (
                one.name not in plan.made and one.name not in plan.checksum_offload
            ):  # what others send leaves through one of these
                _checksum_in_software(host, one.name)
            yield from (requests.address(own, indexes[one.name]) for own in one.addresses)
            versions = {own.version: None for own in one.addresses if (one.name, own.version) not in resolving}
            yield from (requests.quick_resolution(indexes[one.name], version) for version in versions if is_quick)
    for neighbour in plan.neighbours:
        if neighbour.interface in plan.speaking and neighbour.known:
            yield requests.neighbour(neighbour, indexes[neighbour.interface])
    for name, version in resolving:
        yield requests.resolution(indexes[name], version, probes=requests.PROBES)
        one = plan.interfaces[name]
        if version == 6 and (own := link_local(one)) not in one.addresses:
            yield requests.address(own, indexes[name])


def renew_neighbours(host: Host) -> None:
    """Put new neighbour entries in place of those planned: a used one has kept the Ethernet header that it wrote."""
    plan, indexes = host.plan, host.interfaces
    known = [(one, indexes[one.interface]) for one in plan.neighbours if one.interface in plan.speaking and one.known]
    gone = [requests.forget_neighbour(one.address, index) for one, index in known]
    ask(host, [*gone, *(requests.neighbour(one, index) for one, index in known)])


def _routes(host: Host) -> Iterator[NetlinkRequest]:
    """Routes and routing rules."""
    plan = host.plan
    for one in () if plan.silent else plan.nexthops:
        yield nexthops.nexthop(one, 0 if one.group else host.interfaces[one.hops[0].interface])
    for route in plan.routes:
        if plan.routes_in_kernel(route):
            yield route_of(host, route)
    if not plan.silent:
        yield from map(requests.rule, plan.rules)


def route_of(host: Host, route: parts.Route, command: str = "add") -> NetlinkRequest:
    """What adds ``route`` on ``host``, or does what another ``command`` says."""
    if route.nexthop:
        return nexthops.route(route, command)
    return requests.route(route, tuple(host.interfaces[hop.interface] for hop in route.hops), command)


def _checksum_in_software(host: Host, interface: str) -> None:
    """Have the kernel write true checksums into what the host sends there.

    Else the bytes captured from a virtual wire carry only the pseudo header's sum.
    """
    value = array.array("I", [ETHTOOL_STXCSUM, 0])  # struct ethtool_value
    fcntl.ioctl(host.netlink, SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), value.buffer_info()[0]))


def link_local(interface: Interface) -> IPv6Interface:
    """The link-local address of an interface: the one given, else by its Ethernet address (RFC 4291 appendix A)."""
    for own in interface.addresses:
        if isinstance(own, IPv6Interface) and is_on_link_only(own.ip):
            return own
    octets = bytes.fromhex(interface.mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 0x02, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return IPv6Interface((b"\xfe\x80" + bytes(6) + identifier, 64))


def ask(host: Host, asked: Iterable[NetlinkRequest]) -> None:
    """Have the kernel of ``host`` do what is ``asked``.

    Raises :class:`~harness.errors.Unsupported` where it lacks a module for that, and
    :class:`~harness.errors.HarnessError` when it refuses.
    """
    try:
        host.netlink.ask(list(asked))
    except NetlinkError as refused:
        # qdisc_create() in net/sched/sch_api.c has no other ENOENT for a root qdisc than a kind that it does not know.
        if refused.errno == errno.EOPNOTSUPP or (refused.errno == errno.ENOENT and refused.what.startswith("netem ")):
            raise Unsupported(
                f"this kernel can't create {refused.what} of {host.name}: {refused.strerror}",
                remedy=f"it needs {MODULES.get(refused.what.partition(' ')[0], 'the modules veth and ipv6')}",
            ) from None
        raise HarnessError(f"the kernel refused {refused.what} of {host.name}: {refused.strerror}") from None


def _wait_until_ready(host: Host) -> None:
    # Others have no carrier to wait for: their state stays unknown.
    made = host.plan.made
    links = [name for name in host.interfaces if isinstance(made.get(name), Bridge | Vlan | Macvlan | None)]
    wait_for_links(host, links)
    wait_for_groups(host)


def wait_for_links(host: Host, names: Iterable[str]) -> None:
    """Wait until the interfaces ``names`` of ``host`` pass packets."""
    expected = [host.interfaces[name] for name in names]

    def came_up() -> bool:
        for index in host.netlink.links_up(expected):
            expected.remove(index)
        return not expected

    wait_until(came_up, READY_S, f"the links of {host.name} to come up")


def wait_for_groups(host: Host) -> None:
    """Wait until the kernel of ``host`` has joined and reported its multicast groups."""
    if host.plan.speaking:
        host.namespace.call(_wait_for_reports, host)


def _wait_for_reports(host: Host) -> None:
    """Wait until the multicast groups of all addresses are joined, which a work queue does, and are reported."""
    expected = set(_groups(host.plan))
    unreported: Counter[tuple[str, str]] = Counter()

    def joined() -> bool:
        memberships = dict(_memberships())
        unreported.update(place for place in expected if memberships.get(place, 0) & MAF_LOADED)
        expected.difference_update(
            place
            for place, flags in memberships.items()
            if flags & MAF_LAST_REPORTER or unreported[place] >= SUPPRESSED
        )
        return not expected

    with suppress(BrokenMeasurement):  # what the kernel does not join it does not report
        wait_until(joined, JOINED_S, "multicast groups to be joined")
    wait_until(
        lambda: not any(flags & MAF_TIMER_RUNNING for _, flags in _memberships()),
        READY_S,
        f"the multicast reports of {host.name} to be sent",
    )


def _groups(plan: parts.HostPlan) -> Iterator[tuple[str, str]]:
    """Interface and address of the solicited-node multicast groups that the host will join.

    That is for each IPv6 address (addrconf_join_solict in net/ipv6/addrconf.c), and on a router for the subnet-router
    anycast address of each prefix (addrconf_join_anycast).
    """
    if any("ipv6" in name for name in plan.sysctls):
        return  # they may disable what is expected here
    for one in plan.interfaces.values():
        if one.name in plan.speaking - plan.down and isinstance(plan.made.get(one.name), Bridge | None):
            for own in one.addresses:
                if isinstance(own, IPv6Interface):
                    yield one.name, solicited(own.ip).packed.hex()
                    if plan.forwarding and own.network.prefixlen < 127:
                        yield one.name, solicited(own.network.network_address).packed.hex()


def _memberships() -> Iterator[tuple[tuple[str, str], int]]:
    """The multicast groups of this thread's namespace with their flags (net/ipv6/mcast.c, igmp6_mc_seq_show)."""
    try:
        descriptor = os.open("/proc/thread-self/net/igmp6", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a kernel without IPv6
    with os.fdopen(descriptor) as groups:
        for group in groups:
            _, interface, address, _, flags, _ = group.split()
            yield (interface, address), int(flags, 16)
