"""Layer 2 reachability: over wires, bridges, VLANs and tunnels.

A frame is followed from interface to interface with its VLAN tags, outermost first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from harness.model.problem import Problem, Problems, unknown
from harness.topology.interfaces import PortSpec
from harness.topology.parts import Address, End, Interface, Passing, Station
from harness.topology.spec import HostSpec, LabSpec
from harness.topology.tunnels import check_tunnels, wireguard_of

Tags = tuple[int, ...]

KINDS = {
    "bridges": "bridge",
    "vlans": "VLAN interface",
    "macvlans": "macvlan",
    "vxlans": "tunnel",
    "tunnels": "tunnel",
    "wireguards": "WireGuard interface",
    "vrfs": "VRF",
    "dummies": "dummy",
}
"""Keys of a host whose entries are interfaces other than ends of wires."""
LAYER_3 = ("tunnels", "wireguards")
"""Those of interfaces that carry IP packets, without Ethernet header."""


class _Frame(NamedTuple):
    """A frame at an interface, about to leave the host there or just arrived."""

    end: End
    tags: Tags
    leaving: bool


class Wiring:
    """The interfaces of a lab and what connects them.

    Raises :class:`~harness.model.problem.Problem`, with keys below the lab, when they contradict each other: the first
    of each host and of each link, together.
    """

    def __init__(self, spec: LabSpec) -> None:
        self.spec = spec
        problems = Problems()
        for name, host in spec.hosts.items():
            with problems.collected():
                _check_kinds(name, host)
                _check_bridges(name, host)
                _check_vlans(name, host)
                _check_macvlans(name, host)
                _check_vrfs(name, host)
        self.peers: Mapping[End, End] = _peers(spec, problems)
        """The other end of each end of a wire, both ways."""
        problems.refuse()
        check_tunnels(spec)
        self._tunnels: dict[End, tuple[object, object, Address, Address]] = {}
        """What both ends have in common, and the ends."""
        for name, host in spec.hosts.items():
            for interface, tunnel in host.vxlans.items():
                ends = ip_address(tunnel.local), ip_address(tunnel.remote)
                self._tunnels[End(name, interface)] = (tunnel.id, tunnel.port, *ends)
            for interface, inner in host.tunnels.items():
                ends = ip_address(inner.local), ip_address(inner.remote)
                self._tunnels[End(name, interface)] = (inner.kind, inner.key, *ends)

    def reached(self, start: End, tags: Tags = (), *, without: End | None = None) -> list[End]:
        """All other interfaces that receive a frame sent at ``start``, with VLAN ``tags``; nearest first.

        The bridge ``without`` does not forward it.
        """
        found: dict[End, None] = {}
        way = [_Frame(start, tags, leaving=True)]
        seen = set(way)
        while way:
            frame = way.pop(0)
            if not frame.leaving and not frame.tags and frame.end != start:
                found[frame.end] = None
            for near in self._left(frame) if frame.leaving else self._arrived(frame, without):
                if near not in seen:
                    seen.add(near)
                    way.append(near)
        return list(found)

    def stations(self, host: str, bridge: str, interfaces: Mapping[End, Interface]) -> Iterator[Station]:
        """The stations behind each port, which a bridge in a lab cannot learn from traffic."""
        own = self.spec.hosts[host]
        aware = knows_vlans(own, bridge)
        every = {vlan.id for other in self.spec.hosts.values() for vlan in other.vlans.values()}
        for port in own.bridges[bridge]:
            passing = _passing(own.ports.get(port))
            ways = [(vlan, _leaving(passing, (vlan,))) for vlan in sorted(_all(passing))]
            for vlan, tags in ways if aware else [(0, (vlan,) if vlan else ()) for vlan in (0, *sorted(every))]:
                for end in self.reached(End(host, port), tags or (), without=End(host, bridge)):
                    if self.spec.hosts[end.host].interfaces[end.interface]:
                        yield Station(port, interfaces[end].mac, vlan)

    def _left(self, frame: _Frame) -> Iterator[_Frame]:
        """The next places of a frame that leaves the host at an interface."""
        (name, interface), tags = frame.end, frame.tags
        host = self.spec.hosts[name]
        if vlan := host.vlans.get(interface):
            yield _Frame(End(name, vlan.link), (vlan.id, *tags), leaving=True)
        elif macvlan := host.macvlans.get(interface):
            yield _Frame(End(name, macvlan.link), tags, leaving=True)
            for sibling, near in host.macvlans.items():
                if sibling != interface and near.link == macvlan.link and near.mode == macvlan.mode == "bridge":
                    yield _Frame(End(name, sibling), tags, leaving=False)
        elif interface in host.bridges:
            yield from self._bridged(frame.end, interface, tags)
        elif frame.end in self._tunnels:
            number, port, local, remote = self._tunnels[frame.end]
            for other, ends in self._tunnels.items():
                if ends == (number, port, remote, local):
                    yield _Frame(other, tags, leaving=False)
        elif wireguard := host.wireguards.get(interface):
            for peer in wireguard.peers:
                yield _Frame(End(peer, wireguard_of(self.spec, peer, name)), tags, leaving=False)
        elif frame.end in self.peers:
            yield _Frame(self.peers[frame.end], tags, leaving=False)

    def _arrived(self, frame: _Frame, without: End | None) -> Iterator[_Frame]:
        """The next places of a frame that arrived at an interface; VLAN interfaces precede bridges and macvlans."""
        (name, interface), tags = frame.end, frame.tags
        host = self.spec.hosts[name]
        own = [one for one, vlan in host.vlans.items() if tags and (vlan.link, vlan.id) == (interface, tags[0])]
        for one in own:
            yield _Frame(End(name, one), tags[1:], leaving=False)
        for one, macvlan in host.macvlans.items():
            if macvlan.link == interface and not own:
                yield _Frame(End(name, one), tags, leaving=False)
        for bridge, ports in host.bridges.items():
            if interface in ports and not own and End(name, bridge) != without:
                yield from self._bridged(frame.end, bridge, tags)

    def _bridged(self, start: End, bridge: str, tags: Tags) -> Iterator[_Frame]:
        """The frames that a bridge forwards of one from a port or from its host."""
        host = self.spec.hosts[start.host]
        aware = knows_vlans(host, bridge)
        if aware:
            passing = _passing(host.ports.get(start.interface))
            tags = tags or ((passing.untagged,) if passing.untagged else ())
            if not tags or tags[0] not in _all(passing):
                return
        for port in (bridge, *host.bridges[bridge]):
            if port == start.interface:
                continue
            left = _leaving(_passing(host.ports.get(port)), tags) if aware else tags
            if left is not None:
                yield _Frame(End(start.host, port), left, leaving=port != bridge)


def knows_vlans(host: HostSpec, bridge: str) -> bool:
    """Whether a bridge filters VLANs: ``ports`` names one of its ports, or itself."""
    return any(port in host.ports for port in (bridge, *host.bridges[bridge]))


def _passing(port: PortSpec | None) -> Passing:
    return Passing(port.untagged, tuple(port.tagged)) if port else Passing(None, ())


def _all(passing: Passing) -> set[int]:
    return {*passing.tagged} | ({passing.untagged} if passing.untagged else set())


def _leaving(passing: Passing, tags: Tags) -> Tags | None:
    """A frame's tags as it leaves at a port, the first of ``tags`` being its VLAN; None when that is not allowed."""
    if tags[0] == passing.untagged:
        return tags[1:]
    return tags if tags[0] in passing.tagged else None


