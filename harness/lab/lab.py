"""A lab: the hosts and links of a :class:`~harness.topology.network.Network`, in the kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv6Interface
from typing import Final

from harness.errors import HarnessError, Unsupported
from harness.lab import rtnl
from harness.lab.namespace import Namespace
from harness.linux.netlink import Netlink, NetlinkError, Request
from harness.topology import network, parts
from harness.topology.parts import Bridge, Vlan, Vrf
from harness.wait import wait_until

READY_S: Final = 10.0
"""Seconds within which all links must be up."""

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
    # A host must report its multicast groups. By MLD version 1 with the shortest interval it is
    # done with that before the first packet of a scenario, and `_reported` sees it.
    "net.ipv6.conf.default.force_mld_version": "1",
    "net.ipv6.conf.default.mldv1_unsolicited_report_interval": "1",
}
SILENT_IPV6: Final = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
UNFILTERED_BRIDGES: Final = {
    # With br_netfilter, a module that anything on the machine may have loaded or that is built in, a new namespace
    # has its bridged IP filtered as if it were routed (br_netfilter_sysctl_default() in
    # net/bridge/br_netfilter_hooks.c). A ruleset that needs the module has it so, see harness.ruleset.hosts.
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
"""Of the lab's interfaces. Tunnel modules that are loaded (gre, ipip, sit, …) give every new namespace
interfaces of their own, from 2 on (Documentation/admin-guide/sysctl/net.rst, fb_tunnels_only_for_init_net)."""

MODULES: Final = {
    "bridge": "the module bridge, and CONFIG_BRIDGE_VLAN_FILTERING where ports: says VLANs",
    "vlan": "the module 8021q",
    "vxlan": "the module vxlan",
    "vrf": "the module vrf",
    "dummy": "the module dummy",
}
"""Of the kernel, for a kind of interface."""

MAF_TIMER_RUNNING: Final = 0x01
"""A group's report is still to be sent (include/net/if_inet6.h)."""


class Host:
    """A host of the lab: a namespace with interfaces."""

    def __init__(self, plan: parts.HostPlan, namespace: Namespace, interfaces: Mapping[str, int]) -> None:
        self.plan = plan
        self.name = plan.name
        self.namespace = namespace
        self.inum = namespace.inum
        """Number of the namespace, ``net->ns.inum`` in the kernel."""
        self.interfaces = interfaces
        """Index by name, without ``lo``; indexes are unique in the lab."""
        self._names = {rtnl.LOOPBACK: "lo"} | {index: name for name, index in interfaces.items()}

    def interface(self, index: int) -> str:
        """Name of the interface with ``index``, which is ``skb->dev->ifindex``; "" when there is none."""
        return self._names.get(index, "")


class Lab:
    """A built lab.

    Hosts that neither hold the ruleset nor forward are silent: they have interfaces but no
    addresses, so their kernels answer nothing.
    """

    def __init__(self, plan: network.Network, hosts: Mapping[str, Host]) -> None:
        self.network = plan
        self.hosts = hosts
        self.device = hosts[plan.device]
        """The host under test."""
        self.by_inum: Mapping[int, Host] = {host.inum: host for host in hosts.values()}
        """The hosts by number of their namespace."""

    @classmethod
    @contextmanager
    def build(cls, plan: network.Network) -> Iterator[Lab]:
        """Build what ``plan`` says, quiet and with all links up; nothing of it is left after the ``with``.

        Raises :class:`~harness.errors.Unsupported` when this machine can't do it, and
        :class:`~harness.errors.HarnessError` when the kernel refuses a part of the plan.
        """
        with ExitStack() as stack:
            indexes = iter(range(FIRST_INDEX, 1 << 31))
            hosts = {}
            for planned in plan.hosts.values():
                namespace = stack.enter_context(Namespace(planned.name))
                namespace.sysctl(_settings(planned))  # before the links, which take them over
                hosts[planned.name] = Host(planned, namespace, {name: next(indexes) for name in planned.interfaces})
            for one, other in plan.links:
                wire = rtnl.veth(_end(one, hosts), _end(other, hosts))
                hosts[one.host].namespace.call(_ask, one.host, [wire])
            # Silent hosts first: the others' links then have their carrier at once.
            for host in sorted(hosts.values(), key=lambda host: not host.plan.silent):
                host.namespace.call(_settle, host)
                host.namespace.sysctl(host.plan.sysctls)
            for host in hosts.values():
                host.namespace.call(_wait_until_ready, host)
            yield cls(plan, hosts)


