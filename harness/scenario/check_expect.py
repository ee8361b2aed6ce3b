"""Whether an expectation fits together and fits the lab."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

from msgspec import structs

from harness.model.fields import alternatives
from harness.model.problem import NothingExpected, Problem, unknown
from harness.netfilter import FAMILY_NAMES, HOOK_NAMES
from harness.nft_syntax import is_name
from harness.packets import icmp
from harness.packets.endpoints import TRANSPORTS
from harness.packets.spec import Sees, Send
from harness.scenario.models.expect import (
    Delivered,
    Dropped,
    Ends,
    Exactly,
    Expect,
    FlowSeen,
    HopDetail,
    PathEntry,
    Tracked,
)
from harness.scenario.models.sockets import Wait
from harness.topology.network import Network
from harness.topology.parts import LOOPBACK

RECORD = "have pytest --nft-record write it"

_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_Layers = Collection[str] | None


def check_expect(expect: Expect, network: Network, layers: _Layers) -> Iterator[Problem]:
    """Everything wrong with ``expect``, with keys below it; ``layers`` are the known names, None to allow any."""
    if structs.replace(expect, packets=None) == Expect():
        yield NothingExpected("expects nothing", remedy=f"say at least the verdict, or {RECORD}")
    yield from check_values(expect, network, layers)


def check_values(given: Expect | Wait, network: Network, layers: _Layers = None) -> Iterator[Problem]:
    """Everything wrong with the values of :data:`CHECKS` that ``given`` has, each by itself."""
    for key, check in CHECKS.items():
        if (value := getattr(given, key, None)) is not None:
            for problem in check(value, network, layers):
                yield problem.below(key)


def _check_delivered(delivered: str | Delivered, network: Network, _: _Layers) -> Iterator[Problem]:
    if isinstance(delivered, str):
        yield from _check_receiver(delivered, network)
        return
    yield from _check_receiver(delivered.to, network, "to")
    if delivered.sees is not None:
        if delivered.to == "nowhere":
            yield Problem("a packet that is delivered nowhere has no header fields to compare", "sees")
        for problem in _check_sees(delivered.sees):
            yield problem.below("sees")


def _check_dropped(dropped: str | Dropped, network: Network, _: _Layers) -> Iterator[Problem]:
    if isinstance(dropped, Dropped):
        if dropped == Dropped():
            yield Problem("is empty", remedy="give the reason or the function")
        if dropped.host is not None and dropped.host not in network.hosts:
            yield unknown(dropped.host, network.hosts, "host of the lab", "host")


def _check_reply(reply: str | Sees, _: Network, __: _Layers) -> Iterator[Problem]:
    if isinstance(reply, Sees):
        yield from _check_sees(reply)


def _check_path(path: Sequence[PathEntry] | Exactly, network: Network, layers: _Layers) -> Iterator[Problem]:
    if isinstance(path, Exactly):
        for problem in _check_layers(path.layers or (), network, layers):
            yield problem.below("layers")
        yield from _check_entries(path.exactly, network, "exactly")
    else:
        yield from _check_entries(path, network)


def _check_never(never: Sequence[PathEntry], network: Network, _: _Layers) -> Iterator[Problem]:
    yield from _check_entries(never, network, optional=False)


def _check_route(route: str, network: Network, _: _Layers) -> Iterator[Problem]:
    own = ("lo", *network.hosts[network.device].interfaces)
    for one in alternatives(route):
        if one not in own:
            yield unknown(str(one), own, f"interface of {network.device}")


def _check_log(prefix: str, _: Network, __: _Layers) -> Iterator[Problem]:
    if not prefix:
        yield Problem("is empty", remedy="give the log statement a prefix, and write it here")


def _check_names(names: Iterable[str], network: Network, _: _Layers) -> Iterator[Problem]:
    """Of sets, maps or counters: family, table and name each, behind the name of another host than the device."""
    for name in names:
        host, colon, inner = name.rpartition(": ")
        words = inner.split(" ")
        if colon and host not in network.hosts:
            yield unknown(host, network.hosts, "host of the lab", name)
        elif len(words) != 3:
            remedy = "as in 'inet filter blocked'"
            yield Problem(f"'{inner}' is not family, table and name", name, remedy=remedy, about_key=True)
        elif words[0] not in FAMILY_NAMES:
            yield unknown(words[0], FAMILY_NAMES, "family", name)
        elif wrong := [word for word in words[1:] if not is_name(word)]:
            remedy = "letters, digits, and / \\ _ . - after the first"
            yield Problem(f"'{wrong[0]}' is not a valid name in nft", name, remedy=remedy, about_key=True)


def _check_connections(connections: int | Mapping[str, int], network: Network, _: _Layers) -> Iterator[Problem]:
    for host in connections if isinstance(connections, Mapping) else ():
        if host not in network.hosts:
            yield unknown(host, network.hosts, "host of the lab", host)


def _check_layers(names: Sequence[str], _: Network, layers: _Layers) -> Iterator[Problem]:
    for index, layer in enumerate(names):
        if layers is not None and layer not in layers:
            yield unknown(layer, layers, "layer", index)


def _check_entries(
    entries: Sequence[PathEntry], network: Network, *keys: str, optional: bool = True
) -> Iterator[Problem]:
    for index, entry in enumerate(entries):
        for problem in _check_entry(entry, network):
            yield problem.below(*keys, index)
        if not optional and not isinstance(entry, str):
            (name, detail) = next(iter(entry.items()))
            if detail.optional:
                yield Problem("is not valid in never:", *keys, index, name, "optional")
    if optional and entries and all(not isinstance(one, str) and next(iter(one.values())).optional for one in entries):
        yield Problem("expects nothing: every entry is optional", *keys)


def _check_flow(seen: str | FlowSeen, network: Network, _: _Layers) -> Iterator[Problem]:
    if isinstance(seen, str):
        return
    if seen == FlowSeen():
        yield Problem("is empty", remedy="give at least the result")
    for name in alternatives(seen.by or ""):
        if seen.by is not None and name not in network.hosts:
            yield unknown(str(name), network.hosts, "host of the lab", "by")
    yield from _check_addresses(seen)
    if seen.result in ("refused", "unreachable", "timeout", "half-open", "unsent"):
        for key in ("by", "src", "sport", "dst", "dport"):
            if getattr(seen, key) is not None:
                yield Problem(f"is not known of a flow that ends as {seen.result}", key)


def _check_conntrack(tracked: str | Tracked, network: Network, _: _Layers) -> Iterator[Problem]:
    if isinstance(tracked, str):
        return
    if structs.replace(tracked, host=None) == Tracked():
        yield Problem("is empty", remedy="give at least the state, or `none`")
    if tracked.host is not None and tracked.host not in network.hosts:
        yield unknown(tracked.host, network.hosts, "host of the lab", "host")
    if tracked.timeout is not None and not 0 <= tracked.timeout[0] <= tracked.timeout[1]:
        yield Problem("is not the least and the most seconds", "timeout", remedy="as in [1, 30]")
    for key, ends in (("original", tracked.original), ("reply", tracked.reply)):
        if ends is not None:
            if ends == Ends():
                yield Problem("is empty", key, remedy="give at least one field, such as src")
            yield from _check_addresses(ends, key)


def _check_addresses(given: Sees | FlowSeen | Ends, *keys: str) -> Iterator[Problem]:
    for key in ("src", "dst"):
        if (text := getattr(given, key)) is not None:
            for one in alternatives(text):
                try:
                    ip_address(str(one))
                except ValueError:
                    yield Problem(f"'{one}' is not an address", *keys, key)


def _check_receiver(name: str, network: Network, *keys: str) -> Iterator[Problem]:
    several = alternatives(name)
    for one in several:
        if one == "nowhere" and len(several) > 1:
            yield Problem("nowhere is not valid among alternatives", *keys)
        elif one not in network.hosts and one != "nowhere":
            yield unknown(str(one), (*network.hosts, "nowhere"), "host of the lab", *keys)


def _check_sees(sees: Sees) -> Iterator[Problem]:
    if sees == Sees():
        yield Problem("is empty", remedy="give at least one field, such as src")
    yield from _check_addresses(sees)
    protocols = [key for key in ("tcp", "udp", "icmp", "icmpv6", "arp") if getattr(sees, key) is not None]
    if len(protocols) > 1:
        yield Problem(f"a packet cannot be {protocols[0]} and {protocols[1]} at once", protocols[1])
    for key, header in (("icmp", sees.icmp), ("icmpv6", sees.icmpv6)):
        if header is not None:
            try:
                icmp.numbers(header, key)
            except Problem as problem:
                yield problem.below(key)


def _check_entry(entry: PathEntry, network: Network) -> Iterator[Problem]:
    """An entry of ``path`` or ``never``."""
    names, detail = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
    functions = [name.strip() for name in names.split("|")]
    for function in functions:
        if not _FUNCTION.fullmatch(function):
            yield Problem(f"'{function}' is not a function name", remedy="write a name, or several as in 'a | b'")
    if detail is not None:
        for problem in _check_detail(detail, functions, network):
            yield problem.below(names)


def _check_detail(detail: HopDetail, functions: Collection[str], network: Network) -> Iterator[Problem]:
    if detail.host is not None and detail.host not in network.hosts:
        yield unknown(detail.host, network.hosts, "host of the lab", "host")
    elif detail.device is not None:
        interfaces = network.hosts[detail.host or network.device].interfaces
        if detail.device not in interfaces and detail.device != LOOPBACK:
            yield unknown(detail.device, interfaces, f"interface of {detail.host or network.device}", "device")
    for key in ("chain", "hook", "verdict"):
        if getattr(detail, key) is not None and "nft_do_chain" not in functions:
            yield Problem("is only valid for nft_do_chain", key)
    if detail.hook is not None and detail.hook not in HOOK_NAMES:
        yield unknown(detail.hook, HOOK_NAMES, "hook", "hook")
    if detail.chain is not None:
        words = detail.chain.split()
        if len(words) != 3:
            yield Problem(
                f"'{detail.chain}' is not family, table and chain", "chain", remedy="as in 'inet filter forward'"
            )
        elif words[0] not in FAMILY_NAMES:
            yield unknown(words[0], FAMILY_NAMES, "family", "chain")


CHECKS: Final[Mapping[str, Callable[[Any, Network, _Layers], Iterator[Problem]]]] = {
    "delivered": _check_delivered,
    "dropped": _check_dropped,
    "reply": _check_reply,
    "counters": _check_names,
    "elements": _check_names,
    "connections": _check_connections,
    "layers": _check_layers,
    "path": _check_path,
    "never": _check_never,
    "flow": _check_flow,
    "conntrack": _check_conntrack,
    "route": _check_route,
    "log": _check_log,
}
"""By key of ``expect``, what its type cannot express; the keys of problems are below that one."""


def check_reject(expect: Expect, send: Send, family: int | None) -> Iterator[Problem]:
    """``with``, against the verdict and the packet."""
    if expect.with_ is None:
        return
    if expect.verdict != "reject":
        yield Problem("needs a verdict of reject", "with", remedy="add verdict: reject")
        return
    try:
        answers = icmp.check_reject(expect.with_)
    except Problem as problem:
        yield problem.below("with")
        return
    if answers is not None and family is not None and answers != family:
        yield Problem(f"an IPv{family} packet is not answered with '{expect.with_}'", "with")
    if expect.with_.split()[0] == "tcp" and any(getattr(send, name) for name in (*TRANSPORTS, "arp") if name != "tcp"):
        yield Problem("only a TCP packet is answered with a reset", "with")
