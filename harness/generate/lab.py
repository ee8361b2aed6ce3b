"""The lab that a ruleset belongs into: chosen from its hooks, the interfaces it names and its addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness.errors import HarnessError
from harness.generate import expressions
from harness.generate.addresses import USUAL, Net, WantedAddress, overlapping, wanted
from harness.generate.facts import Facts
from harness.generate.finality import decides
from harness.generate.interfaces import Interfaces, in_statements, named
from harness.generate.simulate import SimulatedChain, SimulatedRule, SimulatedRuleset
from harness.netfilter import IP_FAMILIES
from harness.topology.builtin import LABS, rename
from harness.topology.network import Network
from harness.topology.parts import Address
from harness.topology.spec import HostSpec, LabSpec

_HOST_NAMES: Final = ("server", "pc", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_OTHERS: Final = ("other0", "other1", "other2")
_INTERNET: Final = ("203.0.113.0/24", "2001:db8:113::/64")
HOSTS_AT_A_LINK: Final = 24
"""Addresses of one interface."""


class ChosenLab(NamedTuple):
    """A lab, as a scenario file says it and as it is planned."""

    lab: str | LabSpec
    interfaces: dict[str, str]
    """New names for the device's interfaces."""
    network: Network

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of a scenario, or a file of them, that say this."""
        named = self.lab if isinstance(self.lab, str) else msgspec.to_builtins(self.lab)
        return {"lab": named, **({"interfaces": dict(self.interfaces)} if self.interfaces else {})}

    @property
    def described(self) -> str:
        """Who is where: ``client — wan0 device lan0 — server``."""
        device = self.network.hosts[self.network.device]
        sides = [(one.name, one.peer.host) for one in device.interfaces.values() if one.name not in device.bridges]
        (first, client), *others = sides
        return f"{client} — {first} device" + ", device".join(f" {name} — {host}" for name, host in others)


def given(named: str) -> ChosenLab:
    """The lab that ``--lab`` names: a built-in one, or a file.

    Raises :class:`~harness.errors.HarnessError` where there is none.
    """
    from harness.scenario.load import load_lab

    if named in LABS:
        return ChosenLab(named, {}, Network.of(LABS[named]))
    if not (file := Path(named)).is_file():
        remedy = f"write {', '.join(LABS)}, or the path of a file in a folder labs"
        raise HarnessError(f"--lab: '{named}' is neither a built-in lab nor a file", remedy=remedy)
    return ChosenLab(str(file), {}, load_lab(file))


def choose(facts: Facts, *, wider: bool = False) -> ChosenLab:
    """The lab for ``facts``: a built-in one under the ruleset's names where that will do, else one of its own.

    A ``wider`` one has an interface that the ruleset does not name, with a host behind it, in any case.
    """
    ruleset = SimulatedRuleset(facts)
    names, addresses = named(facts), wanted(ruleset)
    bases = [one for one in ruleset.chains.values() if one.hook]
    routes = {one.hook for one in bases if one.family in IP_FAMILIES}
    own = any(one.hook in ("input", "output") and one.kind == "filter" and one.family != "bridge" for one in bases)
    routed = "forward" in routes or (not own and any(one.kind == "nat" for one in bases))
    if len(names.routed) > routed or wider:  # a router with one of them has a second in any case
        names = _with_another(names, ruleset, wider=wider)
    bridged = bool(names.ports) or any(one.family == "bridge" for one in bases)
    if bridged and not routed:
        names = Interfaces([], [*names.ports, *names.routed], names.bridges)
    return _built_in(names, addresses, routed=routed, bridged=bridged) or _own(
        names, addresses, bridged=bridged, forwarding=routed or len(names.routed) > 1
    )


def _with_another(names: Interfaces, ruleset: SimulatedRuleset, *, wider: bool) -> Interfaces:
    """``names``, and one that no rule names where rules about interfaces decide before others: those are about it."""
    chains = [one for one in ruleset.chains.values() if one.hook]
    if not names.routed or not (wider or any(_needs_another(ruleset, one, names.routed) for one in chains)):
        return names
    return names._replace(routed=[*names.routed, next(one for one in _OTHERS if one not in names.routed)])


def _needs_another(ruleset: SimulatedRuleset, chain: SimulatedChain, interfaces: Sequence[str]) -> bool:
    """Whether rules of a base chain decide about all of ``interfaces``, and others stand behind those."""
    decided: dict[str, set[str]] = {"iif": set(), "oif": set()}
    for rule in chain.rules:
        if any(set(interfaces) <= found for found in decided.values()):
            return True
        word, what = rule.statements[0] if rule.statements else ("", {})
        if word == "vmap" and any(expressions.field(part) in decided for part in expressions.parts(what["key"])):
            decided["iif"].update(interfaces)
        elif word == "match" and what["op"] in ("==", "in") and _decides(ruleset, rule):
            decided.get(expressions.field(what["left"]), set()).update(n for _, n in in_statements([{word: what}]))
    return False


def _decides(ruleset: SimulatedRuleset, rule: SimulatedRule) -> bool:
    """Whether ``rule`` decides about every packet that its first match lets by, itself or by a chain."""
    return decides(ruleset, rule._replace(statements=rule.statements[1:]))


def _built_in(
    names: Interfaces, addresses: Sequence[WantedAddress], *, routed: bool, bridged: bool
) -> ChosenLab | None:
    """One of the labs that come with the language, if it has all that is asked for."""
    if bridged:
        fits = not routed and not names.routed and len(names.ports) <= 2
        new_names = _assigned(("port0", "port1"), names.ports) | _assigned(("br0",), names.bridges)
        choices = [("bridge", new_names)] if fits else []
    elif not routed and len(names.routed) <= 1:
        choices = [("host", _assigned(("eth0",), names.routed))]
    elif len(names.routed) <= 2:
        slots = ("lan0", "wan0") if len(names.routed) == 1 and names.looks_inside else ("wan0", "lan0")
        choices = [("router", _assigned(slots, names.routed))]
    elif len(names.routed) == 3:
        choices = [("nat-gateway", _assigned(("wan0", "lan0", "dmz0"), names.routed))]
    else:
        choices = []
    for lab, new_names in choices:
        interfaces = LABS[lab].hosts["device"].interfaces
        kept = [new_names.get(one, one) for one in interfaces]
        if len(set(kept)) < len(kept):
            continue  # an interface that the ruleset does not name is called like one that it names
        new_names = {old: new for old, new in new_names.items() if old != new}
        network = Network.of(rename(LABS[lab], new_names))
        if all(_is_met(network, one) for one in addresses):
            return ChosenLab(lab, new_names, network)
    return None


def _assigned(slots: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    return dict(zip(slots, names, strict=False))


def _is_met(network: Network, one: WantedAddress) -> bool:
    """Whether a host has the address, behind the interface where it should be."""
    if one.address.is_global and not one.is_devices and not one.interface:
        return True
    owner = network.owner(one.address)
    if owner is None or (owner == network.device) is not one.is_devices:
        return False
    interface = network.hosts[network.device].interfaces.get(one.interface)
    return not one.interface or one.is_devices or (interface is not None and interface.peer.host == owner)


# --- a lab of its own ---------------------------------------------------------------------------


@dataclass
class _Side:
    """An interface of the device, and the networks at its link."""

    name: str
    networks: list[Net] = field(default_factory=list)
    device: list[Address] = field(default_factory=list)
    hosts: list[Address] = field(default_factory=list)

    def has(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)

    def give(self, one: WantedAddress) -> None:
        """Have the address, if the other end does not."""
        own, other = (self.device, self.hosts) if one.is_devices else (self.hosts, self.device)
        if one.address not in (*own, *other) and len(own) < HOSTS_AT_A_LINK:
            own.append(one.address)

    def complete(self) -> None:
        """Give both ends an address in each network."""
        for network in self.networks:
            for own in (self.device, self.hosts):
                if not any(address in network for address in own if address.version == network.version):
                    own.append(self._free(network))

    def _free(self, network: Net) -> Address:
        numbers = range(1, min(network.num_addresses - 1, 200))
        free: Iterator[Address] = (network[number] for number in numbers)
        return next(one for one in free if one not in (*self.device, *self.hosts))

    def more(self) -> list[Address]:
        """Addresses for another host, one in each network."""
        found = []
        for network in self.networks:
            found.append(self._free(network))
            self.hosts.append(found[-1])
        return found

    def written(self, addresses: Sequence[Address]) -> list[str]:
        """``addresses`` with the lengths of their networks, the usual kinds first."""
        found = [
            f"{address}/{network.prefixlen}"
            for address in addresses
            for network in self.networks
            if network.version == address.version and address in network
        ]
        return sorted(found, key=lambda text: ":" in text)


class _Plan(NamedTuple):
    """The device of a lab of its own."""

    sides: list[_Side]
    """The one behind which the Internet lies first; a bridge is one."""
    bridge: str
    ports: list[str]
    """Of the bridge."""

    @property
    def at_bridge(self) -> _Side | None:
        """The side that is a bridge."""
        return next((side for side in self.sides if side.name == self.bridge), None)


def _own(names: Interfaces, addresses: Sequence[WantedAddress], *, bridged: bool, forwarding: bool) -> ChosenLab:
    """A device with a host behind each interface; behind the first one lies the Internet."""
    plan = _planned(names, bridged=bridged, forwarding=forwarding)
    _place(plan.sides, addresses)
    first, at_bridge = plan.sides[0], plan.at_bridge
    interfaces = {side.name: side.written(side.device) for side in plan.sides if side is not at_bridge}
    hosts = {"client": _host(first, first.hosts)}
    links = [["client:eth0", f"device:{plan.ports[0] if first is at_bridge else first.name}"]]
    behind: list[tuple[str, _Side]] = [(side.name, side) for side in plan.sides[1:] if side is not at_bridge]
    if at_bridge is not None:
        behind += [(port, at_bridge) for port in (plan.ports[1:] if first is at_bridge else plan.ports)]
    given = {first.name}
    for host, (name, side) in zip(_host_names(), behind, strict=False):
        # At a bridge several hosts share the networks.
        own = side.hosts if side.name not in given else side.more()
        given.add(side.name)
        hosts[host] = _host(side, own)
        links.append([f"device:{name}", f"{host}:eth0"])
    if at_bridge is not None:
        interfaces |= {**{port: [] for port in plan.ports}, plan.bridge: at_bridge.written(at_bridge.device)}
    device = HostSpec(
        interfaces=interfaces,
        bridges={plan.bridge: plan.ports} if plan.bridge else {},
        gateway="client",
        forwarding=forwarding,
    )
    spec = LabSpec(hosts={"client": hosts.pop("client"), "device": device, **hosts}, links=links)
    return ChosenLab(spec, {}, Network.of(spec))


def _planned(names: Interfaces, *, bridged: bool, forwarding: bool) -> _Plan:
    """The device's interfaces: those that are named, and others where it needs more."""
    bridge = (names.bridges or ["br0"])[0] if bridged else ""
    ports = [*names.ports, *(one for one in ("port0", "port1") if one not in names.ports)] if bridged else []
    ports = ports[: max(len(names.ports), 2)]
    least = (2 if forwarding else 1) - bridged
    spare = [one for one in (("wan0", "lan0") if forwarding else ("eth0",)) if one not in names.routed]
    if names.looks_inside and len(names.routed) == 1:
        routed = [*spare[:1], *names.routed]
    else:
        routed = [*names.routed, *(reversed(spare) if names.routed else spare)][: max(least, len(names.routed))]
    return _Plan([_Side(one) for one in ([*routed, bridge] if bridge else routed)], bridge, ports)