# --- checks --------------------------------------------------------------------------


def kind(host: HostSpec, interface: str) -> str:
    """The key of the host that makes ``interface``; "" for an end of a wire."""
    return next((key for key in KINDS if interface in getattr(host, key)), "")


def _check_kinds(name: str, host: HostSpec) -> None:
    """Each of them must be listed in ``interfaces``, and be of one kind."""
    for key, noun in KINDS.items():
        for index, interface in enumerate(getattr(host, key)):
            keys = ("hosts", name, key, index if key == "dummies" else interface)
            about_key = key != "dummies"
            if interface not in host.interfaces:
                remedy = f"list it with its addresses, or with none: interfaces: {{{interface}: []}}"
                raise Problem(f"{name} has no interface {interface}", *keys, remedy=remedy, about_key=about_key)
            if (other := kind(host, interface)) != key:
                raise Problem(f"{interface} cannot be a {noun} and a {KINDS[other]}", *keys, about_key=about_key)
    for index, interface in enumerate(host.checksum_offload):
        keys = ("hosts", name, "checksum_offload", index)
        if interface not in host.interfaces:
            raise unknown(interface, host.interfaces, f"interface of {name}", *keys)
        if of := kind(host, interface):
            raise Problem(f"{interface} is a {KINDS[of]}, and not the end of a link", *keys)
    for key in ("mtu", "ports", "netem"):
        for interface in getattr(host, key):
            if interface not in host.interfaces:
                problem = unknown(interface, host.interfaces, f"interface of {name}", "hosts", name, key, interface)
                raise Problem(problem.sentence, *problem.keys, remedy=problem.remedy, about_key=True)


