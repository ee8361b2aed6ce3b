"""Flows of real sockets, and what they and other packets leave behind in connection tracking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from harness.errors import BrokenMeasurement
from harness.judge.evidence import Evidence, Found
from harness.model.fields import Keys, alternatives
from harness.model.observation import Connection, Delivery, Direction, Observation, ObservedPacket
from harness.netfilter import PROTOCOLS
from harness.packets.headers import fields, summarise
from harness.reading.words import describe_errno
from harness.scenario.models.expect import Ends, FlowSeen, Tracked

MEANINGS = {
    "connected": "both ends have the connection",
    "answered": "the answer came",
    "refused": "a TCP reset came",
    "unreachable": "an ICMP error came",
    "half-open": "only the caller has the connection",
    "timeout": "nothing came",
    "unsent": "no packet was sent",
}
SOFT = "only an ICMP error came, which programs do not see here (RFC 1122 section 4.2.3.9)"
"""What a timeout means where one came."""


def refuse_contradiction(observation: Observation) -> None:
    """Raise :class:`~harness.errors.BrokenMeasurement` when no packet of a flow accounts for its result."""
    flow = observation.flow
    if flow is None or not observation.whole or flow.error:
        return
    needed = {"refused": (_is_reset, "TCP reset"), "unreachable": (_is_error, "ICMP error")}
    headers = [seen for packet in observation.packets for seen in _headers(packet)]
    if flow.result in needed and all(headers):
        is_it, what = needed[flow.result]
        if not any(map(is_it, headers)):
            raise BrokenMeasurement(f"the program on {flow.host} saw the flow {flow.result}, but no {what} was seen")


def _headers(packet: ObservedPacket) -> list[Mapping[str, str | int]]:
    """The headers of ``packet`` in each form that it was seen in; an empty one where its bytes are not known."""
    frames = [frame for frame in (packet.frame, *(one.frame for one in packet.deliveries)) if frame]
    return [fields(frame) for frame in frames] or [{}]


def _is_reset(seen: Mapping[str, str | int]) -> bool:
    return "R" in str(seen.get("flags", ""))


def _is_error(seen: Mapping[str, str | int]) -> bool:
    """Errors are types 3, 4, 11, 12 of ICMP (RFC 1122 section 3.2.2), and those below 128 of ICMPv6 (RFC 4443)."""
    kind = seen.get("type")
    return isinstance(kind, int) and (
        kind < 128 if seen.get("protocol") == "icmpv6" else seen.get("protocol") == "icmp" and kind in (3, 4, 11, 12)
    )


def _meaning(observation: Observation) -> str:
    """What the result of its flow means."""
    assert observation.flow is not None
    if error := observation.flow.error:
        return f"the call failed at once: {describe_errno(error)}"
    if observation.flow.result == "timeout":
        if observation.unresolved:
            return "a neighbour could not be resolved"
        if any(_is_error(fields(one.frame)) for one in observation.replies if one.host == observation.flow.host):
            return SOFT
        for source, called, _ in foreign_answers(observation):
            return f"an answer came, but from {source}, and {called} was called"
        if came := [summarise(one.frame) for one, _ in _to_caller(observation)]:
            more = f", and {len(came) - 1} more" if len(came) > 1 else ""
            return f"no answer reached the program; what came to {observation.flow.host}: {came[-1]}{more}"
    return MEANINGS[observation.flow.result]


def foreign_answers(observation: Observation) -> Iterator[tuple[str, str, ObservedPacket]]:
    """Yield what came to a flow's caller from elsewhere than was called: where from, what was called, the packet.

    These are addresses, or ``port 5353`` and ``port 53`` where the address is the same. NAT that is not undone on the
    way back makes such answers.
    """
    sent = fields(observation.injected[0].frame)
    for delivery, packet in _to_caller(observation):
        came = fields(delivery.frame)
        if "dst" in sent and came["src"] != sent["dst"]:
            yield str(came["src"]), str(sent["dst"]), packet
        elif "dport" in sent and came.get("sport") != sent["dport"]:
            yield f"port {came.get('sport')}", f"port {sent['dport']}", packet


def _to_caller(observation: Observation) -> Iterator[tuple[Delivery, ObservedPacket]]:
    """Yield what came to the socket that made the call: all that is sent to its address and port."""
    assert observation.flow is not None
    sent = fields(observation.injected[0].frame)
    for packet in observation.packets:
        for delivery in packet.deliveries if not packet.injected else ():
            found = fields(delivery.frame)
            keys = (("proto", "proto"), ("dst", "src"), ("dport", "sport"))
            if delivery.host == observation.flow.host and all(
                came in found and found[came] == sent.get(went) for came, went in keys
            ):
                yield delivery, packet


def compare_flow(evidence: Evidence) -> Found:
    """Compare ``flow``."""
    expect, observation = evidence.expect, evidence.observation
    seen = observation.flow
    if expect.flow is None or seen is None:
        return
    wanted = FlowSeen.of(expect.flow)
    keys: Keys = ("expect", "flow")
    if wanted.result is not None and wanted.result != seen.result:
        below = (*keys, "result") if wanted is expect.flow else keys
        yield below, wanted.result, seen.result, _meaning(observation)
        return
    if not seen.by and wanted != FlowSeen(result=wanted.result, error=wanted.error):
        yield keys, "a program of the lab is called", seen.result, _meaning(observation)
        return
    for key in ("by", "src", "sport", "dst", "dport", "error"):
        value, found = getattr(wanted, key), getattr(seen, key)
        if value is not None and not same(value, found):
            yield (*keys, key), str(value), str(found) or "none", ""


def compare_conntrack(evidence: Evidence) -> Found:
    """Compare ``conntrack`` with the packet's entry, or the one that fits best where there are several."""
    wanted = evidence.expect.conntrack
    if wanted is None:
        return
    keys: Keys = ("expect", "conntrack")
    connections = _tracked(evidence.observation, None if wanted == "none" else wanted.host)
    own = [one for one in connections if belongs(evidence.packet, one)]
    if wanted == "none":
        if own:
            yield keys, "none", "; ".join(map(describe_connection, own)), ""
        return
    if not own:
        others = "; ".join(map(describe_connection, connections))
        yield keys, "an entry", "none", f"there are others: {others}" if others else "there is none at all"
        return
    found = min((list(_differing(wanted, one)) for one in own), key=len)
    for key, value, seen in found:
        yield (*keys, *key), value, seen, describe_connection(own[0]) if len(own) == 1 else ""