def _host(side: _Side, addresses: Sequence[Address]) -> HostSpec:
    return HostSpec(interfaces={"eth0": side.written(addresses)}, gateway="device")


def _host_names() -> Iterator[str]:
    yield from _HOST_NAMES
    number = len(_HOST_NAMES)
    while True:
        number += 1
        yield f"host{number}"


def _place(sides: list[_Side], addresses: Sequence[WantedAddress]) -> None:
    """Give each side its networks and addresses: those asked for, then others until it has IPv4 and IPv6."""
    by_name: Mapping[str, _Side] = {side.name: side for side in sides}
    for one in addresses:
        side = by_name.get(one.interface)
        owner = next((other for other in sides if other.has(one.address)), None)
        if owner is not None:
            owner.give(one)
            continue
        if overlapping(one.network, [network for other in sides for network in other.networks]):
            continue
        if side is None:
            inside = [other for other in sides[1:] if other.name not in _OTHERS]
            free = [other for other in inside if not _of_version(other, one.network.version)]
            side = sides[0] if one.is_devices else (free or inside or sides)[0]
        side.networks.append(one.network)
        side.give(one)
    for number, side in enumerate(sides):
        for version in (4, 6):
            if not _of_version(side, version):
                side.networks.append(_unused(sides, number, version))
        side.complete()


def _of_version(side: _Side, version: int) -> list[Net]:
    return [one for one in side.networks if one.version == version]


def _unused(sides: Sequence[_Side], number: int, version: int) -> Net:
    """A network of nobody: of those for documentation where the Internet is, else a private one."""
    taken = [network for side in sides for network in side.networks]
    texts = [_INTERNET[version == 6]] if number == 0 else []
    texts += [f"10.0.{n}.0/24" if version == 4 else f"2001:db8:{n:x}::/64" for n in range(number + 1, 250)]
    found: Any = next(net for text in texts if not overlapping(net := ip_network(text), taken))
    assert found.prefixlen == USUAL[version]
    return found
