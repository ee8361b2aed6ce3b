"""From a scenario's ``connect`` and ``exchange`` to the ends of a flow of real sockets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Final, Literal

import msgspec
from msgspec import structs

from harness.model.problem import Problem, nowhere, unknown
from harness.scenario.models.actions import (
    Action,
    AnswerAction,
    ChangeAction,
    ConnectAction,
    ExchangeAction,
    ListenAction,
)
from harness.scenario.models.sockets import Connect, Content, Exchange
from harness.topology import changes
from harness.topology.network import Network
from harness.topology.parts import Address, HostPlan

VERSIONS: Final = {"ip": 4, "ip6": 6}


class FlowPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The ends of a flow."""

    protocol: Literal["tcp", "udp"]
    host: str
    """The calling host."""
    sport: int
    destination: Address
    dport: int
    owner: str | None
    """The host that has the destination; None for an address that no host has."""

    def __str__(self) -> str:
        name = f"{self.owner} " if self.owner else ""
        address = f"[{self.destination}]" if self.destination.version == 6 else str(self.destination)
        return f"{self.host} :{self.sport} → {name}{address}:{self.dport} {self.protocol}"


def plan(flow: Connect | Exchange, network: Network) -> FlowPlan:
    """Fill in what ``flow`` leaves open.

    Raises :class:`~harness.model.problem.Problem`, with keys below the flow, when it contradicts
    itself or the lab.
    """
    if flow.from_ not in network.hosts:
        raise unknown(flow.from_, network.hosts, "host of the lab", "from")
    udp = flow.udp if isinstance(flow, Exchange) else None
    if flow.tcp is None and udp is None:
        raise Problem("has no port", remedy="add tcp: or udp: with a port")
    if flow.tcp is not None and udp is not None:
        raise Problem("a flow cannot be tcp and udp at once", "udp")
    destination = _destination(flow, network)
    owner = network.owner(destination)
    here = network.hosts[flow.from_]
    if flow.device is not None and flow.device not in here.interfaces:
        raise unknown(flow.device, here.interfaces, f"interface of {flow.from_}", "device")
    # What rules of its policy and other tables say only the kernel knows.
    if owner != flow.from_ and flow.device is None and not (here.rules and not here.silent):
        try:
            interface = network.route(flow.from_, destination).interface
        except Problem as problem:
            raise problem.below("to") from None
        if interface.address(destination.version) is None:
            raise Problem(f"{interface.end} has no IPv{destination.version} address to call from", "from")
    return FlowPlan(
        protocol="udp" if udp is not None else "tcp",
        host=flow.from_,
        sport=flow.sport,
        destination=destination,
        dport=udp if udp is not None else flow.tcp or 0,
        owner=owner,
    )


def _destination(flow: Connect | Exchange, network: Network) -> Address:
    """The address that ``flow`` calls, of the IP version that it asks for."""
    version = VERSIONS[flow.family] if flow.family else None
    if flow.to in network.hosts:
        for family in (version,) if version else (4, 6):
            if (found := network.address(flow.to, family, towards=flow.from_)) is not None:
                return found
        raise Problem(f"{flow.to} has no IPv{version} address" if version else f"{flow.to} has no address", "to")
    try:
        destination: Address = ip_address(flow.to)
    except ValueError:
        raise nowhere(flow.to, network.hosts, "to") from None
    if version and destination.version != version:
        raise Problem(f"{flow.to} is IPv{destination.version}, but family is {flow.family}", "family")
    return destination


def content(said: str | Content) -> bytes:
    """The bytes that a scenario writes as text, in hexadecimal, or as a size."""
    if isinstance(said, str):
        return said.encode()
    return b"." * said.size if said.size is not None else bytes.fromhex(said.hex or "")


def speakers(actions: Iterable[Action], network: Network) -> set[str]:
    """The hosts that have a program in ``actions``, or are called and do not answer by hand-made packets."""
    names: set[str | None] = set()
    by_hand: set[str] = set()
    for action in actions:
        match action:
            case AnswerAction(answer=answers):
                by_hand.add(answers.on)
            case ListenAction(listen=program):
                names.add(program.on)
            case ChangeAction(change=change):
                network = changes.plan(change, network).network
            case ConnectAction(connect=called) | ExchangeAction(exchange=called):
                names |= {called.from_, plan(called, network).owner}
    return {name for name in names if name is not None} - by_hand


def speaking(names: Collection[str], network: Network) -> Network:
    """``network`` in which the kernels of the hosts ``names`` have their addresses and answer for themselves.

    Where any does, hosts that answer resolve each other, unless the lab has ``neighbours: known``.
    """
    if not names:
        return network
    hosts = {
        name: structs.replace(host, silent=False, speaking=frozenset(host.interfaces)) if name in names else host
        for name, host in network.hosts.items()
    }
    if network.resolves:
        answering = {
            own.ip
            for host in hosts.values()
            for interface in host.interfaces.values()
            for own in interface.addresses
            if interface.name in host.speaking
        }
        hosts = {name: _resolving(host, answering) for name, host in hosts.items()}
    return structs.replace(network, hosts=hosts)


def _resolving(host: HostPlan, answering: Collection[Address]) -> HostPlan:
    """``host`` with those neighbours to be resolved that can answer."""
    neighbours = (
        one._replace(known=one.interface not in host.speaking or one.address not in answering)
        for one in host.neighbours
    )
    return structs.replace(host, neighbours=tuple(neighbours))
