"""The labs that come with the language, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec import structs

from harness.model.problem import Problem, unknown
from harness.topology.spec import HostSpec, LabSpec

# Addresses are those set aside for documentation (RFC 5737, RFC 3849), and RFC 1918 behind NAT. The
# client stands for the internet: it is the gateway for every address that is nowhere else.
_Said = TypeVar("_Said")

LABS: Mapping[str, LabSpec] = {
    # client ── wan0 device lan0 ── server
    "router": LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["203.0.113.5/24", "2001:db8:113::5/64"]}, gateway="device"),
            "device": HostSpec(
                interfaces={
                    "wan0": ["203.0.113.1/24", "2001:db8:113::1/64"],
                    "lan0": ["10.0.2.1/24", "2001:db8:2::1/64"],
                },
                gateway="client",
                forwarding=True,
            ),
            "server": HostSpec(interfaces={"eth0": ["10.0.2.2/24", "2001:db8:2::2/64"]}, gateway="device"),
        },
        links=[["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]],
    ),
    # client ── eth0 device
    "host": LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24", "2001:db8:192::5/64"]}, gateway="device"),
            "device": HostSpec(interfaces={"eth0": ["192.0.2.10/24", "2001:db8:192::10/64"]}, gateway="client"),
        },
        links=[["client:eth0", "device:eth0"]],
    ),
    # client ── wan0 device, pc ── lan0 device, server ── dmz0 device
    "nat-gateway": LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["203.0.113.5/24", "2001:db8:113::5/64"]}, gateway="device"),
            "device": HostSpec(
                interfaces={
                    "wan0": ["203.0.113.1/24", "2001:db8:113::1/64"],
                    "lan0": ["192.168.1.1/24", "2001:db8:168::1/64"],
                    "dmz0": ["10.0.2.1/24", "2001:db8:2::1/64"],
                },
                gateway="client",
                forwarding=True,
            ),
            "pc": HostSpec(interfaces={"eth0": ["192.168.1.10/24", "2001:db8:168::10/64"]}, gateway="device"),
            "server": HostSpec(interfaces={"eth0": ["10.0.2.2/24", "2001:db8:2::2/64"]}, gateway="device"),
        },
        links=[["client:eth0", "device:wan0"], ["device:lan0", "pc:eth0"], ["device:dmz0", "server:eth0"]],
    ),
    # client ── port0 device port1 ── server; the ports are bridged as br0
    "bridge": LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24", "2001:db8:192::5/64"]}, gateway="device"),
            "device": HostSpec(
                interfaces={"port0": [], "port1": [], "br0": ["192.0.2.10/24", "2001:db8:192::10/64"]},
                bridges={"br0": ["port0", "port1"]},
                gateway="client",
            ),
            "server": HostSpec(interfaces={"eth0": ["192.0.2.6/24", "2001:db8:192::6/64"]}, gateway="device"),
        },
        links=[["client:eth0", "device:port0"], ["device:port1", "server:eth0"]],
    ),
}


def rename(spec: LabSpec, names: Mapping[str, str]) -> LabSpec:
    """``spec`` with new names for interfaces of the device under test.

    Raises :class:`~harness.model.problem.Problem`, with keys below ``interfaces``.
    """
    device = spec.hosts.get(spec.device)
    if device is None or not names:
        return spec
    _check_names(device, spec.device, names)

    def name(end: str) -> str:
        host, _, interface = end.partition(":")
        return f"{host}:{names.get(interface, interface)}" if host == spec.device else end

    def called(old: str) -> str:
        return names.get(old, old)

    def maybe(old: str | None) -> str | None:
        return None if old is None else called(old)

    def keyed(of: Mapping[str, _Said]) -> dict[str, _Said]:
        return {called(one): said for one, said in of.items()}

    renamed = structs.replace(
        device,
        interfaces=keyed(device.interfaces),
        bridges={called(one): [called(port) for port in ports] for one, ports in device.bridges.items()},
        vlans={called(one): structs.replace(vlan, link=called(vlan.link)) for one, vlan in device.vlans.items()},
        macvlans={called(one): structs.replace(of, link=called(of.link)) for one, of in device.macvlans.items()},
        ports=keyed(device.ports),
        vxlans=keyed(device.vxlans),
        vrfs={
            called(one): structs.replace(vrf, interfaces=[called(inside) for inside in vrf.interfaces])
            for one, vrf in device.vrfs.items()
        },
        tunnels=keyed(device.tunnels),
        wireguards=keyed(device.wireguards),
        netem=keyed(device.netem),
        dummies=[called(one) for one in device.dummies],
        checksum_offload=[called(one) for one in device.checksum_offload],
        mtu=keyed(device.mtu),
        routes=[structs.replace(route, dev=maybe(route.dev)) for route in device.routes],
        rules=[structs.replace(rule, iif=maybe(rule.iif), oif=maybe(rule.oif)) for rule in device.rules],
    )
    return structs.replace(
        spec, hosts={**spec.hosts, spec.device: renamed}, links=[[name(end) for end in link] for link in spec.links]
    )


def _check_names(device: HostSpec, host: str, names: Mapping[str, str]) -> None:
    """Refuse to rename an interface that ``host`` does not have, or two to one name."""
    for old, new in names.items():
        if old not in device.interfaces:
            raise unknown(old, device.interfaces, f"interface of {host}", old)
        if new in device.interfaces and new not in names:
            raise Problem(f"{host} has an interface {new} already", old)
        if list(names.values()).count(new) > 1:
            raise Problem(f"two interfaces cannot both be {new}", old)
