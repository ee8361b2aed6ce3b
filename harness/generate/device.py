"""The way of a packet through the device of a planned lab, from hook to hook, on the simulated ruleset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

from harness.generate import names
from harness.generate.expressions import ORIGINAL, Fields, state
from harness.generate.simulate import SimulatedChain, SimulatedRuleset, Traversal
from harness.model.observation import Place
from harness.model.problem import Problem
from harness.topology.network import Network
from harness.topology.parts import EVERYBODY, LOOPBACK, Address

JOINED: Final = frozenset(map(ip_address, ("224.0.0.1", "ff02::1", "ff01::1", "ff02::2", "ff05::2", "ff01::2")))
"""Multicast groups that the kernel joins: of all hosts, and with IPv6 forwarding of all routers."""


def is_joined(address: Address) -> bool:
    """Whether the device's kernel receives a multicast group without a program that has joined it."""
    solicited = address.version == 6 and int(address) >> 24 == _SOLICITED
    return address in JOINED or solicited


_SOLICITED: Final = int(ip_address("ff02::1:ff00:0")) >> 24


class SimulatedDevice:
    """A simulated ruleset in a planned lab."""

    def __init__(self, ruleset: SimulatedRuleset, network: Network) -> None:
        self.ruleset = ruleset
        self.network = network
        self.host = network.hosts[network.device]
        self._own = frozenset(address.ip for one in self.host.interfaces.values() for address in one.addresses)
        self._bridge_of = {port: name for name, bridge in self.host.bridges.items() for port in bridge.ports}
        self.facing = {
            one.name: one.peer.host for one in self.host.interfaces.values() if one.peer.host != network.device
        }
        """The host at the other end of each of the device's links."""
        self._hooks: dict[tuple[str, str], list[SimulatedChain]] = defaultdict(list)
        self._registered: dict[Place, int] = {}
        for number, chain in enumerate(ruleset.chains.values()):
            self._registered[chain.key] = number
            if chain.hook:
                self._hooks[chain.family, chain.hook].append(chain)

    def travel(self, fields: Fields, wanted: frozenset[Place]) -> Traversal | None:
        """The way of a packet through the device; None for one that does not get there."""
        family, device = fields["family"], self.network.device
        try:
            destination = self._address(fields["to"], family, fields["from"])
            source = fields.get("saddr") or self._address(fields["from"], family, fields["to"])
            if destination is None or source is None or ip_address(str(source)).version != family:
                return None
            if destination.version != family:
                return None
            fields |= {"saddr": ip_address(str(source)), "daddr": destination}
            sent = {name: fields[name] for name in ("saddr", "daddr", "sport", "dport") if name in fields}
            fields |= {f"{ORIGINAL}{name}": value for name, value in sent.items()}
            fields["local"] = self._is_local(destination)
            way = Traversal(met=[], verdict="accept", fields=fields)
            if fields["from"] == device:
                self.network.route(device, destination, local=True)
                return self._sent(way, wanted)
            if port := self._addressed_by(fields):
                fields["iif"] = port
                return self._received(way, wanted)
            hop = self.network.route(fields["from"], destination)
        except (Problem, ValueError, KeyError):
            return None
        fields["iif"] = hop.interface.peer.interface
        fields.setdefault("ether_saddr", hop.interface.mac)
        fields.setdefault("ether_daddr", hop.mac)
        return self._received(way, wanted)

    def journey(self, steps: Sequence[Fields]) -> list[Traversal | None]:
        """The ways of packets that are sent one after the other: what each adds to sets is there for the next."""
        found: list[Traversal | None] = []
        for fields in steps:
            with self.ruleset.learning(*(one.added for one in found if one)):
                found.append(self.travel(dict(fields), frozenset()))
        return found

    def _addressed_by(self, fields: Fields) -> str:
        """The interface that faces the sender of a frame to the device's own Ethernet address; "" for another frame."""
        if all(one.mac != fields.get("ether_daddr") for one in self.host.interfaces.values()):
            return ""
        return next((name for name, host in self.facing.items() if host == fields["from"]), "")

    def _is_local(self, address: Address) -> bool:
        return address in self._own or is_joined(address) or address == EVERYBODY

    def _received(self, way: Traversal, wanted: frozenset[Place]) -> Traversal | None:
        fields = way.fields
        if fields["family"] == 6 and (fields["saddr"].is_loopback or fields["daddr"].is_loopback):
            return None  # ipv6_rcv() drops it before any hook
        came_by = self._bridge_of.get(fields["iif"], fields["iif"])
        fields["path"] = int(self._way_out(fields["saddr"]) == came_by)
        if self._hook(("netdev", "inet"), "ingress", way, wanted, device=fields["iif"]):
            return way
        if fields["iif"] in self._bridge_of and self._bridged(way, wanted):
            return way
        if fields["proto"] == "arp":
            self._hook(("arp",), "input", way, wanted)
            return way
        families = self._families(fields)
        if self._hook(families, "prerouting", way, wanted):
            return way
        # Where a rule has translated the destination, the address is not what the packet was sent to.
        fields["local"] = bool(fields["local"]) if fields["daddr"] not in self._own else True
        if self._is_martian(fields):
            way.verdict = "drop"
            return way
        if fields["local"]:
            self._hook(families, "input", way, wanted)
            return way
        leaving = self._way_out(fields["daddr"]) if self.host.forwarding else ""
        if not leaving or fields["daddr"].is_multicast:
            return way
        fields["oif"] = leaving
        if not self._hook(families, "forward", way, wanted):
            self._left(way, wanted)
        return way

    def _is_martian(self, fields: Fields) -> bool:
        """Whether IPv4 drops a packet of another host for its addresses: ip_route_input_slow() in net/ipv4/route.c."""
        if fields["family"] != 4 or fields["proto"] == "arp":
            return False
        source, destination = fields["saddr"], fields["daddr"]
        wrong = source.is_loopback or source.is_multicast or source == EVERYBODY or source in self._own
        return bool(wrong or destination.is_loopback)

    def _bridged(self, way: Traversal, wanted: frozenset[Place]) -> bool:
        """Whether a packet that came by the port of a bridge ended in it."""
        fields = way.fields
        port, bridge = fields["iif"], self._bridge_of[fields["iif"]]
        fields["ibr"] = bridge
        if self._hook(("bridge",), "prerouting", way, wanted):
            return True
        if not fields["local"]:
            others = [one for one in self.host.bridges[bridge].ports if one != port]
            facing = [one for one in others if self.facing.get(one) == fields["to"]]
            if facing or not any(fields["daddr"] in own.network for own in self.host.interfaces[bridge].addresses):
                fields |= {"oif": (facing or others or [""])[0], "obr": bridge}
            if facing:
                if not self._hook(("bridge",), "forward", way, wanted):
                    self._hook(("bridge",), "postrouting", way, wanted)
                return True
            fields.pop("oif", None)
        if self._hook(("bridge",), "input", way, wanted):
            return True
        fields["iif"] = bridge
        return False

    def _sent(self, way: Traversal, wanted: frozenset[Place]) -> Traversal:
        fields = way.fields
        here = fields["daddr"] in self._own or fields["daddr"].is_loopback
        fields["oif"] = LOOPBACK if here else self._way_out(fields["daddr"])
        if not fields["oif"]:
            return way
        families = ("arp",) if fields["proto"] == "arp" else self._families(fields)
        if self._hook(families, "output", way, wanted):
            return way
        if not self._left(way, wanted) and here:
            fields |= {"iif": fields.pop("oif"), "local": True}
            if not (
                self._hook(("netdev", "inet"), "ingress", way, wanted, device=LOOPBACK)
                or self._hook(families, "prerouting", way, wanted)
            ):
                self._hook(families, "input", way, wanted)
        return way

    def _way_out(self, address: Any) -> str:
        """The interface by which the device sends to ``address``, whether a host there has it or not."""
        try:
            return self.network.route(self.network.device, address).interface.name
        except Problem:
            for one in self.host.interfaces.values():
                if any(address in own.network for own in one.addresses if own.version == address.version):
                    return one.name
            return ""

    def _left(self, way: Traversal, wanted: frozenset[Place]) -> bool:
        fields = way.fields
        if self._hook(self._families(fields), "postrouting", way, wanted):
            return True
        if bridge := self.host.bridges.get(fields["oif"]):
            ports = [port for port in bridge.ports if self.facing.get(port) == fields["to"]] or [bridge.ports[0]]
            fields |= {"obr": fields["oif"], "oif": ports[0]}
            for hook in ("output", "postrouting"):
                if self._hook(("bridge",), hook, way, wanted):
                    return True
        return self._hook(("netdev",), "egress", way, wanted, device=fields["oif"])

    def _hook(
        self,
        families: Sequence[str],
        hook: str,
        way: Traversal,
        wanted: frozenset[Place],
        *,
        device: str = "",
    ) -> bool:
        """Whether the packet ended at ``hook``."""
        chains = [one for family in families for one in self._hooks.get((family, hook), ())]
        # Of one priority, the one that was registered last is first: nf_hook_entries_grow() in net/netfilter/core.c.
        for chain in sorted(chains, key=lambda one: (one.priority, -self._registered[one.key])):
            if device and device not in chain.devices:
                continue
            if chain.kind == "nat" and not self._is_translated(chain, way.fields):
                continue
            verdict = self.ruleset.evaluate(chain, way, wanted)
            if verdict != "accept":
                way.verdict = verdict
                return True
        return False

    def _is_translated(self, chain: SimulatedChain, fields: Fields) -> bool:
        """Whether a chain of type nat sees the packet.

        Only the first packet of a connection is seen, and of the families inet and ip, which have a hook function
        each, only by the one that was there first: it binds the connection, to itself where no rule does.
        """
        if state(fields) != "new" or fields.get("reply") or not self.ruleset.is_tracked(chain.family):
            return False
        return chain.family == self.first_with_nat(names.IP_FAMILIES[fields["family"]])

    def first_with_nat(self, family: str) -> str:
        """Of inet and ``family``, ip or ip6, the one whose chains of type nat were loaded first; "" for none."""
        chains = self.ruleset.chains.values()
        return next((one.family for one in chains if one.kind == "nat" and one.family in ("inet", family)), "")

    @staticmethod
    def _families(fields: Fields) -> tuple[str, str]:
        return ("inet", "ip" if fields["family"] == 4 else "ip6")

    def _address(self, end: str, family: int, towards: str) -> Any:
        if end in self.network.hosts:
            other = towards if towards in self.network.hosts else self.network.device
            return self.network.address(end, family, towards=other)
        return ip_address(end)
