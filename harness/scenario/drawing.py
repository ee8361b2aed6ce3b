"""A lab drawn as text, and as a Mermaid diagram."""

from __future__ import annotations

from collections.abc import Iterator

from harness.scenario.network import Interface, Network


def text(network: Network) -> str:
    """Hosts, their interfaces, and what is at the other end of each, for a terminal."""
    own = {one.end: ", ".join(map(str, one.addresses)) or "-" for one in network.interfaces}
    name, addresses = max(len(end.interface) for end in own), max(map(len, own.values()))
    lines: list[str] = []
    host = ""
    for one in network.interfaces:
        if one.host != host:
            host = one.host
            lines.append(f"{host}{_notes(network, host)}")
        lines.append(f"  {one.name:{name}}  {own[one.end]:{addresses}}  {_other_end(network, one)}")
    return "\n".join(lines) + "\n"


def mermaid(network: Network) -> str:
    """The same as a diagram that GitHub and many editors show: see https://mermaid.js.org."""
    return "\n".join(["graph LR", *_nodes(network), *_edges(network)]) + "\n"


def _notes(network: Network, host: str) -> str:
    plan = network.hosts[host]
    words = ["under test"] * (host == network.device) + ["forwards"] * plan.forwarding + ["silent"] * plan.silent
    words += [f"{route.destination} by {route.via}" for route in plan.routes]
    return f" ({', '.join(words)})" if words else ""


def _other_end(network: Network, one: Interface) -> str:
    if bridge := network.hosts[one.host].bridges.get(one.name):
        return f"bridge of {', '.join(bridge.ports)}"
    return f"── {one.peer}"


def _nodes(network: Network) -> Iterator[str]:
    for name, host in network.hosts.items():
        bridges = [
            f"{bridge} {', '.join(map(str, host.interfaces[bridge].addresses))}".strip() for bridge in host.bridges
        ]
        label = "<br>".join([f"<b>{name}</b>" if name == network.device else name, *bridges])
        yield f'  {_id(name)}["{label}"]'


def _edges(network: Network) -> Iterator[str]:
    for one, other in network.links:
        ends = [" ".join([end.name, *(str(own) for own in end.addresses)]) for end in (one, other)]
        yield f'  {_id(one.host)} ---|"{ends[0]}<br>{ends[1]}"| {_id(other.host)}'


def _id(host: str) -> str:
    """A name that is no word of Mermaid's, such as ``end``."""
    return f"host_{host.replace('-', '_')}"