def _check_bridges(name: str, host: HostSpec) -> None:
    owners: dict[str, str] = {}
    for bridge, ports in host.bridges.items():
        keys = ("hosts", name, "bridges", bridge)
        for index, port in enumerate(ports):
            if port not in host.interfaces:
                raise unknown(port, host.interfaces, f"interface of {name}", *keys, index)
            if kind(host, port) in ("bridges", "vrfs", "macvlans", *LAYER_3):
                raise Problem(f"{port} is a {KINDS[kind(host, port)]} itself", *keys, index)
            if port in owners:
                raise Problem(f"{port} is already a port of {owners[port]}", *keys, index)
            if host.interfaces[port]:
                keys = ("hosts", name, "interfaces", port)
                raise Problem(f"a port of {bridge} has no addresses", *keys, remedy=f"move them to {bridge}")
            owners[port] = bridge
    for port, said in host.ports.items():
        keys = ("hosts", name, "ports", port)
        if port not in owners and port not in host.bridges:
            raise Problem(f"{port} is neither a port of a bridge nor a bridge", *keys, about_key=True)
        if said == PortSpec():
            raise Problem("allows no VLAN", *keys, remedy="add untagged: or tagged:")
        if said.untagged in said.tagged:
            raise Problem(f"VLAN {said.untagged} cannot leave with and without a tag", *keys, "tagged")


def _check_vlans(name: str, host: HostSpec) -> None:
    taken: dict[tuple[str, int], str] = {}
    for interface, vlan in host.vlans.items():
        keys = ("hosts", name, "vlans", interface)
        if vlan.link not in host.interfaces:
            raise unknown(vlan.link, host.interfaces, f"interface of {name}", *keys, "link")
        if (of := kind(host, vlan.link)) in ("vrfs", *LAYER_3):
            raise Problem(f"{vlan.link} is a {KINDS[of]}, which carries no frames", *keys, "link")
        if (vlan.link, vlan.id) in taken:
            raise Problem(f"{taken[vlan.link, vlan.id]} is VLAN {vlan.id} of {vlan.link} already", *keys, "id")
        taken[vlan.link, vlan.id] = interface
        if interface not in creation(host):
            raise Problem(f"{interface} is based on itself", *keys, "link", remedy="name the interface that carries it")