def compare_connections(evidence: Evidence) -> Found:
    """Compare ``connections``."""
    for host, number in numbers(evidence.expect.connections).items():
        found = _tracked(evidence.observation, host)
        if len(found) != number:
            keys: Keys = ("expect", "connections", *([host] if host else []))
            yield keys, str(number), str(len(found)), "; ".join(map(describe_connection, found))


def numbers(wanted: int | Mapping[str, int] | None) -> Mapping[str | None, int]:
    """How many connections each host is to track, the device under test being None where it is not named."""
    if wanted is None or isinstance(wanted, int):
        return {} if wanted is None else {None: wanted}
    return {host: number for host, number in wanted.items()}  # noqa: C416 - keys of another type


def _tracked(observation: Observation, host: str | None) -> tuple[Connection, ...]:
    if host in (None, observation.device):
        return observation.connections
    return observation.elsewhere.get(str(host), ())


def fits(wanted: Tracked, one: Connection) -> bool:
    """Whether an entry is as ``wanted``."""
    return not any(_differing(wanted, one))


def describe_connection(one: Connection) -> str:
    """An entry in one line, much as conntrack(8) writes it."""
    words = [PROTOCOLS.get(one.protocol, str(one.protocol))]
    words += [one.state, _direction(one.original), "reply", _direction(one.reply), *one.status]
    words += [f"mark {one.mark:#x}"] if one.mark else []
    words += [f"zone {one.zone}"] if one.zone else []
    words += [f"helper {one.helper}"] if one.helper else []
    return " ".join(word for word in words if word)


def _direction(one: Direction) -> str:
    if not one.dport:
        return f"{one.src} → {one.dst}"
    source, destination = (f"[{end}]" if ":" in end else end for end in (one.src, one.dst))
    return f"{source}:{one.sport} → {destination}:{one.dport}"


def belongs(packet: ObservedPacket, one: Connection) -> bool:
    """Whether the packet, as its sender made it or as it arrived anywhere, goes through the connection, one way or the
    other."""
    forms = dict.fromkeys((packet.frame, *(delivery.frame for delivery in packet.deliveries)))
    return any(
        seen.get("proto") == one.protocol and any(_goes(seen, way) for way in (one.original, one.reply))
        for seen in map(fields, filter(None, forms))
    )


def _goes(seen: Mapping[str, str | int], way: Direction) -> bool:
    ends = (seen.get("src"), seen.get("dst")) == (way.src, way.dst)
    return ends and ("sport" not in seen or (seen["sport"], seen["dport"]) == (way.sport, way.dport))


def _differing(wanted: Tracked, one: Connection) -> Iterator[tuple[Keys, str, str]]:
    for key in ("state", "mark", "zone", "helper"):
        value, found = getattr(wanted, key), getattr(one, key)
        if value is not None and value != (found if key != "helper" else found or "none"):
            yield (key,), str(value), str(found) or "none"
    if wanted.timeout is not None and not wanted.timeout[0] <= one.timeout <= wanted.timeout[1]:
        yield ("timeout",), "{} to {} s".format(*wanted.timeout), f"{one.timeout} s"
    for index, flag in enumerate(wanted.status or ()):
        if (flag.removeprefix("!") in one.status) == flag.startswith("!"):
            yield ("status", index), flag, " ".join(one.status)
    for name, ends, way in (("original", wanted.original, one.original), ("reply", wanted.reply, one.reply)):
        for key in Ends.__struct_fields__ if ends is not None else ():
            value, found = getattr(ends, key), getattr(way, key)
            if value is not None and not same(value, found):
                yield (name, key), str(value), str(found)


def same(wanted: str | int, found: str | int) -> bool:
    """Whether a value is the one wanted, or one of its alternatives, addresses however written."""
    return any(one == found or _is_address(one, found) for one in alternatives(wanted))


def _is_address(wanted: str | int, found: str | int) -> bool:
    try:
        return isinstance(wanted, str) and isinstance(found, str) and ip_address(wanted) == ip_address(found)
    except ValueError:
        return False
