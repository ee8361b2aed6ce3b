"""Changes of a lab in the middle of a scenario: as they are described, and what they make of its plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, structs

from harness.model.fields import HostName, InterfaceName, Model
from harness.model.problem import Problem, unknown
from harness.topology import routing, sysctls
from harness.topology.addressing import address_on_link, neighbours
from harness.topology.network import Network, below
from harness.topology.parts import (
    AddressOnLink,
    End,
    HostPlan,
    Interface,
    Neighbour,
    Route,
    RoutingRule,
    Tunnel,
    Vlan,
    Vrf,
    Wireguard,
)
from harness.topology.spec import RouteSpec, RuleSpec


class RoutesSpec(Model, frozen=True, kw_only=True):
    """Routes that take the place of others."""

    routes: Annotated[
        list[RouteSpec],
        Meta(
            min_length=1,
            description="Routes, each in place of the one to the same prefix, with the same table and metric.",
            examples=[[{"to": "default", "via": "isp2"}]],
        ),
    ]


class PartsSpec(Model, frozen=True, kw_only=True):
    """Addresses, routes and routing rules of a host."""

    addresses: Annotated[
        dict[InterfaceName, list[str]],
        Meta(
            description="Addresses with prefix length, by interface. Other hosts know of them at once.",
            examples=[{"wan0": ["203.0.113.9/24"]}],
        ),
    ] = {}
    routes: Annotated[
        list[RouteSpec],
        Meta(
            description="Routes. One to be deleted may be named by its prefix alone.",
            examples=[[{"to": "default", "via": "isp2"}]],
        ),
    ] = []
    rules: Annotated[
        list[RuleSpec], Meta(description="Routing policy rules.", examples=[[{"mark": 1, "table": 100}]])
    ] = []


class ChangeSpec(Model, frozen=True, kw_only=True):
    """A change of a host's links, addresses, routes and settings.

    Changes are made in the order of these keys. An interface that is set down loses its routes, and the link has no
    carrier on other hosts. When it is set up again, it has its addresses, but only the routes to its subnets, as
    after `ip link set`.
    """

    on: Annotated[
        HostName | None, Meta(description="The host; the device under test unless given.", examples=["isp1"])
    ] = None
    delete: Annotated[
        PartsSpec | None, Meta(description="What is deleted.", examples=[{"routes": [{"to": "10.9.0.0/16"}]}])
    ] = None
    links: Annotated[
        dict[InterfaceName, Literal["up", "down", "flap"]],
        Meta(
            description="Interfaces that are set up or down; `flap` is down and up again.", examples=[{"wan0": "down"}]
        ),
    ] = {}
    add: Annotated[
        PartsSpec | None,
        Meta(description="What is added.", examples=[{"routes": [{"to": "default", "via": "isp2", "metric": 20}]}]),
    ] = None
    replace: Annotated[
        RoutesSpec | None,
        Meta(description="What is replaced.", examples=[{"routes": [{"to": "default", "via": "isp2"}]}]),
    ] = None
    sysctls: Annotated[
        dict[str, str | int],
        Meta(
            description="Kernel settings, by their sysctl(8) names.",
            examples=[{"net.netfilter.nf_conntrack_tcp_loose": 0}],
        ),
    ] = {}


class Parts(NamedTuple):
    """Addresses, by interface, routes and routing rules."""

    addresses: tuple[tuple[str, AddressOnLink], ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()


class PlannedChange(NamedTuple):
    """A change as planned."""

    host: str
    network: Network
    """The lab after it."""
    deleted: Parts
    links: Mapping[str, str]
    added: Parts
    replaced: tuple[Route, ...]
    sysctls: Mapping[str, str]


def plan(spec: ChangeSpec, network: Network) -> PlannedChange:
    """What ``spec`` makes of ``network``.

    Raises :class:`~harness.model.problem.Problem`, with keys below the change.
    """
    if spec == ChangeSpec(on=spec.on):
        raise Problem("changes nothing", remedy="add links:, add:, replace:, delete: or sysctls:")
    name = spec.on or network.device
    if name not in network.hosts:
        raise unknown(name, network.hosts, "host of the lab", "on")
    draft = _Draft(network, name)
    deleted = draft.delete(spec.delete) if spec.delete else Parts()
    for interface, state in spec.links.items():
        draft.link(interface, state)
    added = draft.add(spec.add) if spec.add else Parts()
    replaced = draft.replace(spec.replace.routes) if spec.replace else ()
    for setting in spec.sysctls:
        sysctls.check(setting, "sysctls")
    settings = {setting: str(value) for setting, value in spec.sysctls.items()}
    return PlannedChange(name, draft.network, deleted, spec.links, added, replaced, settings)


class _Draft:
    """A plan of a lab, of which one host is changed step by step."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self._name = name

    @property
    def _host(self) -> HostPlan:
        return self.network.hosts[self._name]

    @property
    def _place(self) -> routing.Place:
        vrfs = [made for made in self._host.made.values() if isinstance(made, Vrf)]
        return routing.Place(
            self._name,
            tuple(self.network.hosts),
            {one.end: one for one in self.network.interfaces},
            {interface: vrf.table for vrf in vrfs for interface in vrf.interfaces},
            {one.id: one for one in self._host.nexthops},
        )

    def delete(self, spec: PartsSpec) -> Parts:
        addresses = list(self._addresses(spec.addresses, "delete", owned=True))
        routes: list[Route] = []
        for index, said in enumerate(spec.routes):
            with below("delete", "routes", index):
                routes += self._named(said)
        rules: list[RoutingRule] = []
        for index, one in enumerate(spec.rules):
            with below("delete", "rules", index):
                found = list(routing.rules(self._place, one, self._host.routes))
                if missing := next((rule for rule in found if rule not in self._host.rules), None):
                    raise Problem(f"{self._name} has no rule {missing}")
                rules += found
        self._set(
            routes=tuple(route for route in self._host.routes if route not in routes),
            rules=tuple(rule for rule in self._host.rules if rule not in rules),
        )
        self._readdress(addresses, add=False)
        return Parts(tuple(addresses), tuple(routes), tuple(rules))

    def add(self, spec: PartsSpec) -> Parts:
        addresses = tuple(self._addresses(spec.addresses, "add", owned=False))
        self._readdress(addresses, add=True)
        routes = tuple(self._routes(spec.routes, "add"))
        for index, route in enumerate(routes):
            if _key(route) in map(_key, self._host.routes):
                remedy = "use replace: instead, or give it another metric"
                raise Problem(f"{self._name} has a route to {route.destination}", "add", "routes", index, remedy=remedy)
        self._set(routes=(*self._host.routes, *routes))
        rules: list[RoutingRule] = []
        for index, one in enumerate(spec.rules):
            with below("add", "rules", index):
                rules += routing.rules(self._place, one, self._host.routes)
        self._set(rules=(*self._host.rules, *rules))
        return Parts(addresses, routes, tuple(rules))

    def replace(self, specs: Iterable[RouteSpec]) -> tuple[Route, ...]:
        routes = tuple(self._routes(specs, "replace"))
        for route in routes:
            self._set(routes=(*(one for one in self._host.routes if _key(one) != _key(route)), route))
        return routes

    def link(self, interface: str, state: str) -> None:
        if interface not in self._host.interfaces:
            keys = ("links", interface)
            problem = unknown(interface, self._host.interfaces, f"interface of {self._name}", *keys)
            raise Problem(problem.sentence, *keys, remedy=problem.remedy, about_key=True)
        down = set(carried(self._host, interface))
        if state in ("down", "flap"):
            all_down = self._host.down | down
            left = (one for one in self._host.routes if not one.hops or {hop.interface for hop in one.hops} - all_down)
            self._set(routes=tuple(left))
        self._set(down=self._host.down | down if state == "down" else self._host.down - down)

    def _routes(self, specs: Iterable[RouteSpec], key: str) -> Iterator[Route]:
        for index, said in enumerate(specs):
            with below(key, "routes", index):
                yield from routing.routes(self._place, said)

    def _named(self, said: RouteSpec) -> list[Route]:
        """The routes of the host that ``said`` means; all it leaves out may be anything."""
        onward = (said.via, said.dev, said.nexthop)
        whole = said.type != "unicast" or any(one is not None for one in onward)
        known = structs.replace(said, type=said.type if whole else "blackhole")
        wanted = list(routing.routes(self._place, known))
        found = [
            route
            for route in self._host.routes
            for one in wanted
            if (route.destination, route.table) == (one.destination, one.table)
            and (said.metric is None or route.metric == one.metric)
            and (not whole or (route.hops, route.type, route.nexthop) == (one.hops, one.type, one.nexthop))
        ]
        if not found:
            raise Problem(f"{self._name} has no such route to {said.to}", "to")
        return found

    def _addresses(
        self, written: Mapping[str, list[str]], key: str, *, owned: bool
    ) -> Iterator[tuple[str, AddressOnLink]]:
        for interface, texts in written.items():
            if interface not in self._host.interfaces:
                raise unknown(
                    interface, self._host.interfaces, f"interface of {self._name}", key, "addresses", interface
                )
            for index, text in enumerate(texts):
                keys = (key, "addresses", interface, index)
                address = address_on_link(text, *keys)
                if owned and address not in self._host.interfaces[interface].addresses:
                    raise Problem(f"{self._name}:{interface} does not have {address}", *keys)
                if not owned and (owner := self.network.owner(address.ip)):
                    raise Problem(f"{address.ip} is an address of {owner}", *keys, remedy="delete it there first")
                yield interface, address

    def _readdress(self, addresses: Iterable[tuple[str, AddressOnLink]], *, add: bool) -> None:
        """Give ``addresses`` to interfaces of the host, or take them; all hosts know."""
        interfaces = {one.end: one for one in self.network.interfaces}
        changed = False
        for name, address in addresses:
            changed = True
            end = End(self._name, name)
            before = interfaces[end].addresses
            after = (*before, address) if add else tuple(one for one in before if one != address)
            interfaces[end] = structs.replace(interfaces[end], addresses=after)
            for other in interfaces[end].reaches:  # which did not reach it while it had none
                if end not in interfaces[other].reaches:
                    reaches = (*interfaces[other].reaches, end)
                    interfaces[other] = structs.replace(interfaces[other], reaches=reaches)
        if changed:
            hosts = {name: _following(host, self.network, interfaces) for name, host in self.network.hosts.items()}
            self.network = structs.replace(self.network, hosts=hosts)

    def _set(self, **changes: object) -> None:
        host = structs.replace(self._host, **changes)
        self.network = structs.replace(self.network, hosts={**self.network.hosts, self._name: host})


