"""Values of matches in libnftables-json(5): what they are of, and their neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeVar

PORTS: Final = 65535
_META: Final = ("iifname", "oifname", "iif", "oif", "ibrname", "obrname")
T = TypeVar("T")


def few(values: Sequence[T], most: int) -> list[T]:
    """``values``, of many the first and the last ones."""
    return list(values) if len(values) <= most else [*values[: most // 2], *values[-(most - most // 2) :]]


def elements(right: Any) -> list[Any]:
    """The values that a match compares with."""
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        return list(right["set"])
    return list(right) if isinstance(right, list) else [right]


def replaced(right: Any, before: Any, after: Any) -> Any:
    """``right`` with ``after`` in place of the value ``before``."""
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        return {"set": [after if one is before else one for one in right["set"]]}
    if isinstance(right, list):
        return [after if one is before else one for one in right]
    return after


def with_one_less(right: Any, most: int) -> Iterator[tuple[Any, Any]]:
    """Each of the elements of an anonymous set, and the set without it."""
    found = elements(right)
    if isinstance(right, list) or (isinstance(right, dict) and "set" in right):
        for element in few(found, most) if len(found) > 1 else ():
            rest = [one for one in found if one is not element]
            yield element, rest if isinstance(right, list) else {"set": rest}


def bare(element: Any) -> Any:
    """An element without timeout, comment and what a map has for it."""
    if isinstance(element, list):
        return bare(element[0])
    return bare(element["elem"]["val"]) if isinstance(element, dict) and "elem" in element else element


def is_of(left: Any, keys: Sequence[str]) -> bool:
    """Whether a match is about one of these keys of meta."""
    return isinstance(left, dict) and isinstance(left.get("meta"), dict) and left["meta"].get("key") in keys


def is_port(left: Any) -> bool:
    """Whether it is about a port."""
    return _field(left) in ("sport", "dport")


def is_address(left: Any) -> bool:
    """Whether it is about an address of IP."""
    payload = left.get("payload") if isinstance(left, dict) else None
    return isinstance(payload, dict) and payload.get("protocol") in ("ip", "ip6") and _field(left) in ("saddr", "daddr")


def is_state(left: Any) -> bool:
    """Whether it is about the state of connection tracking."""
    return isinstance(left, dict) and isinstance(left.get("ct"), dict) and left["ct"].get("key") == "state"


def _field(left: Any) -> str:
    payload = left.get("payload") if isinstance(left, dict) else None
    return str(payload.get("field", "")) if isinstance(payload, dict) else ""


def next_ports(value: Any) -> Iterator[Any]:
    """The ports beside a port; a range that is one larger, and one that is one smaller."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value + 1 if value < PORTS else value - 1
    elif isinstance(value, dict) and isinstance(value.get("range"), list):
        low, high = value["range"]
        if isinstance(low, int) and isinstance(high, int):
            if high < PORTS:
                yield {"range": [low, high + 1]}
            if low < high:
                yield {"range": [low + 1, high]}


def next_prefixes(value: Any) -> Iterator[Any]:
    """A prefix that is one bit shorter, and one that is one bit longer."""
    with suppress(ValueError, TypeError):
        if isinstance(value, str):
            yield _prefix(ip_network(value).supernet())
        elif isinstance(value, dict) and "prefix" in value:
            network: Any = ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)
            if network.prefixlen > 0:
                yield _prefix(network.supernet())
            if network.prefixlen < network.max_prefixlen:
                yield _prefix(next(network.subnets()))


def _prefix(network: IPv4Network | IPv6Network) -> Any:
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def following(name: str, names: Sequence[str]) -> list[str]:
    """The name behind ``name`` in a circle of ``names``; nothing where there is no other."""
    others = sorted(one for one in names if one != name)
    return [next((one for one in others if one > name), others[0])] if others else []


def widened(right: Any, states: Sequence[str]) -> tuple[str, Any] | None:
    """The first of ``states`` that a match does not have, and the match with it."""
    found = elements(right)
    if not all(isinstance(one, str) for one in found):
        return None
    state = next((one for one in states if one not in found), None)
    if state is None:
        return None
    wide = [*found, state]
    return state, {"set": wide} if isinstance(right, dict) else wide


def nat(what: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Keys of a NAT statement, each with its value and the one beside it."""
    address, port = what.get("addr"), what.get("port")
    if isinstance(address, str) and (other := _beside_address(address)) is not None:
        yield "addr", address, other
    if isinstance(port, int):
        yield "port", port, port + 1 if port < PORTS else port - 1


def beside(value: Any, known: Sequence[Any]) -> Any | None:
    """A value that lies beside ``value`` and is none of ``known``; None where none is found."""
    other: Any = None
    if isinstance(value, int) and not isinstance(value, bool):
        other = value + 1
    elif isinstance(value, str):
        other = _beside_address(value)
    elif isinstance(value, dict) and "prefix" in value:
        with suppress(ValueError, TypeError):
            network = ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)
            if network.prefixlen:
                halves: list[Any] = list(network.supernet().subnets())
                other = _prefix(halves[halves[0] == network])
    return other if other is not None and other not in known else None


def _beside_address(text: str) -> str | None:
    with suppress(ValueError):
        address: IPv4Address | IPv6Address = ip_address(text)
        return str(address + 1)
    return None


def interfaces(expr: Any) -> Iterator[str]:
    """The interfaces that statements name."""
    match expr:
        case {"match": {"left": {"meta": {"key": key}}, "right": right}} if key in _META:
            yield from (one for one in elements(right) if isinstance(one, str) and not one.startswith("@"))
        case dict():
            for one in expr.values():
                yield from interfaces(one)
        case list():
            for one in expr:
                yield from interfaces(one)


def shown(match: dict[str, Any]) -> str:
    """A match in a few words."""
    op = "" if match["op"] in ("==", "in") else f"{match['op']} "
    return f"{left(match['left'])} {op}{text(match['right'])}"


def left(value: Any) -> str:
    """What a match looks at, as nft writes it, as far as that is simple."""
    match value:
        case {"payload": {"protocol": protocol, "field": field}}:
            return f"{protocol} {field}"
        case {"meta": {"key": key}}:
            return str(key) if key in (*_META, "mark") else f"meta {key}"
        case {"ct": {"key": key}}:
            return f"ct {key}"
        case {"concat": parts}:
            return " . ".join(map(left, parts))
        case dict():
            return " ".join(str(one) for one in value)
        case _:
            return str(value)


def several(found: Sequence[Any]) -> str:
    """Elements of a set or map as nft writes them, as far as that is simple."""
    return ", ".join(
        f"{text(bare(one))} : {text(one[1])}" if isinstance(one, list) else text(bare(one)) for one in found
    )


def text(value: Any) -> str:
    """A value as nft writes it, as far as that is simple."""
    match value:
        case {"set": several} if isinstance(several, list):
            return f"{{ {', '.join(map(text, several))} }}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [low, high]}:
            return f"{text(low)}-{text(high)}"
        case {"concat": parts}:
            return " . ".join(map(text, parts))
        case {"elem": {"val": inner}}:
            return text(inner)
        case {"jump": {"target": chain}} | {"goto": {"target": chain}}:
            return f"{next(iter(value))} {chain}"
        case list():
            return ",".join(map(text, value))
        case dict():
            return left(value)
        case _:
            return str(value)
