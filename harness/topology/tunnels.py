"""Tunnels of a lab, from their description to what the kernel gets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_interface

from harness.model.problem import Problem, unknown
from harness.topology import routing
from harness.topology.interfaces import TunnelSpec, VxlanSpec, WireguardPeerSpec, WireguardSpec
from harness.topology.parts import Address, End, Subnet, Tunnel, Vxlan, Wireguard, WireguardPeer
from harness.topology.spec import HostSpec, LabSpec


def vxlan(said: VxlanSpec) -> Vxlan:
    """A VXLAN tunnel as planned."""
    return Vxlan(said.id, ip_address(said.local), ip_address(said.remote), said.port)


def tunnel(said: TunnelSpec) -> Tunnel:
    """A tunnel for IP packets as planned."""
    return Tunnel(said.kind, ip_address(said.local), ip_address(said.remote), said.key)


def wireguard(spec: LabSpec, name: str, said: WireguardSpec) -> Wireguard:
    """A WireGuard interface of the host ``name`` as planned."""
    peers = []
    for host, peer in said.peers.items():
        end = End(host, wireguard_of(spec, host, name))
        port = peer.port or spec.hosts[host].wireguards[end.interface].port
        endpoint = (ip_address(peer.endpoint), port) if peer.endpoint else None
        peers.append(WireguardPeer(end, tuple(one for text in peer.allowed for one in routing.subnets(text)), endpoint))
    return Wireguard(said.port, tuple(peers), said.mark or 0)


def wireguard_of(spec: LabSpec, host: str, peer: str) -> str:
    """The WireGuard interface of ``host`` that has ``peer`` among its peers."""
    return next(name for name, one in spec.hosts[host].wireguards.items() if peer in one.peers)


def check_tunnels(spec: LabSpec) -> None:
    """Raise :class:`~harness.model.problem.Problem`, with keys below the lab, where tunnels do not fit the lab."""
    owners = _addresses(spec)
    for name, host in spec.hosts.items():
        _check_ends(name, host, owners)
        _check_wireguards(spec, name, owners)


def _addresses(spec: LabSpec) -> dict[Address, End]:
    """The owner of each address; invalid ones are refused elsewhere."""
    found = {}
    for name, host in spec.hosts.items():
        for interface, texts in host.interfaces.items():
            for text in texts:
                with suppress(ValueError):
                    found[ip_interface(text).ip] = End(name, interface)
    return found


def _check_ends(name: str, host: HostSpec, owners: Mapping[Address, End]) -> None:
    taken: dict[tuple[object, ...], str] = {}
    every: list[tuple[str, str, VxlanSpec | TunnelSpec]] = [
        *(("vxlans", tunnel, vxlan) for tunnel, vxlan in host.vxlans.items()),
        *(("tunnels", tunnel, inner) for tunnel, inner in host.tunnels.items()),
    ]
    for key_of, tunnel, said in every:
        keys = ("hosts", name, key_of, tunnel)
        ends: dict[str, Address] = {}
        for key in ("local", "remote"):
            try:
                ends[key] = ip_address(getattr(said, key))
            except ValueError:
                raise Problem(f"'{getattr(said, key)}' is not an address", *keys, key) from None
        if ends["local"].version != ends["remote"].version:
            raise Problem("is of another IP version than local", *keys, "remote")
        local, remote = owners.get(ends["local"]), owners.get(ends["remote"])
        if local is None or local.host != name:
            raise Problem(f"{said.local} is not an address of {name}", *keys, "local")
        if local.interface in host.vxlans or local.interface in host.tunnels:
            raise Problem(f"{said.local} is inside the tunnel {local.interface}", *keys, "local")
        if remote is None:
            raise Problem(f"no host of the lab has {said.remote}", *keys, "remote", remedy="give it to one")
        if remote.host == name:
            raise Problem(f"{said.remote} is {name}'s own address", *keys, "remote")
        if isinstance(said, VxlanSpec):
            if (said.id, said.port) in taken:
                raise Problem(f"{taken[said.id, said.port]} has network identifier {said.id} already", *keys, "id")
            taken[said.id, said.port] = tunnel
            continue
        if ends["local"].version == 6:
            raise Problem(f"a tunnel of kind {said.kind} has ends of IPv4", *keys, "local")
        if said.key is not None and said.kind != "gre":
            raise Problem(f"a tunnel of kind {said.kind} has no key", *keys, "key", about_key=True)
        if (same := (said.kind, said.key, ends["remote"])) in taken:
            raise Problem(f"{taken[same]} is such a tunnel to {said.remote} already", *keys, "remote")
        taken[same] = tunnel


def _check_wireguards(spec: LabSpec, name: str, owners: Mapping[Address, End]) -> None:
    ports: dict[int, str] = {}
    names: dict[str, str] = {}
    for interface, said in spec.hosts[name].wireguards.items():
        keys = ("hosts", name, "wireguards", interface)
        if said.port in ports:
            raise Problem(f"{ports[said.port]} listens on port {said.port} already", *keys, "port")
        ports[said.port] = interface
        taken: dict[Subnet, str] = {}
        for host, peer in said.peers.items():
            at = (*keys, "peers", host)
            _check_peer(spec, name, host, *at)
            if host in names:
                raise Problem(f"{host} is a peer of {names[host]} already", *at, about_key=True)
            names[host] = interface
            _check_endpoint(spec, name, host, peer, owners, *at)
            _check_allowed(host, peer, taken, *at, "allowed")


def _check_peer(spec: LabSpec, name: str, host: str, *keys: str | int) -> None:
    """Whether ``host`` has ``name`` for a peer, too."""
    if host == name:
        raise Problem(f"{name} cannot be a peer of itself", *keys, about_key=True)
    if host not in spec.hosts:
        problem = unknown(host, spec.hosts, "host of the lab", *keys)
        raise Problem(problem.sentence, *keys, remedy=problem.remedy, about_key=True)
    if not any(name in one.peers for one in spec.hosts[host].wireguards.values()):
        remedy = f"add it to wireguards: of {host}"
        raise Problem(f"{host} has no WireGuard interface with the peer {name}", *keys, remedy=remedy, about_key=True)


def _check_endpoint(
    spec: LabSpec, name: str, host: str, peer: WireguardPeerSpec, owners: Mapping[Address, End], *keys: str | int
) -> None:
    """Whether one of two peers can call the other, at an address of the lab, which may be that of a port forwarding."""
    if peer.endpoint is None:
        if peer.port is not None:
            raise Problem("has no endpoint to call", *keys, "port", remedy="add endpoint:", about_key=True)
        other = spec.hosts[host].wireguards[wireguard_of(spec, host, name)].peers[name]
        if other.endpoint is None:
            raise Problem(f"neither {name} nor {host} can call the other", *keys, remedy="add endpoint: to one of them")
        return
    try:
        owner = owners.get(ip_address(peer.endpoint))
    except ValueError:
        raise Problem(f"'{peer.endpoint}' is not an address", *keys, "endpoint") from None
    if owner is None:
        raise Problem(f"no host of the lab has {peer.endpoint}", *keys, "endpoint", remedy="give it to one")
    if owner.host == name:
        raise Problem(f"{peer.endpoint} is {name}'s own address", *keys, "endpoint")


def _check_allowed(host: str, peer: WireguardPeerSpec, taken: dict[Subnet, str], *keys: str | int) -> None:
    for index, text in enumerate(peer.allowed):
        for subnet in routing.subnets(text, *keys, index):
            if subnet in taken:
                raise Problem(f"{subnet} is allowed to {taken[subnet]} already", *keys, index)
            taken[subnet] = host
