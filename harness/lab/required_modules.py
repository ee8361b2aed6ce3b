"""What makes the kernel load modules when a lab is built."""

from __future__ import annotations

from collections.abc import Iterator

from harness.linux.modules import Need
from harness.topology import sysctls
from harness.topology.network import Network
from harness.topology.parts import Bridge, Dummy, Macvlan, Made, Tunnel, Vlan, Vrf, Vxlan, Wireguard

BRIDGE_NETFILTER = "br_netfilter"

KINDS = {
    Bridge: "bridge",
    Vlan: "vlan",
    Macvlan: "macvlan",
    Vxlan: "vxlan",
    Wireguard: "wireguard",
    Vrf: "vrf",
    Dummy: "dummy",
}
"""Kinds of interfaces as rtnetlink names them."""


def needs(network: Network) -> Iterator[Need]:
    """The modules that the hosts' interfaces and settings make the kernel request."""
    yield Need("rtnl-link-veth", "a link of the lab")
    yield from asked(network)
    for host in network.hosts.values():
        for name, made in host.made.items():
            yield Need(f"rtnl-link-{_kind(made)}", f"the {_kind(made)} {name} of {host.name}")
        for one in host.ipsec:
            yield Need(f"esp{one.local.version}", f"IPsec of {host.name}")
        if host.netem:
            yield Need("sch_netem", f"netem of {host.name}")
        for setting, value in host.sysctls.items():
            # tcp_set_congestion_control() in net/ipv4/tcp_cong.c
            if setting.replace("/", ".") == "net.ipv4.tcp_congestion_control":
                yield Need(f"tcp_{value}", f"{setting} = {value} of {host.name}")


def asked(network: Network) -> Iterator[Need]:
    """The modules that the hosts of the lab name, and br_netfilter where its settings are given."""
    for host in network.hosts.values():
        for module in host.modules:
            yield Need(module, f"modules: {module} of {host.name}")
        for setting in host.sysctls:
            if sysctls.path(setting).startswith("net/bridge/"):  # there are none without it
                yield Need(BRIDGE_NETFILTER, f"{setting} of {host.name}")


def _kind(made: Made) -> str:
    return made.kind if isinstance(made, Tunnel) else KINDS[type(made)]
