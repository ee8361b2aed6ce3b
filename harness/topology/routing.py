"""Routes and routing rules of a lab's hosts, from their description to what the kernel gets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from harness.model.fields import Keys
from harness.model.problem import Problem, nowhere, unknown
from harness.topology.parts import (
    DEFAULT,
    LOOPBACK,
    MAIN,
    TABLES,
    AddressOnLink,
    End,
    Interface,
    Nexthop,
    Route,
    RouteHop,
    RoutingRule,
    Subnet,
)
from harness.topology.spec import HopSpec, MemberSpec, NexthopSpec, RouteSpec, RuleSpec

ECN: Final = 0x03
"""Bits of the traffic class that are no part of the DSCP (RFC 3168)."""

Interfaces = Mapping[End, Interface]


class Place(NamedTuple):
    """A host, and what its routes and routing rules may name."""

    name: str
    hosts: Collection[str]
    """Names of all hosts of the lab."""
    interfaces: Interfaces
    """Of all hosts."""
    domains: Mapping[str, int]
    """The routing tables of interfaces that are in a VRF."""
    nexthops: Mapping[int, Nexthop] = {}
    """The host's nexthop objects by their ids."""

    @property
    def own(self) -> list[str]:
        """The host's interfaces."""
        return [end.interface for end in self.interfaces if end.host == self.name]


def gateway(place: Place, name: str) -> Iterator[Route]:
    """The default routes by the host ``name``.

    Raises :class:`~harness.model.problem.Problem`, without keys.
    """
    if name not in place.hosts:
        raise unknown(name, _others(place), "host of the lab")
    found = _neighbour(name, place)
    if not found:
        raise Problem(f"{name} is not on a subnet of {place.name}, so it cannot be its gateway")
    for default in DEFAULT:
        if default.version in found:
            hop = found[default.version]
            yield Route(default, (hop,), table=place.domains.get(hop.interface, MAIN))


def routes(place: Place, said: RouteSpec) -> Iterator[Route]:
    """The routes of a description, one for each IP version that it is for.

    Raises :class:`~harness.model.problem.Problem`, with keys below the route.
    """
    destinations = subnets(said.to, "to")
    table, metric = _table(said.table), said.metric or 0
    if said.type != "unicast":
        for key in ("via", "dev", "nexthop"):
            if getattr(said, key) is not None:
                raise Problem(f"a route of type {said.type} has no next hop", key, about_key=True)
        for destination in destinations:
            yield Route(destination, (), said.type, table, metric)
        return
    by_version = _hops(place, said) if said.nexthop is None else _of_object(place, said)
    ways = [(to, by_version[to.version]) for to in destinations if to.version in by_version]
    if not ways and said.nexthop is not None:
        version = place.nexthops[said.nexthop].version
        raise Problem(f"nexthop {said.nexthop} is for IPv{version}, so it is none for {said.to}", "nexthop")
    if not ways:
        raise Problem(f"{said.via} is not a next hop for {said.to}: it has no address of that IP version", "via")
    for destination, hops in ways:
        domain = place.domains.get(hops[0].interface, MAIN)
        table = domain if said.table == "main" else table
        yield Route(destination, hops, table=table, metric=metric, nexthop=said.nexthop or 0)


def _of_object(place: Place, said: RouteSpec) -> dict[int, tuple[RouteHop, ...]]:
    """The next hops of a route by a nexthop object, by IP version."""
    for key in ("via", "dev"):
        if getattr(said, key) is not None:
            raise Problem(f"a route by a nexthop has no {key} of its own", key, remedy="keep one", about_key=True)
    found = place.nexthops.get(said.nexthop or 0)
    if found is None:
        remedy = "add it to nexthops:"
        raise Problem(f"{place.name} has no nexthop {said.nexthop}", "nexthop", remedy=remedy)
    return {found.version: found.hops}


def _others(place: Place) -> list[str]:
    """The hosts that may be a next hop: a host is none of its own."""
    return [name for name in place.hosts if name != place.name]


