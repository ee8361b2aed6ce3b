"""The hosts around a machine: one at each of its links, and others behind those that its routes lead to.

::

    device:wan0 ── near-wan0 ── internet        a default route by a router at wan0
    device:lan0 ── near-lan0                    nothing is routed there: the hosts of the link itself
    device:trunk0 ── switch-trunk0 ─┬ near-trunk0-10
                                    └ near-trunk0-20
    near-wan0 ── peer-gre1                      the other end of a tunnel
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from itertools import chain
from typing import Any, Final

from harness.topology.parts import Subnet
from harness.twin.addresses import Addresses, within
from harness.twin.device import Device
from harness.twin.machine import Hop, Machine
from harness.twin.segments import Segment, Tags, segments

ROUTES_AT_MOST: Final = 64
"""Routes of one of these hosts."""
_DEFAULT: Final = {4: "0.0.0.0/0", 6: "::/0"}


class Surroundings:
    """Places hosts around ``device``, whose routes get their next hops."""

    def __init__(self, machine: Machine, device: Device) -> None:
        self._device = device
        self._addresses = Addresses(machine, device)
        self._peers = {one: [peer for peer in machine.peers if peer.interface == one] for one in machine.links}
        self.hosts: dict[str, dict[str, Any]] = {}
        self.links: list[list[str]] = []
        self._near: dict[str, tuple[str, str]] = {}
        """By interface of the machine, the host at its link and that host's interface."""

    def place(self) -> None:
        """Place all hosts, and give the routes of the machine their next hops."""
        at = {wire: list(segments(self._device.host, wire)) for wire in self._device.wires}
        wires: dict[str, list[str]] = {}
        for wire, found in at.items():
            for one in found:
                wires.setdefault(one.interface, []).append(wire)
        for interface in wires:
            self._stand_in(interface)
        for wire, found in at.items():
            self._at(wire, found, wires)
        for key in ("tunnels", "vxlans"):
            for name, said in list(self._device.host[key].items()):
                self._end(key, name, said)
        for name in list(self._device.host["wireguards"]):
            self._wireguard(name)
        self._device.host["routes"] = list(self._routed(self._device.host["routes"]))
        self.links += [[f"device:{one}", f"device:{other}"] for one, other in self._device.pairs]

    @property
    def anycast(self) -> list[str]:
        """The addresses that several hosts have, as in two VRFs."""
        return [str(one) for one, owners in self._addresses.owners.items() if len(owners) > 1]

    def _stand_in(self, interface: str) -> None:
        """Give an interface of the machine an address where routes need one and it has none."""
        host = self._device.host["interfaces"]
        routes = [route for route, hop in self._device.routes if hop.dev == interface]
        if interface not in host or host[interface] or not routes:
            return
        for version in sorted({ip_network(route.dst).version for route in routes}):
            address = self._addresses.transit(version)[0]
            host[interface].append(str(address))
            self._addresses.own.add(address.ip)
            self._device.notes.append(f"{interface} has {address}, since routes lead there and it has no address")

    # -- hosts at a link --------------------------------------------------------------------------

    def _at(self, wire: str, found: Sequence[Segment], wires: dict[str, list[str]]) -> None:
        """The hosts at a wire."""
        by_tags: dict[Tags, list[Segment]] = {}
        for one in found:
            by_tags.setdefault(one.tags, []).append(one)
        if all(len(tags) < 2 and {protocol for _, protocol in tags} <= {"802.1q"} for tags in by_tags) and any(by_tags):
            self._switch(wire, by_tags, wires)
            return
        name = self._new(f"near-{wire}")
        self.hosts[name] = {"interfaces": {"eth0": []}}
        for tags, several in by_tags.items():
            own = self._stacked(name, tags)
            for one in several:
                self._host(name, wire, own, one, wires)
        self.links.append([f"device:{wire}", f"{name}:eth0"])

    def _switch(self, wire: str, by_tags: dict[Tags, list[Segment]], wires: dict[str, list[str]]) -> None:
        """A switch with a host in each VLAN."""
        used = {tags[0][0] for tags in by_tags if tags}
        native = next(one for one in range(4094, 0, -1) if one not in used)
        vlans = {tags[0][0] if tags else native: several for tags, several in by_tags.items()}
        switch = self._new(f"switch-{wire}")
        up = {"tagged": sorted(used)} | ({"untagged": native} if () in by_tags else {})
        self.hosts[switch] = {
            "interfaces": {"up": [], **{f"p{vlan}": [] for vlan in vlans}, "br0": []},
            "bridges": {"br0": ["up", *(f"p{vlan}" for vlan in vlans)]},
            "ports": {"up": up, **{f"p{vlan}": {"untagged": vlan} for vlan in vlans}},
        }
        self.links.append([f"device:{wire}", f"{switch}:up"])
        for vlan, several in vlans.items():
            name = self._new(f"near-{wire}-{vlan}" if vlan in used else f"near-{wire}")
            for one in several:
                self._host(name, wire, "eth0", one, wires)
            self.links.append([f"{switch}:p{vlan}", f"{name}:eth0"])

    def _stacked(self, name: str, tags: Tags) -> str:
        """The interface of a host for frames with ``tags``."""
        interface = "eth0"
        host = self.hosts[name]
        for vlan, protocol in tags:
            above = f"{interface}.{vlan}"
            host["interfaces"].setdefault(above, [])
            kind = {"protocol": protocol} if protocol != "802.1q" else {}
            host.setdefault("vlans", {})[above] = {"link": interface, "id": vlan, **kind}
            interface = above
        return interface

    def _host(self, name: str, wire: str, own: str, segment: Segment, wires: dict[str, list[str]]) -> None:
        """Give a host, at its interface ``own``, the addresses of the machine's neighbours in a segment."""
        interface, addresses = segment.interface, self._addresses
        is_first = interface not in self._near
        self._near.setdefault(interface, (name, own))
        host = self.hosts.setdefault(name, {"interfaces": {}})
        if mtu := self._device.host["mtu"].get(wire):
            host.setdefault("mtu", {})["eth0"] = mtu
        at = wires[interface]
        texts = [one for one, port in addresses.neighbours(interface) if (port if port in at else at[0]) == wire]
        for network in addresses.networks(interface):
            if not any(within(ip_interface(one).ip, network) for one in texts):
                texts += filter(None, [addresses.free(network, texts)])
        if is_first:
            texts += addresses.reached(interface)
        # The first address is the host's own for most purposes, which a link-local one cannot be.
        texts = sorted(dict.fromkeys(texts), key=lambda text: ip_interface(text).is_link_local)
        addresses.give(name, texts)
        host["interfaces"].setdefault(own, []).extend(texts)
        self._back(name, own, interface)
        if is_first and (networks := addresses.behind(interface)):
            is_internet = any(not one.prefixlen for one in networks)
            far = self._new("internet" if is_internet else name.replace("near", "far", 1))
            routed = None if is_internet or len(networks) > ROUTES_AT_MOST else networks
            self._behind(name, own, far, addresses.of_hosts(networks), interface, routed)

    def _facing(self, interface: str) -> dict[int, str]:
        """The address of the machine at an interface that hosts there send to, by IP version."""
        found: dict[int, str] = {}
        for text in self._device.host["interfaces"].get(interface, []):
            found.setdefault(ip_interface(text).version, text.partition("/")[0])
        return found

    def _back(self, name: str, own: str, interface: str) -> None:
        """Give a host its default routes by the machine."""
        host = self.hosts[name]
        networks = self._addresses.networks(interface)
        facing = self._facing(interface)
        if not host["interfaces"][own] or "gateway" in host or "routes" in host:
            return
        if all(any(within(ip_address(text), one) for one in networks) for text in facing.values()):
            if facing:
                host["gateway"] = "device"
            return
        host["routes"] = self._to_machine(interface, own)

    def _to_machine(self, interface: str, own: str) -> list[dict[str, Any]]:
        """Default routes by the machine."""
        facing = self._facing(interface)
        return [{"to": _DEFAULT[version], "via": text, "dev": own} for version, text in facing.items()]

    # -- hosts behind those -----------------------------------------------------------------------

    def _behind(
        self, near: str, own: str, name: str, texts: Sequence[str], interface: str, networks: Sequence[Subnet] | None
    ) -> None:
        """A host ``name`` behind ``near``, which becomes a router to ``networks``; None is all that is unknown.

        What a router does not know goes to the machine, unless it is the way to all that is unknown.
        """
        if not texts:
            return
        router = self.hosts[near]
        port = f"far{sum(one.startswith('far') for one in router['interfaces'])}"
        ends = [self._addresses.transit(version) for version in (4, 6)]
        router["interfaces"][port] = [str(one) for one, _ in ends]
        self.hosts[name] = {
            "interfaces": {"eth0": [*texts, *(str(far) for _, far in ends)]},
            "gateway": near,
        }
        self._addresses.give(name, texts)
        if not router.get("forwarding"):
            router["forwarding"] = True
            router.pop("gateway", None)
            router["routes"] = [
                *self._to_all_others(interface, own),
                *([] if networks is None else self._to_machine(interface, own)),
            ]
        vias = {far.version: str(far.ip) for _, far in ends}
        to = [ip_network(_DEFAULT[version]) for version in vias] if networks is None else networks
        router["routes"] += [{"to": str(one), "via": vias[one.version]} for one in dict.fromkeys(to)]
        self.links.append([f"{near}:{port}", f"{name}:eth0"])

    def _to_all_others(self, interface: str, own: str) -> list[dict[str, Any]]:
        """Routes by the machine to all that is at its other links."""
        facing = self._facing(interface)
        here = [*self._device.networks(interface), *self._addresses.behind(interface)]
        here += [ip_network(route.dst) for route, _ in self._addresses.routes(interface, by_router=False)]
        networks = [one for name in self._device.host["interfaces"] for one in self._device.networks(name)]
        networks += [ip_network(route.dst) for route, hop in self._device.routes if hop.dev != interface]
        alone = [one for one in self._device.networks(interface) if one.num_addresses == 1]
        kept = [one for one in dict.fromkeys(networks) if one.prefixlen and one.version in facing]
        return [
            {"to": str(one), "via": facing[one.version], "dev": own} for one in kept if one not in here or one in alone
        ][:ROUTES_AT_MOST]

    # -- tunnels ----------------------------------------------------------------------------------

    def _end(self, key: str, name: str, said: dict[str, Any]) -> None:
        """The host at the other end of a tunnel, with the tunnel."""
        owner = self._owner(said["remote"], f"peer-{name}")
        if not owner:
            del self._device.host[key][name]
            self._device.host["dummies"].append(name)
            self._device.notes.append(f"the tunnel {name} is a dummy: no route leads to {said['remote']}")
            return
        texts = self._inner(name)
        host = self._with_inner(owner, name, texts)
        host.setdefault(key, {})[name] = said | {"local": said["remote"], "remote": said["local"]}
        facing = self._facing(name)
        via = {} if key == "tunnels" else facing
        self._routes_inside(host, owner, name, via)

    def _inner(self, name: str) -> list[str]:
        """The addresses in a tunnel of the host at its other end."""
        texts = [one for one, _ in self._addresses.neighbours(name)]
        for network in self._addresses.networks(name):
            if not any(within(ip_interface(one).ip, network) for one in texts):
                texts += filter(None, [self._addresses.free(network, texts)])
        texts += self._addresses.reached(name)
        return list(dict.fromkeys([*texts, *self._addresses.of_hosts(self._addresses.behind(name))]))

    def _with_inner(self, owner: str, name: str, texts: Sequence[str]) -> dict[str, Any]:
        """The host ``owner`` with an interface called as the machine's, which comes first: packets start there."""
        host = self.hosts[owner]
        host["interfaces"] = {name: list(texts), **host["interfaces"]}
        self._addresses.give(owner, texts)
        return host

    def _routes_inside(self, host: dict[str, Any], owner: str, name: str, via: dict[int, str]) -> None:
        """Have a host reach the machine's networks by a tunnel."""
        inner = [ip_interface(one).network for one in host["interfaces"][name]]
        known = {one["to"] for one in host.get("routes", ())}
        host["routes"] = [one for one in host.get("routes", ()) if ip_network(one["to"]) not in inner]
        if not owner.startswith("peer-"):
            return
        outer = {str(one) for one in self._device.networks(self._addresses.way_out(self._outer(owner)))}
        networks = [one for other in self._device.host["interfaces"] for one in self._device.networks(other)]
        for one in dict.fromkeys(networks):
            if str(one) not in outer | known and one not in inner and (not via or one.version in via):
                host["routes"].append({"to": str(one), **({"via": via[one.version]} if via else {"dev": name})})
        del host["routes"][ROUTES_AT_MOST:]

    def _outer(self, owner: str) -> Any:
        """The address at which a host behind a router is called."""
        return ip_interface(self.hosts[owner]["interfaces"]["eth0"][0]).ip

    def _owner(self, text: str, name: str) -> str:
        """The host that has an address: one that is there, or one called ``name`` where the machine's route leads."""
        address = ip_address(text)
        if owners := self._addresses.owners.get(address):
            return next(iter(owners))
        out = self._addresses.way_out(address)
        if out not in self._near:
            return ""
        near, own = self._near[out]
        network = next((one for one in self._device.networks(out) if within(address, one)), None)
        if network is not None:
            self.hosts[near]["interfaces"][own].append(f"{address}/{network.prefixlen}")
            self._addresses.give(near, [text])
            return near
        alone = ip_network(address)
        self._behind(near, own, name := self._new(name), [str(alone)], out, [alone])
        return name

    def _wireguard(self, name: str) -> None:
        """The peers of a WireGuard interface, each a host."""
        said = self._device.host["wireguards"][name]
        peers: dict[str, Any] = {}
        for number, peer in enumerate(self._peers.get(name, ())):
            owner = self._owner(peer.endpoint, f"peer-{name}-{number}") if peer.endpoint else ""
            if not owner or owner in peers or "wireguards" in self.hosts[owner]:
                where = f"at {peer.endpoint}" if peer.endpoint else "without a known endpoint"
                self._device.notes.append(f"a peer of {name} {where} is left out")
                continue
            texts = self._addresses.of_hosts(map(ip_network, peer.networks))
            host = self._with_inner(owner, name, texts)
            called = self._facing(self._addresses.way_out(ip_address(peer.endpoint)))
            version = ip_address(peer.endpoint).version
            if version not in called:
                continue
            allowed = {"allowed": list(_DEFAULT.values()), "endpoint": called[version], "port": said["port"]}
            host["wireguards"] = {name: {"port": peer.port, "peers": {"device": allowed}}}
            self._routes_inside(host, owner, name, {})
            peers[owner] = {"allowed": list(peer.networks), "endpoint": peer.endpoint, "port": peer.port}
        said["peers"] = peers
        if not peers:
            del self._device.host["wireguards"][name]
            self._device.host["dummies"].append(name)
            self._device.notes.append(f"{name} is a WireGuard interface without a known peer: a dummy")

    # -- the machine's routes ---------------------------------------------------------------------

    def _routed(self, routes: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The routes of the machine as a lab says them."""
        for said in routes:
            hops: list[Hop] = said.pop("hops", [])
            if not hops:
                yield said
            elif len(hops) == 1:
                yield said | self._next(hops[0])
            elif all(self._next(hop).keys() == {"via"} for hop in hops):
                yield said | {"via": [{"via": hop.gateway, "weight": hop.weight} for hop in hops]}
            else:
                self._device.notes.append(f"the route to {said['to']} by several next hops is left out")

    def _next(self, hop: Hop) -> dict[str, str]:
        """One next hop."""
        if not hop.gateway:
            return {"dev": hop.dev}
        is_near = any(within(ip_address(hop.gateway), one) for one in self._device.networks(hop.dev))
        return {"via": hop.gateway} if is_near else {"via": hop.gateway, "dev": hop.dev}

    def _new(self, wanted: str) -> str:
        """A name for a host that none has."""
        base = re.sub(r"[^A-Za-z0-9_-]", "-", wanted)[:28]
        names = chain([base], (f"{base}{number}" for number in range(2, 1000)))
        return next(one for one in names if one not in self.hosts and one != "device")
