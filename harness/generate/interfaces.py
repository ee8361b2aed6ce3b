"""The interfaces that a ruleset names, wherever it does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from harness.generate.constraints import called
from harness.generate.expressions import element, parts, unpacked
from harness.generate.facts import Facts
from harness.topology.parts import LOOPBACK

_OUTSIDE: Final = re.compile(r"wan|ppp|ext|uplink|inet|internet|public|outside|world|isp|red", re.IGNORECASE)
_INSIDE: Final = re.compile(r"lan|int|home|office|dmz|docker|br|virbr|wg|tun|private|inside|green|guest", re.IGNORECASE)
_VALID: Final = re.compile(r"[^\s/:$]{1,15}")
_NAMING: Final = {
    "iif": "iif",
    "iifname": "iif",
    "oif": "oif",
    "oifname": "oif",
    "ibrname": "bridge",
    "obrname": "bridge",
    "sdif": "iif",
    "sdifname": "iif",
}
_BRIDGE: Final = re.compile(r"br|docker|virbr|lxc|vmbr", re.IGNORECASE)


class Interfaces(NamedTuple):
    """What a ruleset names."""

    routed: list[str]
    """The one towards the Internet, as far as its name shows, first."""
    ports: list[str]
    """Those that rules of bridge tables name."""
    bridges: list[str]

    @property
    def looks_inside(self) -> bool:
        """Whether the first of ``routed`` is called like one of a network behind the device."""
        return bool(self.routed and _INSIDE.search(self.routed[0]) and not _OUTSIDE.search(self.routed[0]))


def named(facts: Facts) -> Interfaces:
    """The interfaces of rules, sets, maps, flowtables and chains; a pattern such as ``wlan*`` stands for ``wlan0``."""
    found: dict[str, dict[str, None]] = {"routed": {}, "ports": {}, "bridges": {}}
    for chain in facts.chains:
        found["ports" if chain.family == "bridge" else "routed"].update(dict.fromkeys(chain.devices))
    for kind, what in (next(iter(one.items())) for one in facts.objects):
        group = "ports" if what.get("family", "") == "bridge" else "routed"
        for field, name in _of_object(kind, what):
            found["bridges" if field == "bridge" else group][name] = None
    bridges = _usable(found["bridges"])
    ports = [one for one in _usable(found["ports"]) if one not in bridges]
    routed = [one for one in _usable(found["routed"]) if one not in ports]
    if ports and not bridges:
        bridges = [one for one in routed if _BRIDGE.match(one)][:1]
    masked = _masquerading(facts)

    def rank(name: str) -> int:
        words = f"{name} {facts.defines.get(name, '')}"
        return 0 if _OUTSIDE.search(words) else 3 if _INSIDE.search(words) else 1 if name in masked else 2

    return Interfaces(sorted((one for one in routed if one not in bridges), key=rank), ports, bridges)


def _of_object(kind: str, what: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The interfaces that one object of a ruleset names; with how, as :func:`in_statements` says."""
    if kind in ("chain", "flowtable"):
        yield from (("iif", name) for name in _strings(what.get("dev", [])))
    elif kind in ("set", "map"):
        yield from (("iif", name) for name in _in_set(kind, what))
    elif kind == "rule":
        yield from in_statements(what.get("expr", ()))


def _masquerading(facts: Facts) -> set[str]:
    """The interfaces behind which the device hides others."""
    rules = [one["rule"].get("expr", ()) for one in facts.objects if "rule" in one]
    hiding = [expr for expr in rules if {"masquerade", "snat"} & {unpacked(one)[0] for one in expr}]
    return {name for expr in hiding for field, name in in_statements(expr) if field == "oif"}


def in_statements(statements: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """``iif``, ``oif``, ``bridge`` or ``to``, and an interface, for each that statements of a rule name."""
    for statement in statements:
        word, what = unpacked(statement)
        if word == "match":
            yield from _compared(what["left"], what["right"])
        elif word in ("vmap", "map") and isinstance(what, dict):
            yield from _mapped(what)
        elif word in ("fwd", "dup") and isinstance(what, dict):
            yield from (("to", name) for name in _strings(what.get("dev", [])))
        elif isinstance(what, dict):
            yield from _inside(what)


def _inside(what: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The interfaces in the maps of a statement, such as ``dnat to iifname map { … }``."""
    for value in what.values():
        kind, inner = unpacked(value)
        if kind in ("map", "vmap") and isinstance(inner, dict):
            yield from _mapped(inner)
        elif isinstance(inner, dict):
            yield from _inside(inner)


def _mapped(mapping: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kind, pairs = unpacked(mapping.get("data"))
    if kind == "set" and isinstance(pairs, list):
        yield from _compared(mapping["key"], {"set": [one[0] for one in pairs if isinstance(one, list)]})


def _compared(left: Any, right: Any) -> Iterator[tuple[str, str]]:
    kind, inside = unpacked(right)
    members = (inside if isinstance(inside, list) else [inside]) if kind == "set" else [right]
    for place, part in enumerate(parts(left)):
        word, what = unpacked(part)
        if word != "meta" or what.get("key") not in _NAMING:
            continue
        for member in members:
            concat, several = unpacked(element(member))
            for name in _strings(several[place] if concat == "concat" and place < len(several) else member):
                yield _NAMING[what["key"]], called(name)


def _in_set(kind: str, what: dict[str, Any]) -> Iterator[str]:
    """The interfaces in a named set, and among the keys of a named map."""
    types = what["type"] if isinstance(what["type"], list) else [what["type"]]
    for one in what.get("elem", ()):
        key = element(one[0] if kind == "map" and isinstance(one, list) else one)
        for part, its_type in zip(unpacked(key)[1] if isinstance(key, dict) else [key], types, strict=False):
            if its_type in ("ifname", "iface_index"):
                yield from map(called, _strings(part))


def _strings(value: Any) -> list[str]:
    """The names in a value, which may be one or a list of them."""
    found = [element(one) for one in (value if isinstance(value, list) else [value])]
    return [one for one in found if isinstance(one, str) and one[:1] not in ("@", "")]


def _usable(names: Iterable[str]) -> list[str]:
    return [name for name in names if name != LOOPBACK and _VALID.fullmatch(name) and not name.isdecimal()]