def carried(host: HostPlan, interface: str) -> list[str]:
    """``interface`` of ``host``, and the VLAN interfaces on it, which the kernel sets up and down with it."""
    found = [interface]
    for name, made in host.made.items():  # in the order of creation: what carries it comes first
        if isinstance(made, Vlan) and made.link in found:
            found.append(name)
    return found


def _following(host: HostPlan, network: Network, interfaces: Mapping[End, Interface]) -> HostPlan:
    """``host`` of ``network`` where ``interfaces`` have changed their addresses."""
    resolve = any(not one.known for other in network.hosts.values() for one in other.neighbours)
    answering = {
        own.ip for one in interfaces.values() for own in one.addresses if one.name in network.hosts[one.host].speaking
    }

    def is_known(one: Neighbour) -> bool:
        return not (resolve and one.interface in host.speaking and one.address in answering)

    return structs.replace(
        host,
        interfaces={name: interfaces[End(host.name, name)] for name in host.interfaces},
        neighbours=tuple(
            one._replace(known=is_known(one))
            for one in neighbours(host.name, interfaces)
            if not isinstance(host.made.get(one.interface), Tunnel | Wireguard)
        ),
    )


def _key(route: Route) -> tuple[object, ...]:
    """What identifies a route to the kernel."""
    return route.destination, route.table, route.metric
