"""The machine as the device under test of a lab: its interfaces, addresses, routes, rules and settings.

Whatever the language of labs has no word for becomes the nearest thing that is the same for a packet, and a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from typing import Any, Final

from harness.topology.parts import Subnet
from harness.topology.segments import KINDS
from harness.twin import interfaces, settings
from harness.twin.machine import Hop, KernelRoute, Machine

LOOPBACK: Final = "loopback0"
"""A dummy that has the addresses of ``lo``, which a lab cannot give any."""
_TYPES: Final = {
    "1": "unicast",
    "2": "local",
    "3": "broadcast",
    "4": "anycast",
    "5": "multicast",
    "6": "blackhole",
    "7": "unreachable",
    "8": "prohibit",
    "9": "throw",
}
"""Of routes and of actions of rules: linux/rtnetlink.h, linux/fib_rules.h."""
_TABLES: Final = {"255": "local", "254": "main", "253": "default"}
_KERNEL: Final = ("2", "kernel")
"""Protocol of the routes that the kernel makes of addresses."""
_UNKNOWN_KEYS: Final = ("uid_start", "ipproto", "sport", "dport", "goto", "nop", "realms", "suppress_ifgroup", "tun_id")
_USUAL_RULES: Final = {(0, "local"), (32766, "main"), (32767, "default")}


@dataclass
class Device:
    """The host of a lab that is the machine, as a lab file says it, and what is to stand around it."""

    host: dict[str, Any]
    wires: list[str] = field(default_factory=list)
    """The interfaces that lead to other hosts."""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    """The interfaces that lead to one another."""
    routes: list[tuple[KernelRoute, Hop]] = field(default_factory=list)
    """Where routes lead, for the hosts there."""
    notes: list[str] = field(default_factory=list)
    """What is not as on the machine."""

    def networks(self, interface: str) -> list[Subnet]:
        """The networks of the addresses of an interface."""
        return [ip_interface(text).network for text in self.host["interfaces"].get(interface, [])]


def of(machine: Machine) -> Device:
    """The ``machine`` as a host; next hops and tunnels are not checked."""
    words = set(re.findall(r"[\w.@+-]+", "\n".join((machine.nft, *machine.saves.values()))))
    device = Device({"interfaces": {}, **{key: {} for key in KINDS if key != "dummies"}, "dummies": [], "ports": {}})
    kept = [link for link in machine.links.values() if not interfaces.is_left_out(link, machine, words, device.notes)]
    for link in kept:
        device.host["interfaces"][link.ifname] = interfaces.addresses(link, machine, device.notes)
    if own := interfaces.own_addresses(machine):
        device.host["interfaces"][LOOPBACK] = own
        device.host["dummies"].append(LOOPBACK)
        device.notes.append(f"addresses of lo ({', '.join(own)}) are those of a dummy, {LOOPBACK}")
    for link in kept:
        interfaces.enter(link, machine, device)
    interfaces.filter_vlans(machine, device)
    interfaces.set_mtu(kept, device)
    device.host["routes"] = list(_routes(machine, device))
    device.host["rules"] = list(_rules(machine, device))
    device.host["forwarding"] = settings.forwarding(machine.sysctls)
    device.host["sysctls"] = settings.of(
        machine.sysctls, device.host["interfaces"], bridged=bool(device.host["bridges"])
    )
    paths = {name if "/" in name else name.replace(".", "/"): str(v) for name, v in device.host["sysctls"].items()}
    text = "\n".join((machine.nft, *machine.saves.values()))
    device.host["modules"] = settings.modules(paths, machine.modules, text)
    if machine.policies:
        device.notes.append(f"{machine.policies} policies of IPsec are left out: packets pass in the clear")
    return device


# --- routes and rules ----------------------------------------------------------------------------


def _routes(machine: Machine, device: Device) -> Iterator[dict[str, Any]]:
    """The routes that no address implies; their next hops are written later, where hosts have been placed."""
    for version, routes in machine.routes.items():
        for route in routes:
            kind = _TYPES.get(route.type, route.type)
            table = _TABLES.get(str(route.table), str(route.table))
            if _is_implied(route, kind, table, device):
                continue
            said: dict[str, Any] = {"to": route.dst}
            if kind not in ("unicast", "blackhole", "unreachable", "prohibit", "local"):
                device.notes.append(f"the route to {route.dst} of type {kind} in table {table} is left out")
                continue
            if route.src or route.encap:
                device.notes.append(
                    f"the route to {route.dst} in table {table} has a source or an encapsulation: left out"
                )
                continue
            if kind == "unicast":
                hops = [hop for hop in route.hops if hop.dev in device.host["interfaces"] and not hop.via]
                if not hops:
                    device.notes.append(f"the route to {route.dst} by {route.dev or 'several next hops'} is left out")
                    continue
                device.routes += [(route, hop) for hop in hops]
                said["hops"] = hops
            else:
                said["type"] = kind
            if route.metric and not (version == 6 and route.metric == 1024):
                said["metric"] = route.metric
            if table != "main":
                said["table"] = int(table) if table.isdecimal() else table
            yield said


def _is_implied(route: KernelRoute, kind: str, table: str, device: Device) -> bool:
    """Whether the kernel makes a route of an address, a VRF or an interface by itself."""
    if kind in ("broadcast", "anycast", "multicast") or route.dst in ("ff00::/8", "fe80::/64"):
        return True
    if route.protocol not in _KERNEL:
        return ip_network(route.dst).is_link_local
    if kind == "local" or table == "local":
        return True
    # A route to the other end of a point-to-point link is the kernel's as well, but not of the address as a lab has it.
    networks = [network for one in device.host["interfaces"] for network in device.networks(one)]
    return ip_network(route.dst) in networks or not route.dev


def _rules(machine: Machine, device: Device) -> Iterator[dict[str, Any]]:
    tables = {route.get("table", "main") for route in device.host["routes"]}
    tables |= {"main", "local", "default", *(vrf["table"] for vrf in device.host["vrfs"].values())}
    for version, rules in machine.rules.items():
        for rule in rules:
            table = _TABLES.get(str(rule.get("table")), str(rule.get("table", "")))
            if "l3mdev" in rule or ((rule.get("priority"), table) in _USUAL_RULES and rule.get("src") == "all"):
                continue
            words = _spelled(rule)
            if unknown := [key for key in _UNKNOWN_KEYS if key in rule]:
                device.notes.append(f"the routing rule '{words}' selects by {unknown[0]}: left out")
                continue
            said = _rule(rule, version)
            if "table" in said and said["table"] not in tables:
                continue  # of an empty table: it selects nothing
            yield said


def _rule(rule: dict[str, Any], version: int) -> dict[str, Any]:
    said: dict[str, Any] = {"not": True} if "not" in rule else {}
    for key, name in (("from", "src"), ("to", "dst")):
        if rule.get(name, "all") != "all":
            length = rule.get(f"{name}len", 32 if version == 4 else 128)
            said[key] = str(ip_network(f"{rule[name]}/{length}", strict=False))
    if "from" not in said and "to" not in said:
        said["from"] = "0.0.0.0/0" if version == 4 else "::/0"  # so that it is for this IP version only
    for key, name in (("mark", "fwmark"), ("mask", "fwmask"), ("dsfield", "tos")):
        if name in rule:
            said[key] = int(str(rule[name]), 0)
    said |= {key: str(rule[key]) for key in ("iif", "oif") if key in rule}
    action = _TYPES.get(str(rule.get("action", "1")), str(rule.get("action")))
    if action in ("blackhole", "unreachable", "prohibit"):
        said["type"] = action
    else:
        table = _TABLES.get(str(rule.get("table")), str(rule.get("table", "main")))
        said["table"] = int(table) if table.isdecimal() else table
        if "suppress_prefixlen" in rule or "suppress_prefixlength" in rule:
            said["suppress_prefixlength"] = int(rule.get("suppress_prefixlen", rule.get("suppress_prefixlength", 0)))
    return said | {"priority": int(rule.get("priority", 0))}


def _spelled(rule: dict[str, Any]) -> str:
    return " ".join(f"{key} {value}" if value is not None else key for key, value in rule.items())