def _check_macvlans(name: str, host: HostSpec) -> None:
    ports = {port: bridge for bridge, ports in host.bridges.items() for port in ports}
    for interface, macvlan in host.macvlans.items():
        keys = ("hosts", name, "macvlans", interface, "link")
        if macvlan.link not in host.interfaces:
            raise unknown(macvlan.link, host.interfaces, f"interface of {name}", *keys)
        if (of := kind(host, macvlan.link)) in ("macvlans", "vrfs", *LAYER_3):
            raise Problem(f"{macvlan.link} is a {KINDS[of]}, which carries no macvlan", *keys)
        if macvlan.link in ports:
            raise Problem(
                f"{macvlan.link} is a port of {ports[macvlan.link]}", *keys, remedy=f"name {ports[macvlan.link]}"
            )
        if interface not in creation(host):
            raise Problem(f"{interface} is based on itself", *keys, remedy="name the interface that carries it")


def creation(host: HostSpec) -> list[str]:
    """The interfaces that are not wires, in an order in which each follows those below it.

    Those that form a circle are left out.
    """
    order = [name for key in KINDS if key not in ("vlans", "macvlans", "bridges") for name in getattr(host, key)]
    waiting = {name: {vlan.link} for name, vlan in host.vlans.items()}
    waiting |= {name: {macvlan.link} for name, macvlan in host.macvlans.items()}
    waiting |= {name: set(ports) for name, ports in host.bridges.items()}
    while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        order += ready
        for name in ready:
            del waiting[name]
    return order


def _check_vrfs(name: str, host: HostSpec) -> None:
    owners: dict[str, str] = {}
    tables: dict[int, str] = {}
    ports = {port for ports in host.bridges.values() for port in ports}
    for vrf, said in host.vrfs.items():
        keys = ("hosts", name, "vrfs", vrf)
        if 253 <= said.table <= 255:
            remedy = "choose another, such as 10"
            raise Problem(f"{said.table} is a reserved table", *keys, "table", remedy=remedy)
        if said.table in tables:
            raise Problem(f"table {said.table} is that of {tables[said.table]}", *keys, "table")
        tables[said.table] = vrf
        for index, interface in enumerate(said.interfaces):
            if interface not in host.interfaces:
                raise unknown(interface, host.interfaces, f"interface of {name}", *keys, "interfaces", index)
            if interface in host.vrfs:
                raise Problem(f"{interface} is a VRF itself", *keys, "interfaces", index)
            if interface in ports:
                raise Problem(f"{interface} is a port of a bridge", *keys, "interfaces", index)
            if interface in owners:
                raise Problem(f"{interface} is already in {owners[interface]}", *keys, "interfaces", index)
            owners[interface] = vrf


def _peers(spec: LabSpec, problems: Problems) -> dict[End, End]:
    """The other end of each end, both ways; what is wrong with a link is added to ``problems``."""
    peers: dict[End, End] = {}
    for number, texts in enumerate(spec.links):
        with problems.collected():
            one = _end(spec, texts[0], peers, "links", number, 0)
            peers[one] = one  # a link to itself is found
            other = _end(spec, texts[1], peers, "links", number, 1)
            peers |= {one: other, other: one}
    return peers


def _end(spec: LabSpec, text: str, linked: Collection[End], *keys: str | int) -> End:
    """The end of a link that ``text``, at ``keys``, names; the ends ``linked`` are taken."""
    name, colon, interface = text.partition(":")
    if not colon:
        raise Problem(f"'{text}' is not host:interface", *keys)
    if name not in spec.hosts:
        raise unknown(name, spec.hosts, "host of the lab", *keys)
    own = spec.hosts[name].interfaces
    if interface not in own:
        raise unknown(interface, own, f"interface of {name}", *keys)
    end = End(name, interface)
    if of := kind(spec.hosts[name], interface):
        below = dict.fromkeys(("vlans", "macvlans"), "link what carries it")
        remedy = ({"bridges": "link its ports"} | below).get(of, "remove it here")
        raise Problem(f"{end} is a {KINDS[of]}", *keys, remedy=remedy)
    if end in linked:
        raise Problem(f"{end} is linked twice", *keys, remedy="a wire has two ends; give each its own interface")
    return end
