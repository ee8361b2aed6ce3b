"""The lab that a ruleset belongs into: chosen from its hooks, the interfaces it names and its addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, NamedTuple

from harness.init.facts import Facts
from harness.init.simulate import SimulatedRuleset
from harness.netfilter import IP_FAMILIES
from harness.topology.builtin import LABS, rename
from harness.topology.network import Network
from harness.topology.spec import HostSpec, LabSpec

_OUTSIDE = re.compile(r"wan|ppp|ext|uplink|inet|internet|public|outside|world|isp|red", re.IGNORECASE)
_INSIDE = re.compile(r"lan|int|home|office|dmz|docker|br|virbr|wg|tun|private|inside|green|guest", re.IGNORECASE)
_HOST_NAMES = ("server", "pc", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class ChosenLab(NamedTuple):
    """A lab, as a scenario file says it and as it is planned."""

    lab: str | LabSpec
    interfaces: dict[str, str]
    """New names for the device's interfaces."""
    network: Network

    @property
    def described(self) -> str:
        """Who is where: ``client — wan0 device lan0 — server``."""
        device = self.network.hosts[self.network.device]
        sides = [(one.name, one.peer.host) for one in device.interfaces.values() if one.name not in device.bridges]
        (first, client), *others = sides
        return f"{client} — {first} device" + ", device".join(f" {name} — {host}" for name, host in others)


def choose(facts: Facts) -> ChosenLab:
    """The lab for ``facts``: a built-in one under the ruleset's names where that will do, else one of its own."""
    names = _outside_first(facts)
    bases = [one for one in SimulatedRuleset(facts).chains.values() if one.hook]
    hooks = {(one.family, one.hook) for one in bases}
    routes = {one.hook for one in bases if one.family in IP_FAMILIES}
    own = any(one.hook in ("input", "output") for one in bases if one.kind == "filter" and one.family != "bridge")
    nat = any(one.kind == "nat" for one in bases)
    routed = "forward" in routes or (nat and not own)
    bridged = ("bridge", "forward") in hooks and not routed
    if bridged and len(names) <= 2:
        return _built_in("bridge", dict(zip(("port0", "port1"), names, strict=False)))
    if not routed and len(names) <= 1:
        return _built_in("host", dict(zip(("eth0",), names, strict=False)))
    addresses = _addresses(facts, names)
    if not addresses and len(names) <= 2:
        return _built_in("router", dict(zip(("wan0", "lan0"), names, strict=False)))
    if not addresses and len(names) == 3:
        return _built_in("nat-gateway", dict(zip(("wan0", "lan0", "dmz0"), names, strict=False)))
    spec = _own(names if len(names) > 1 else [*names, "wan0", "lan0"][:2], addresses)
    return ChosenLab(spec, {}, Network.of(spec))


def _built_in(lab: str, interfaces: Mapping[str, str]) -> ChosenLab:
    names = {old: new for old, new in interfaces.items() if old != new}
    return ChosenLab(lab, names, Network.of(rename(LABS[lab], names)))


def _outside_first(facts: Facts) -> list[str]:
    """The interfaces that the ruleset names; the one towards the Internet, as far as its name tells, first."""
    found: dict[str, None] = {}
    for one in facts.chains:
        found |= dict.fromkeys(one.devices)
    for value in (one["rule"] for one in facts.objects if "rule" in one):
        for name in _named(value["expr"]):
            found.setdefault(name.replace("*", "0"))
    for name in _in_sets(facts):
        found.setdefault(name)
    masked = {name for value in facts.objects if "rule" in value for name in _masquerading(value["rule"]["expr"])}

    def rank(name: str) -> int:
        words = f"{name} {facts.defines.get(name, '')}"
        return 0 if _OUTSIDE.search(words) else 3 if _INSIDE.search(words) else 1 if name in masked else 2

    return sorted((name for name in found if name != "lo"), key=rank)


def _in_sets(facts: Facts) -> Iterator[str]:
    """The interfaces in named sets, and among the keys of named maps."""
    for value in (one[kind] for one in facts.objects for kind in ("set", "map") if kind in one):
        kinds = value["type"] if isinstance(value["type"], list) else [value["type"]]
        for element in value.get("elem", ()):
            key = element[0] if "map" in value and isinstance(element, list) else element
            parts = key.get("concat", [key]) if isinstance(key, dict) else [key]
            for part, kind in zip(parts, kinds, strict=False):
                if kind in ("ifname", "iface_index") and isinstance(part, str):
                    yield part


