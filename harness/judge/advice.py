"""What to do about it, where the cause of a failure is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING

from harness.judge.unmet import is_met, is_policy, named, place, rule_status
from harness.model.observation import Observation, ObservedPacket, Rule, Step, Verdict
from harness.packets.frames import fields
from harness.reading import drops
from harness.reading.decision import Outcome
from harness.reading.path import hops_on
from harness.scenario.models.expect import Delivered, Expect

if TYPE_CHECKING:
    from harness.topology.network import Network

_INTERFACE = re.compile(r"""\biif(?:name)?\s+"?(?P<name>[^\s"{!=@]+)"?""")


_UNREACHED = frozenset({"IP_INADDRERRORS", "IP_INNOROUTES", "IP_OUTNOROUTES", "NEIGH_FAILED"})
"""Reasons for which a host gives up a packet whose destination does not exist."""


def advise(
    expect: Expect,
    seen: Outcome,
    observation: Observation,
    packet: ObservedPacket,
    *,
    rules: Sequence[Rule] = (),
    network: Network | None = None,
) -> Iterator[str]:
    """Yield one sentence for each known cause that fits; none when the ruleset simply says otherwise.

    ``rules`` are those that the device under test has loaded, ``network`` is the lab.
    """
    device = observation.device
    asked = [one for one in (expect.rule, *(expect.rules or ())) if one is not None and not is_policy(one)]
    unmet = [one for one in asked if not is_met(one, packet, device)]
    expected = next((rule for one in unmet for rule in named(one, rules)), None)
    last = seen.decided[-1] if seen.decided else None
    if last and seen.verdict in (Verdict.DROP, Verdict.REJECT) and _should_pass(expect):
        if last.kind == "policy" and expected:
            how = rule_status(expected, rules, packet, device)
            yield f"look at {place(expected)}, the rule that the scenario expects: it {how}"
        elif last.kind == "policy" and unmet and rules:
            yield f"the ruleset has no such rule as the scenario expects: add it, or correct `{_key(expect, unmet[0])}`"
        else:
            yield from _refused_by(last)
    if expected:
        yield from _other_interface(expected, packet, device)
    yield from observation.unresolved or _dropped(packet, network)


def _refused_by(last: Step) -> Iterator[str]:
    """What the step that refused the packet says by itself."""
    if last.kind == "policy":
        yield f"no rule of {last.chain_path} decided, so its policy did: add a rule that accepts this packet"
    elif last.rule and re.search(r"\bct state\b.*\binvalid\b", last.rule.text):
        yield (
            "conntrack holds the packet for invalid: a TCP packet other than SYN needs its connection first; "
            "send that in an earlier step"
        )


def _other_interface(expected: Rule, packet: ObservedPacket, device: str) -> Iterator[str]:
    """Whether the rule asks for another interface than the one by which the packet came in."""
    if (interface := _INTERFACE.search(expected.text)) and packet.sender != device:
        entered = next((hop.device for hop in hops_on(packet, device) if hop.device), "")
        if entered and not fnmatchcase(entered, interface["name"]):
            yield f"the expected rule asks for the interface {interface['name']}, and the packet came in by {entered}"


def _dropped(packet: ObservedPacket, network: Network | None) -> Iterator[str]:
    """What the kernel's reason for the drop means."""
    if packet.drop and network and (nobody := _missing(packet, network)):
        yield f"check the destination: no host of the lab has {nobody}"
    elif packet.drop and (advice := drops.explain(packet.drop.function, packet.drop.reason).advice):
        yield advice


def _key(expect: Expect, wanted: str | int) -> str:
    return "rule" if expect.rule == wanted else "rules"


def _missing(packet: ObservedPacket, network: Network) -> str:
    """The address that ``packet``, given up by the kernel, was on its way to, if no host has it; else ""."""
    if not packet.drop or (packet.drop.reason not in _UNREACHED and packet.drop.function != "ip6_forward"):
        return ""
    # NAT may have changed it since it was sent.
    seen = [(0, packet.frame), *((one.time, _framed(one.headers)) for one in packet.steps if one.headers)]
    seen += [(one.time, one.frame) for one in packet.deliveries if one.frame]
    found = [fields(frame) for _, frame in sorted(seen, key=itemgetter(0))]
    last = next((str(one["dst"]) for one in reversed(found) if one.get("family") and "dst" in one), "")
    if not last or (address := ip_address(last)).is_multicast or last == "255.255.255.255":
        return ""
    return "" if network.owner(address) else last


def _framed(headers: bytes) -> bytes:
    return bytes(12) + (b"\x86\xdd" if headers[0] >> 4 == 6 else b"\x08\x00") + headers


def _should_pass(expect: Expect) -> bool:
    to = expect.delivered.to if isinstance(expect.delivered, Delivered) else expect.delivered
    return expect.verdict == "accept" or (to is not None and to != "nowhere")
