"""Routes and routing rules of a lab's hosts, from their description to what the kernel gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from harness.model.problem import Problem, nowhere, unknown
from harness.topology.parts import DEFAULT, LOOPBACK, MAIN, TABLES, Address, End, Interface, Route, RoutingRule, Subnet
from harness.topology.spec import HostSpec, LabSpec, RouteSpec, RuleSpec

Interfaces = Mapping[End, Interface]


def routes(spec: LabSpec, name: str, interfaces: Interfaces) -> Iterator[Route]:
    """The routes of the host ``name`` that its addresses do not imply.

    Raises :class:`~harness.model.problem.Problem`, with keys below the lab.
    """
    host = spec.hosts[name]
    if host.gateway is not None:
        keys = ("hosts", name, "gateway")
        if host.gateway not in spec.hosts:
            raise unknown(host.gateway, spec.hosts, "host of the lab", *keys)
        found = _neighbour(host.gateway, name, interfaces)
        if not found:
            raise Problem(f"{host.gateway} is not on a subnet of {name}, so it cannot be its gateway", *keys)
        for default in DEFAULT:
            if default.version in found:
                via, interface = found[default.version]
                yield Route(default, via, interface, table=_domain(host, interface))
    for index, said in enumerate(host.routes):
        try:
            yield from _route(said, name, spec, interfaces)
        except Problem as problem:
            raise problem.below("hosts", name, "routes", index) from None


def _route(said: RouteSpec, name: str, spec: LabSpec, interfaces: Interfaces) -> Iterator[Route]:
    destinations = _subnets(said.to, "to")
    table, metric = _table(said.table), said.metric or 0
    if said.type != "unicast":
        if said.via is not None:
            raise Problem(f"a route of type {said.type} has no next hop", "via", about_key=True)
        for destination in destinations:
            yield Route(destination, None, "", said.type, table, metric)
        return
    if said.via is None:
        raise Problem("has no next hop", remedy="add via: with a neighbouring host or an address, or type:")
    found: Mapping[int, tuple[Address, str]]
    if said.via in spec.hosts:
        found = _neighbour(said.via, name, interfaces)
        if not found:
            raise Problem(f"{said.via} is not on a subnet of {name}", "via")
    else:
        found = _address(said.via, name, spec, interfaces)
    ways = [(to, *found[to.version]) for to in destinations if to.version in found]
    if not ways:
        raise Problem(f"{said.via} is not a next hop for {said.to}: it has no address of that IP version", "via")
    for destination, via, interface in ways:
        domain = _domain(spec.hosts[name], interface)
        yield Route(destination, via, interface, table=domain if said.table == "main" else table, metric=metric)


def _neighbour(gateway: str, host: str, interfaces: Interfaces) -> dict[int, tuple[Address, str]]:
    """For each IP version the address of ``gateway`` on a subnet of ``host``, and the interface there."""
    found: dict[int, tuple[Address, str]] = {}
    for one in interfaces.values():
        if one.host == host:
            own = {own.network for own in one.addresses}
            near = [address for end in one.reaches if end.host == gateway for address in interfaces[end].addresses]
            for address in near:
                if address.network in own:
                    found.setdefault(address.version, (address.ip, one.name))
    return found


def _address(text: str, host: str, spec: LabSpec, interfaces: Interfaces) -> dict[int, tuple[Address, str]]:
    try:
        via = ip_address(text)
    except ValueError:
        raise nowhere(text, spec.hosts, "via") from None
    for one in interfaces.values():
        if one.host != host or not any(via in own.network for own in one.addresses):
            continue
        if via in (own.ip for own in one.addresses):
            raise Problem(f"{via} is {host}'s own address", "via")
        if not any(via == near.ip for end in one.reaches for near in interfaces[end].addresses):
            raise Problem(f"no host on the link of {one.end} has {via}", "via")
        return {via.version: (via, one.name)}
    raise Problem(f"{via} is on no subnet of {host}", "via")


def rules(spec: LabSpec, name: str, own: tuple[Route, ...]) -> Iterator[RoutingRule]:
    """The policy rules of the host ``name``, whose routes are ``own``.

    Raises :class:`~harness.model.problem.Problem`, with keys below the lab.
    """
    host = spec.hosts[name]
    for index, said in enumerate(host.rules):
        try:
            versions = _check_rule(host, name, said, own)
        except Problem as problem:
            raise problem.below("hosts", name, "rules", index) from None
        for version in versions:
            source, destination = (
                next((one for one in _subnets(text, "") if one.version == version), None) if text else None
                for text in (said.from_, said.to)
            )
            yield RoutingRule(
                version,
                source,
                destination,
                said.mark,
                said.mask,
                said.iif or "",
                said.oif or "",
                said.type,
                _table(said.table) if said.table else 0,
                said.priority,
            )


def _check_rule(host: HostSpec, name: str, said: RuleSpec, own: tuple[Route, ...]) -> list[int]:
    """The IP versions that the policy rule ``said`` is for.

    Raises :class:`~harness.model.problem.Problem`, with keys below the rule, when it contradicts itself or the host.
    """
    ends = [_subnets(text, key) for key, text in (("from", said.from_), ("to", said.to)) if text]
    versions = [version for version in (4, 6) if all(version in (one.version for one in end) for end in ends)]
    if not versions:
        raise Problem("from and to are of different IP versions")
    for key in ("iif", "oif"):
        if (interface := getattr(said, key)) is not None and interface not in (*host.interfaces, LOOPBACK):
            raise unknown(interface, host.interfaces, f"interface of {name}", key)
    if said.mask is not None and said.mark is None:
        raise Problem("has no mark to apply to", "mask", remedy="add mark:", about_key=True)
    _check_table(host, name, said, own)
    return versions


def _check_table(host: HostSpec, name: str, said: RuleSpec, own: tuple[Route, ...]) -> None:
    if said.table is None and said.type == "unicast":
        raise Problem(f"a rule of type {said.type} needs table", remedy="add table:")
    if said.table is not None and said.type != "unicast":
        raise Problem(f"a rule of type {said.type} has no table", remedy="remove table: or type:")
    table = _table(said.table) if said.table else 0
    known = {*TABLES.values(), *(route.table for route in own), *(vrf.table for vrf in host.vrfs.values())}
    if table and table not in known:
        raise Problem(
            f"no route of {name} is in table {table}", "table", remedy=f"add one to routes: with table: {table}"
        )


def _subnets(text: str, key: str) -> tuple[Subnet, ...]:
    """The networks of ``text``: one, or for ``default`` one of each IP version."""
    if text == "default":
        return DEFAULT
    try:
        return (ip_network(text),)
    except ValueError as wrong:
        sentence = (
            f"'{text}' has bits set after its prefix" if "host bits" in str(wrong) else f"'{text}' is not a network"
        )
        remedy = (
            f"write {ip_network(text, strict=False)}" if "host bits" in str(wrong) else "write 10.9.0.0/16 or default"
        )
        raise Problem(sentence, key, remedy=remedy) from None


def _table(said: int | str) -> int:
    return said if isinstance(said, int) else TABLES[said]


def _domain(host: HostSpec, interface: str) -> int:
    """The routing table for packets received at ``interface``."""
    return next((vrf.table for vrf in host.vrfs.values() if interface in vrf.interfaces), MAIN)