def _named(expression: Any) -> Iterator[str]:
    """The interfaces in matches and verdict maps."""
    if isinstance(expression, list):
        for one in expression:
            yield from _named(one)
    elif isinstance(expression, dict):
        if "match" in expression:
            yield from _compared(expression["match"]["left"], expression["match"]["right"])
        elif "vmap" in expression and isinstance(expression["vmap"]["data"], dict):
            keys = [key for key, _ in expression["vmap"]["data"]["set"]]
            yield from _compared(expression["vmap"]["key"], {"set": keys})
        for word in ("fwd", "dup"):
            if isinstance(expression.get(word), dict) and isinstance(expression[word].get("dev"), str):
                yield expression[word]["dev"]


def _compared(left: Any, right: Any) -> Iterator[str]:
    members = right.get("set", [right]) if isinstance(right, dict) else [right]
    parts = left.get("concat", [left]) if isinstance(left, dict) else []
    for place, part in enumerate(parts):
        if isinstance(part, dict) and part.get("meta", {}).get("key") in ("iif", "oif", "iifname", "oifname"):
            for member in members:
                concat = member.get("concat") if isinstance(member, dict) else None
                name = concat[place] if concat else member
                if isinstance(name, str) and not name.startswith("@"):
                    yield name


def _masquerading(expressions: list[Any]) -> Iterator[str]:
    if any("masquerade" in one or "snat" in one for one in expressions):
        yield from _named([one for one in expressions if one.get("match", {}).get("op") == "=="])


def _addresses(facts: Facts, names: list[str]) -> dict[str, IPv4Address]:
    """Addresses that hosts behind interfaces must have: a rule names both, or translates to them."""
    inside = names[1:] or ["lan0"]
    known = [ip_network(text, strict=False) for text in ("203.0.113.0/24", "10.0.2.0/24", "192.168.1.0/24")]
    found: dict[str, IPv4Address] = {}
    for value in (one["rule"]["expr"] for one in facts.objects if "rule" in one):
        for name, address in _placed(value, inside[0]):
            if address.is_private and not address.is_loopback and [name] != names[:1]:
                found.setdefault(name, address)
    if all(any(address in network for network in known) for address in found.values()) and len(names) <= 2:
        return {} if all(address in known[1] for address in found.values()) else found
    return found


def _placed(expressions: list[Any], first_inside: str) -> Iterator[tuple[str, IPv4Address]]:
    ways = {"iif": "saddr", "iifname": "saddr", "oif": "daddr", "oifname": "daddr"}
    named: dict[str, str] = {}
    addresses: dict[str, IPv4Address] = {}
    for one in expressions:
        match = one.get("match", {})
        left = match.get("left", {}) if match.get("op") == "==" else {}
        if not isinstance(left, dict):
            continue
        if (key := left.get("meta", {}).get("key")) in ways and isinstance(match["right"], str):
            named[ways[key]] = match["right"]
        elif left.get("payload", {}).get("protocol") == "ip" and (address := _address(match["right"])):
            addresses[left["payload"].get("field", "")] = address
        if isinstance(to := (one.get("dnat") or {}).get("addr"), str) and (address := _address(to)):
            yield first_inside, address
    for field, name in named.items():
        if field in addresses:
            yield name, addresses[field]


def _address(right: Any) -> IPv4Address | None:
    """The address, or the second one of a network."""
    if isinstance(right, dict) and "prefix" in right:
        right, more = right["prefix"]["addr"], 2
    else:
        more = 0
    try:
        address = ip_address(str(right)) + more
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) else None


def _own(names: list[str], addresses: Mapping[str, IPv4Address]) -> LabSpec:
    """A router with a host behind each interface; behind the first one lies the Internet."""
    outside, *inside = names
    subnets = []
    for number, name in enumerate(inside, 2):
        host = addresses.get(name, IPv4Address(f"10.0.{number}.2"))
        last = int(host) & 0xFF
        subnets.append((name, IPv4Address(int(host) - last + (1 if last != 1 else 254)), host, number))
    hosts = {
        "client": HostSpec(interfaces={"eth0": ["203.0.113.5/24", "2001:db8:113::5/64"]}, gateway="device"),
        "device": HostSpec(
            interfaces={outside: ["203.0.113.1/24", "2001:db8:113::1/64"]}
            | {name: [f"{own}/24", f"2001:db8:{number}::1/64"] for name, own, _, number in subnets},
            gateway="client",
            forwarding=True,
        ),
    }
    links = [["client:eth0", f"device:{outside}"]]
    for server, (name, _, address, number) in zip(_HOST_NAMES, subnets, strict=False):
        hosts[server] = HostSpec(interfaces={"eth0": [f"{address}/24", f"2001:db8:{number}::2/64"]}, gateway="device")
        links.append([f"device:{name}", f"{server}:eth0"])
    return LabSpec(hosts=hosts, links=links)
