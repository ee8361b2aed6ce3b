"""A lab drawn as text, and as a Mermaid diagram."""

from __future__ import annotations

from collections.abc import Iterator

from harness.text import mermaid as label
from harness.topology.network import Network
from harness.topology.parts import Bridge, Interface


def text(network: Network) -> str:
    """Hosts, their interfaces, and what is at the other end of each, for a terminal."""
    own = {one.end: ", ".join(map(str, one.addresses)) or "-" for one in network.interfaces}
    name, addresses = max(len(end.interface) for end in own), max(map(len, own.values()))
    lines: list[str] = []
    for host, plan in network.hosts.items():
        lines.append(f"{host}{_notes(network, host)}")
        for one in plan.interfaces.values():
            lines.append(f"  {one.name:{name}}  {own[one.end]:{addresses}}  {_other_end(network, one)}")
        lines += [f"  route  {route}" for route in plan.routes]
        lines += [f"  rule   {rule}" for rule in dict.fromkeys(map(str, plan.rules))]
    return "\n".join(lines) + "\n"


def mermaid(network: Network) -> str:
    """The same as a diagram that GitHub and many editors show: see https://mermaid.js.org."""
    return "\n".join(["graph LR", *_nodes(network), *_edges(network)]) + "\n"


def _notes(network: Network, host: str) -> str:
    plan = network.hosts[host]
    words = ["under test"] * (host == network.device) + ["forwards"] * plan.forwarding + ["silent"] * plan.silent
    return f" ({', '.join(words)})" if words else ""


def _other_end(network: Network, one: Interface) -> str:
    host = network.hosts[one.host]
    end = str(host.made[one.name]) if one.name in host.made else f"── {one.peer}"
    for bridge in host.bridges.values():
        if passing := bridge.vlans.get(one.name):
            untagged = [f"VLAN {passing.untagged} untagged"] if passing.untagged else []
            tagged = [f"VLAN {', '.join(map(str, passing.tagged))} tagged"] if passing.tagged else []
            end += f" ({', '.join([*untagged, *tagged])})"
    return end if one.given_mtu is None else f"{end}, MTU {one.given_mtu}"


def _nodes(network: Network) -> Iterator[str]:
    for name, host in network.hosts.items():
        made = [
            f"{one} {', '.join(map(str, host.interfaces[one].addresses))}".strip()
            + ("" if isinstance(of, Bridge) else f" ({of})")
            for one, of in host.made.items()
        ]
        yield f"  {_id(name)}[{label(f'{name} (under test)' if name == network.device else name, *made)}]"


def _edges(network: Network) -> Iterator[str]:
    for one, other in network.links:
        ends = [" ".join([end.name, *(str(own) for own in end.addresses)]) for end in (one, other)]
        yield f"  {_id(one.host)} ---|{label(*ends)}| {_id(other.host)}"


def _id(host: str) -> str:
    """A name that is not a keyword of Mermaid, such as ``end``."""
    return f"host_{host.replace('-', '_')}"
