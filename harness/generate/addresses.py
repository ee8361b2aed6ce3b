"""The addresses that rules give to the device and to hosts behind its interfaces."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple

from harness.generate.constraints import called
from harness.generate.expressions import element, field, parts, unpacked
from harness.generate.simulate import SimulatedChain, SimulatedRule, SimulatedRuleset
from harness.topology.parts import Address

Net = Any
"""An IPv4Network or IPv6Network."""

OF_A_SET: Final = 3
"""Addresses that are taken of one set."""
CALLERS: Final = 4
"""Chains that call one another, of which the interfaces are read."""
NARROWEST: Final = {4: 29, 6: 125}
"""Prefixes of the smallest networks that a device and two hosts fit into."""
USUAL: Final = {4: 24, 6: 64}


class WantedAddress(NamedTuple):
    """An address that a host of the lab should have."""

    address: Address
    network: Net
    """That it lies in."""
    interface: str
    """Of the device, at whose link; "" where the ruleset does not say."""
    is_devices: bool
    """Whether the device should have it, rather than a host."""


class _Context(NamedTuple):
    """What the rules that lead to a rule say of a packet's interfaces."""

    iif: str = ""
    oif: str = ""


def wanted(ruleset: SimulatedRuleset) -> list[WantedAddress]:
    """All of them; those of which the interface is known first, each once."""
    found: dict[tuple[Address, str, bool], WantedAddress] = {}
    services = _services(ruleset)
    # Where nothing is forwarded, what comes in is for the device.
    arrives = {"input"} if any(one.hook == "forward" for one in ruleset.chains.values()) else {"input", "prerouting"}
    for chain in ruleset.chains.values():
        context = _context(ruleset, chain, CALLERS)
        hooks = _hooks(ruleset, chain, CALLERS)
        for rule in chain.rules:
            for one in _of_rule(ruleset, rule, context, sent=hooks == {"output"}, received=hooks <= arrives):
                if not one.interface and not one.is_devices:
                    one = one._replace(interface=_towards(ruleset, rule, services))
                found.setdefault((one.address, one.interface, one.is_devices), one)
    return sorted(found.values(), key=lambda one: not one.interface)