def _settings(host: parts.HostPlan) -> dict[str, str]:
    ipv6 = os.path.exists("/proc/sys/net/ipv6")  # noqa: PTH110 - pathlib is slow to import in a guest
    settings = dict(COMMON)
    if os.path.exists("/proc/sys/net/bridge"):  # noqa: PTH110
        settings |= UNFILTERED_BRIDGES
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


def _end(one: parts.Interface, hosts: Mapping[str, Host]) -> rtnl.VethEnd:
    host = hosts[one.host]
    return rtnl.VethEnd(one.host, one.name, host.interfaces[one.name], one.mac, host.namespace.fd, one.mtu)


def _settle(host: Host) -> None:
    """Make what is no wire and switch all on; interfaces that speak get addresses, routes and neighbours."""
    plan, indexes = host.plan, host.interfaces
    requests = []
    for name, of in plan.made.items():
        own = plan.interfaces[name]
        requests.append(rtnl.made(of, name, indexes[name], own.mac, own.given_mtu, indexes))
    for name, of in plan.made.items():
        masters = of.ports if isinstance(of, Bridge) else of.interfaces if isinstance(of, Vrf) else ()
        requests += [rtnl.port(indexes[port], indexes[name], port) for port in masters]
        if isinstance(of, Bridge):
            for port, vlans in of.vlans.items():
                requests.append(rtnl.passing(indexes[port], vlans, port, is_bridge=port == name))
            requests += [rtnl.station(one.mac, indexes[one.port], one.vlan) for one in of.stations]
    requests += [rtnl.up(index) for index in (rtnl.LOOPBACK, *indexes.values())]
    for one in plan.interfaces.values():
        if one.name in plan.speaking and one.name not in plan.made:  # what others send leaves by one of these
            rtnl.checksum_in_software(one.name)
        requests += [rtnl.address(own, indexes[one.name]) for own in one.addresses if one.name in plan.speaking]
    requests += [
        rtnl.neighbour(one, indexes[one.interface])
        for one in plan.neighbours
        if one.interface in plan.speaking and one.known
    ]
    for name, version in {(one.interface, one.address.version): None for one in plan.neighbours if not one.known}:
        requests.append(rtnl.resolution(indexes[name], version, probes=rtnl.PROBES))
        if version == 6:
            requests.append(rtnl.address(link_local(plan.interfaces[name].mac), indexes[name]))
    requests += [
        rtnl.route(one, indexes.get(one.interface, 0))
        for one in plan.routes
        if not plan.silent or one.interface in plan.speaking
    ]
    if not plan.silent:
        requests += [rtnl.rule(one) for one in plan.rules]
    _ask(host.name, requests)


def link_local(mac: str) -> IPv6Interface:
    """The address that an interface with the Ethernet address ``mac`` has on its link (RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 0x02, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return IPv6Interface((b"\xfe\x80" + bytes(6) + identifier, 64))


def _ask(host: str, requests: list[Request]) -> None:
    try:
        with Netlink(rtnl.NETLINK_ROUTE) as link:
            link.ask(requests)
    except NetlinkError as refused:
        if refused.errno == errno.EOPNOTSUPP:
            raise Unsupported(
                f"this kernel can't make {refused.what} of {host}: {refused.strerror}",
                remedy=f"it needs {MODULES.get(refused.what.partition(' ')[0], 'the modules veth and ipv6')}",
            ) from None
        raise HarnessError(f"the kernel refused {refused.what} of {host}: {refused.strerror}") from None


def _wait_until_ready(host: Host) -> None:
    # Others have no carrier to wait for: their state stays unknown.
    made = host.plan.made
    expected = {index for name, index in host.interfaces.items() if isinstance(made.get(name), Bridge | Vlan | None)}
    with Netlink(rtnl.NETLINK_ROUTE) as link:
        wait_until(lambda: expected <= set(rtnl.links_up(link)), READY_S, f"the links of {host.name} to come up")
    wait_until(_reported, READY_S, f"the multicast reports of {host.name} to be sent")


def _reported() -> bool:
    """No interface has a multicast group still to report (net/ipv6/mcast.c, igmp6_mc_seq_show)."""
    try:
        descriptor = os.open("/proc/thread-self/net/igmp6", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # a kernel without IPv6
    with os.fdopen(descriptor) as groups:
        return not any(int(group.split()[4], 16) & MAF_TIMER_RUNNING for group in groups)