def nexthop(place: Place, said: NexthopSpec) -> Nexthop:
    """The nexthop object of a description; those of ``place`` stand before it.

    Raises :class:`~harness.model.problem.Problem`, with keys below the nexthop.
    """
    if said.id in place.nexthops:
        raise Problem(f"{place.name} has a nexthop {said.id} already", "id")
    if said.group is not None:
        for key in ("via", "dev", "family"):
            if getattr(said, key) is not None:
                raise Problem(f"a group has no {key} of its own", key, about_key=True)
        return _group(place, said.id, said.group)
    if said.via is None and said.dev is None:
        raise Problem("has no next hop", remedy="add via: with a neighbouring host or an address, dev: or group:")
    by_version = _hops(place, RouteSpec(to="default", via=said.via, dev=said.dev))
    version = {"ip": 4, "ip6": 6}[said.family] if said.family else min(by_version)
    if version not in by_version:
        raise Problem(f"{said.via} has no IPv{version} address on a subnet of {place.name}", "via")
    return Nexthop(said.id, version, by_version[version])


def _group(place: Place, number: int, group: Sequence[int | MemberSpec]) -> Nexthop:
    members: list[Nexthop] = []
    weights: list[int] = []
    for index, one in enumerate(group):
        member = one if isinstance(one, MemberSpec) else MemberSpec(id=one)
        found = place.nexthops.get(member.id)
        if found is None or found.group:
            what = "which is a group itself" if found else "which is not further up"
            raise Problem(f"a group cannot have the member {member.id}, {what}", "group", index)
        if any(found.id == other.id for other in members):
            raise Problem(f"{member.id} is a member already", "group", index, remedy="give it a weight")
        if members and found.version != members[0].version:
            raise Problem(f"{found} is IPv{found.version}, but {members[0]} is not", "group", index)
        members.append(found)
        weights.append(member.weight)
    hops = tuple(hop._replace(weight=weight) for one, weight in zip(members, weights, strict=True) for hop in one.hops)
    ids = tuple(one.id for one in members)
    return Nexthop(number, members[0].version, hops, tuple(zip(ids, weights, strict=True)))


def _hops(place: Place, said: RouteSpec) -> dict[int, tuple[RouteHop, ...]]:
    """The next hops of a unicast route by IP version."""
    if said.dev is not None and said.dev not in place.own:
        raise unknown(said.dev, place.own, f"interface of {place.name}", "dev")
    if said.via is None:
        if said.dev is None:
            raise Problem("has no next hop", remedy="add via: with a neighbouring host or an address, or type:")
        return dict.fromkeys((4, 6), (RouteHop(None, said.dev),))
    if said.dev is not None:
        return _on_link(place, said.via, said.dev)
    several = said.via if isinstance(said.via, list) else [said.via]
    found: dict[int, tuple[RouteHop, ...]] = {}
    for index, one in enumerate(several):
        spec = one if isinstance(one, HopSpec) else HopSpec(via=one)
        keys: Keys = ("via", index) if several is said.via else ("via",)
        if spec is one:
            keys = (*keys, "via")
        for version, hop in _next(place, spec.via, *keys).items():
            found[version] = (*found.get(version, ()), hop._replace(weight=spec.weight))
    return found


def _on_link(place: Place, via: str | list[str | HopSpec], dev: str) -> dict[int, tuple[RouteHop, ...]]:
    """The next hop ``via`` at the interface ``dev``, in whichever network it is."""
    try:
        address = ip_address(via if isinstance(via, str) else "")
    except ValueError:
        remedy = "leave out dev:, or write the address of the next hop"
        raise Problem("with dev: a next hop is one address", "via", remedy=remedy) from None
    own = place.interfaces[End(place.name, dev)]
    if all(address != near.ip for end in own.reaches for near in _addresses(end, place)):
        raise Problem(f"no host on the link of {own.end} has {address}", "via")
    near = address.is_link_local or any(address in one.network for one in own.addresses)
    return {address.version: (RouteHop(address, dev, on_link=not near),)}


def _next(place: Place, text: str, *keys: str | int) -> dict[int, RouteHop]:
    """For each IP version the next hop ``text``, a host or an address."""
    if text not in place.hosts:
        return _address(text, place, *keys)
    if found := _neighbour(text, place):
        return found
    raise Problem(f"{text} is not on a subnet of {place.name}", *keys)