def _services(ruleset: SimulatedRuleset) -> dict[int, Counter[str]]:
    """By destination port, the interfaces by which rules let packets through."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for chain in ruleset.chains.values():
        if _hooks(ruleset, chain, CALLERS) == {"forward"}:
            context = _context(ruleset, chain, CALLERS)
            for rule in chain.rules:
                oif = _interfaces(ruleset, rule).oif or context.oif
                if oif and any(word == "accept" for word, _ in rule.statements):
                    for port in _ports(ruleset, rule):
                        found[port][oif] += 1
    return found


def _ports(ruleset: SimulatedRuleset, rule: SimulatedRule) -> list[int]:
    """The destination ports that ``rule`` names."""
    return [member for left, member in _equal(ruleset, rule) if field(left) == "dport" and isinstance(member, int)]


def _towards(ruleset: SimulatedRuleset, rule: SimulatedRule, services: Mapping[int, Counter[str]]) -> str:
    """The interface behind which the host is that ``rule`` sends packets on to; "" where no rule shows that."""
    translations = [what for word, what in rule.statements if word == "dnat" and isinstance(what, dict)]
    ports = [one["port"] for one in translations if isinstance(one.get("port"), int)] or _ports(ruleset, rule)
    total: Counter[str] = Counter()
    for port in ports if translations else ():
        total.update(services.get(port, {}))
    total.pop(_interfaces(ruleset, rule).iif, None)
    return total.most_common(1)[0][0] if total else ""


def _context(ruleset: SimulatedRuleset, chain: SimulatedChain, depth: int) -> _Context:
    """The interfaces that the first rule into ``chain`` asks for, or those before it; of a base chain its own."""
    if chain.devices:
        return _Context(*(chain.devices[0] if chain.hook == hook else "" for hook in ("ingress", "egress")))
    for rule in () if chain.hook or not depth else ruleset.callers(chain):
        around = _context(ruleset, ruleset.chains[rule.key[:3]], depth - 1)
        own = _interfaces(ruleset, rule, into=chain.name)
        if own.iif or own.oif or around.iif or around.oif:
            return _Context(own.iif or around.iif, own.oif or around.oif)
    return _Context()


def _hooks(ruleset: SimulatedRuleset, chain: SimulatedChain, depth: int) -> set[str]:
    """The hooks from which packets come into ``chain``."""
    if chain.hook or not depth:
        return {chain.hook}
    callers = {rule.key[:3] for rule in ruleset.callers(chain)}
    return {hook for key in callers for hook in _hooks(ruleset, ruleset.chains[key], depth - 1)}


def _interfaces(ruleset: SimulatedRuleset, rule: SimulatedRule, into: str = "") -> _Context:
    """The interfaces that a rule asks for; of a verdict map, those that lead ``into`` a chain."""
    found: dict[str, str] = {}
    for left, member in _equal(ruleset, rule, into):
        if field(left) in ("iif", "oif") and isinstance(member, str):
            found.setdefault(field(left), called(member))
    return _Context(found.get("iif", ""), found.get("oif", ""))


def _equal(ruleset: SimulatedRuleset, rule: SimulatedRule, into: str = "") -> Iterator[tuple[Any, Any]]:
    """Pairs of an expression and a value that it may have if the rule matches."""
    for word, what in rule.statements:
        if word == "match" and what["op"] in ("==", "in"):
            for member in ruleset.members(rule, what["right"])[:OF_A_SET]:
                yield from _pairs(what["left"], element(member))
        elif word == "vmap":
            keys = [key for key, verdict in ruleset.elements(rule, what) if not into or into in str(verdict)]
            for key in keys[: OF_A_SET if not into else 1]:
                yield from _pairs(what["key"], element(key))


def _pairs(left: Any, member: Any) -> Iterator[tuple[Any, Any]]:
    kind, values = unpacked(member)
    if kind == "concat":
        yield from zip(parts(left), map(element, values), strict=False)
    else:
        yield left, member


def _of_rule(
    ruleset: SimulatedRuleset, rule: SimulatedRule, context: _Context, *, sent: bool, received: bool
) -> Iterator[WantedAddress]:
    """The addresses that a rule names, of packets that the device has ``sent``, ``received``, or perhaps neither."""
    own = _interfaces(ruleset, rule)
    iif, oif = own.iif or context.iif, own.oif or context.oif
    words = {word for word, _ in rule.statements}
    for left, member in _equal(ruleset, rule):
        # Any host can send with an address that is banned.
        if field(left) == "saddr" and not words & {"drop", "reject"}:
            yield from _of_senders(member, oif if sent else iif, is_devices=sent)
        elif field(left) == "daddr":
            yield from _of_receivers(member, iif, oif, words, received=received)
    for word, what in rule.statements:
        if word in ("dnat", "snat") and isinstance(what, dict):
            for member in _translated(ruleset, rule, what.get("addr")):
                for address, network, _ in _addresses(member):
                    yield WantedAddress(address, network, oif if word == "snat" else "", word == "snat")


def _of_senders(member: Any, interface: str, *, is_devices: bool) -> Iterator[WantedAddress]:
    for address, network, _ in _addresses(member):
        if is_devices or interface or address.is_private:
            yield WantedAddress(address, network, interface, is_devices)


def _of_receivers(member: Any, iif: str, oif: str, words: set[str], *, received: bool) -> Iterator[WantedAddress]:
    for address, network, single in _addresses(member):
        if received or words & {"dnat", "redirect"}:
            if single:
                yield WantedAddress(address, network, iif, True)
        # Services are found in maps, with chains that translate their addresses: nobody has these.
        elif oif or (address.is_private and "vmap" not in words):
            yield WantedAddress(address, network, oif, False)


def _translated(ruleset: SimulatedRuleset, rule: SimulatedRule, target: Any) -> Iterator[Any]:
    """The addresses that a statement translates to."""
    kind, what = unpacked(element(target))
    if kind == "map":
        for _, value in ruleset.elements(rule, what)[: 2 * OF_A_SET]:
            yield from _translated(ruleset, rule, value)
    elif kind == "concat":
        yield what[0]
    elif target is not None:
        yield target


def _addresses(member: Any) -> Iterator[tuple[Address, Net, bool]]:
    """An address, the network that it lies in, and whether only the address is meant."""
    kind, what = unpacked(element(member))
    single = kind not in ("prefix", "range")
    try:
        if kind == "prefix":
            named = ip_network(f"{what['addr']}/{what['len']}", strict=False)
        else:
            first = ip_address(str(what[0] if kind == "range" else member))
            named = ip_network(f"{first}/{USUAL[first.version]}", strict=False)
        version = named.version
        if kind != "prefix" and first == named.broadcast_address and version == 4:
            return  # every host of the network has it, and none for itself
        if kind == "prefix" and not USUAL[version] <= named.prefixlen <= NARROWEST[version]:
            length = USUAL[version]
            single = named.prefixlen == named.max_prefixlen
            inner = ip_network(f"{named.network_address}/{length}", strict=False)
        else:
            inner = named
        address = named.network_address if single and kind == "prefix" else None
        if kind != "prefix":
            address = first
        address = address if address is not None else inner.network_address + 2
    except (ValueError, KeyError, IndexError):
        return
    special = address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local
    if not special and int(address) >> (address.max_prefixlen - 8) not in (0, 255):
        yield address, inner, single


def overlapping(network: Net, others: Iterable[Net]) -> bool:
    """Whether ``network`` has addresses of one of ``others``."""
    return any(network.version == one.version and network.overlaps(one) for one in others)
