"""What to do about it, where the cause of a failure is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING

from harness.judge.diagnoses import answers, bypass, chains, environment, helpers, hooks, matches, sockets, tracking
from harness.judge.evidence import Evidence
from harness.judge.unmet import place, rule_status
from harness.model.mismatch import Mismatch
from harness.model.observation import Delivery, ObservedPacket, Rule
from harness.packets.headers import fields, framed
from harness.packets.resolving import asked
from harness.reading.drops import explain
from harness.reading.path import hops_on

if TYPE_CHECKING:
    from harness.topology.network import Network
    from harness.topology.parts import Address

_INTERFACE = re.compile(r"""\biif(?:name)?\s+"?(?P<name>[^\s"{!=@]+)"?""")

_UNREACHED = frozenset({"IP_INADDRERRORS", "IP_INNOROUTES", "IP_OUTNOROUTES", "NEIGH_FAILED"})
"""Reasons for which a host gives up a packet whose destination does not exist."""


def advise(evidence: Evidence) -> Iterator[str]:
    """Yield one sentence for each known cause that fits; none when the ruleset simply says otherwise."""
    packet = evidence.packet
    causes = [sentence for diagnose in DIAGNOSES for sentence in diagnose(evidence)]
    drops = [sentence for diagnose in DROPS for sentence in diagnose(evidence)]
    if not causes:
        yield from _refused(evidence)
    yield from causes
    if expected := evidence.expected:
        yield from _other_interface(expected, packet, evidence.device)
    yield from evidence.observation.unresolved or drops or _dropped(packet, evidence)


DIAGNOSES: Sequence[Callable[[Evidence], Iterator[str]]] = (
    chains.accept_was_not_final,
    answers.own_answer_was_dropped,
    answers.answer_came_from_another_address,
    tracking.packet_is_invalid,
    tracking.not_translated,
    helpers.not_announced,
    bypass.flowtable_took_it,
    hooks.rule_at_another_hook,
    matches.rule_did_not_match,
    matches.accepting_rule_was_used_up,
    environment.tagged_twice,
    environment.tag_was_taken_off,
    environment.other_vlan,
    environment.icmp_is_limited,
)
"""Causes of failures, in the order in which they are said. docs/diagnoses.md has them by symptom."""
DROPS: Sequence[Callable[[Evidence], Iterator[str]]] = (
    sockets.no_socket,
    sockets.no_queue,
    sockets.outside_of_vrf,
    environment.not_forwarding,
    environment.no_such_vlan,
)
"""Causes that say more than the kernel's reason for a drop."""


PAGE = "docs/diagnoses.md"
"""Causes by symptom."""
_DROPPED, _ACCEPTED = "my-packet-is-accepted-but-does-not-arrive", "my-packet-should-have-been-dropped"
_INVALID = "conntrack-considers-my-packet-invalid"
_SILENT, _UNTRANSLATED, _UNREACHED_RULE = (
    "no-answer-comes-back",
    "my-packet-is-not-translated",
    "my-rule-is-not-reached",
)


def symptom(mismatches: Sequence[Mismatch], advice: Iterable[str] = ()) -> str:
    """Return the part of :data:`PAGE` about ``advice`` or about what did not happen; "" when it has none."""
    if any(sentence.startswith(tracking.INVALID) for sentence in advice):
        return _INVALID
    seen = {mismatch.keys[1]: mismatch for mismatch in reversed(mismatches)}
    verdict = seen.get("verdict")
    if any("sees" in mismatch.keys for mismatch in mismatches):
        return _UNTRANSLATED
    if verdict and verdict.expected in ("drop", "reject"):
        return _ACCEPTED
    if verdict or ("delivered" in seen and seen["delivered"].expected != "nowhere"):
        return _DROPPED
    if {"flow", "reply"} & seen.keys():
        return _SILENT
    return _UNREACHED_RULE if {"rule", "rules"} & seen.keys() else ""


def _refused(evidence: Evidence) -> Iterator[str]:
    """What refused a packet that should have passed, where no other cause is known."""
    last, unmet, rules = evidence.last, evidence.unmet, evidence.rules
    if not (evidence.is_refused and evidence.should_pass and last and last.kind == "policy"):
        return
    if expected := evidence.expected:
        how = rule_status(expected, rules, evidence.packet, evidence.device)
        yield f"look at {place(expected)}, the rule that the scenario expects: it {how}"
    elif unmet and rules:
        key = "rule" if evidence.expect.rule == unmet[0] else "rules"
        yield f"the ruleset has no such rule as the scenario expects: add it, or correct `{key}`"
    else:
        yield f"no rule of {last.chain_path} decided, so its policy did: add a rule that accepts this packet"


def _other_interface(expected: Rule, packet: ObservedPacket, device: str) -> Iterator[str]:
    """Whether the rule asks for another interface than the one by which the packet came in."""
    if (interface := _INTERFACE.search(expected.text)) and packet.sender != device:
        entered = next((hop.device for hop in hops_on(packet, device) if hop.device), "")
        if entered and not fnmatchcase(entered, interface["name"]):
            yield f"the expected rule asks for the interface {interface['name']}, and the packet came in by {entered}"


def _dropped(packet: ObservedPacket, evidence: Evidence) -> Iterator[str]:
    """What the kernel's reason for the drop means."""
    drop, network = packet.drop, evidence.network
    if not drop:
        return
    if network and (hop := _unanswered(packet, evidence.observation.replies, network)):
        cause = f"no host of the lab has {hop}, for which {drop.host} asked"
        yield f"{cause}: correct the route, or the address to which the packet is translated"
    elif network and (nobody := _missing(packet, network)):
        yield f"check the destination: no host of the lab has {nobody}"
    elif advice := explain(drop.function, drop.reason).advice:
        yield advice


def _unanswered(packet: ObservedPacket, answers: Iterable[Delivery], network: Network) -> Address | None:
    """The next hop that no host has, if it is not where ``packet`` was sent, and the kernel gave up resolving it."""
    if not packet.drop or packet.drop.reason != "NEIGH_FAILED":
        return None
    asked_for = (asked(one.frame) for one in answers if one.frame)
    nobody = (one for one in asked_for if one and not network.owner(one))
    return next((one for one in nobody if str(one) != fields(packet.frame).get("dst")), None)


def _missing(packet: ObservedPacket, network: Network) -> str:
    """The address that ``packet``, given up by the kernel, was on its way to, if no host has it; else ""."""
    if not packet.drop or (packet.drop.reason not in _UNREACHED and packet.drop.function != "ip6_forward"):
        return ""
    # NAT may have changed it since it was sent.
    seen = [(0, packet.frame), *((one.time, framed(one.headers)) for one in packet.steps if one.headers)]
    seen += [(one.time, one.frame) for one in packet.deliveries if one.frame]
    found = [fields(frame) for _, frame in sorted(seen, key=itemgetter(0))]
    last = next((str(one["dst"]) for one in reversed(found) if one.get("family") and "dst" in one), "")
    if not last or (address := ip_address(last)).is_multicast or last == "255.255.255.255":
        return ""
    return "" if network.owner(address) else last