def _neighbour(gateway: str, place: Place) -> dict[int, RouteHop]:
    """For each IP version the address of ``gateway`` on a subnet of the host, and the interface there."""
    found: dict[int, RouteHop] = {}
    for one in place.interfaces.values():
        if one.host == place.name:
            own = {own.network for own in one.addresses}
            near = (address for end in one.reaches if end.host == gateway for address in _addresses(end, place))
            for address in near:
                if address.network in own:
                    found.setdefault(address.version, RouteHop(address.ip, one.name))
    return found


def _address(text: str, place: Place, *keys: str | int) -> dict[int, RouteHop]:
    try:
        via = ip_address(text)
    except ValueError:
        raise nowhere(text, _others(place), *keys) from None
    for one in place.interfaces.values():
        if one.host != place.name or not any(via in own.network for own in one.addresses):
            continue
        if via in (own.ip for own in one.addresses):
            raise Problem(f"{via} is {place.name}'s own address", *keys)
        if not any(via == near.ip for end in one.reaches for near in _addresses(end, place)):
            raise Problem(f"no host on the link of {one.end} has {via}", *keys)
        return {via.version: RouteHop(via, one.name)}
    raise Problem(f"{via} is on no subnet of {place.name}", *keys)


def _addresses(end: End, place: Place) -> tuple[AddressOnLink, ...]:
    return place.interfaces[end].addresses


def rules(place: Place, said: RuleSpec, own: Collection[Route]) -> Iterator[RoutingRule]:
    """The routing rules of a description, one for each IP version; ``own`` are the routes of the host.

    Raises :class:`~harness.model.problem.Problem`, with keys below the rule.
    """
    for version in _check_rule(place, said, own):
        source, destination = (
            next((one for one in subnets(text, "") if one.version == version), None) if text else None
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
            said.not_,
            said.dsfield or 0,
            said.suppress_prefixlength,
        )


def _check_rule(place: Place, said: RuleSpec, own: Collection[Route]) -> list[int]:
    """The IP versions that the policy rule ``said`` is for.

    Raises :class:`~harness.model.problem.Problem`, with keys below the rule, when it contradicts itself or the host.
    """
    ends = [subnets(text, key) for key, text in (("from", said.from_), ("to", said.to)) if text]
    versions = [version for version in (4, 6) if all(version in (one.version for one in end) for end in ends)]
    if not versions:
        raise Problem("from and to are of different IP versions")
    for key in ("iif", "oif"):
        if (interface := getattr(said, key)) is not None and interface not in (*place.own, LOOPBACK):
            raise unknown(interface, place.own, f"interface of {place.name}", key)
    if said.mask is not None and said.mark is None:
        raise Problem("has no mark to apply to", "mask", remedy="add mark:", about_key=True)
    if said.dsfield is not None and said.dsfield & ECN:
        remedy = f"write {said.dsfield & ~ECN}"
        raise Problem(f"{said.dsfield} has bits of ECN, which select no route", "dsfield", remedy=remedy)
    _check_table(place, said, own)
    return versions


def _check_table(place: Place, said: RuleSpec, own: Collection[Route]) -> None:
    if said.table is None and said.type == "unicast":
        raise Problem(f"a rule of type {said.type} needs table", remedy="add table:")
    if said.type != "unicast":
        for key in ("table", "suppress_prefixlength"):
            if getattr(said, key) is not None:
                raise Problem(f"a rule of type {said.type} has no {key}", remedy=f"remove {key}: or type:")
    table = _table(said.table) if said.table else 0
    known = {*TABLES.values(), *(route.table for route in own), *place.domains.values()}
    if table and table not in known:
        raise Problem(
            f"no route of {place.name} is in table {table}", "table", remedy=f"add one to routes: with table: {table}"
        )


def subnets(text: str, *keys: str | int) -> tuple[Subnet, ...]:
    """The networks of ``text``: one, or for ``default`` one of each IP version.

    Raises :class:`~harness.model.problem.Problem` with ``keys``.
    """
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
        raise Problem(sentence, *keys, remedy=remedy) from None


def _table(said: int | str) -> int:
    return said if isinstance(said, int) else TABLES[said]
