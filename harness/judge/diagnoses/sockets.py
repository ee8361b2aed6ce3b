"""Packets that reached the device itself, or a queue, and found no program there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.judge.diagnoses.helpers import not_announced
from harness.judge.diagnoses.hooks import rule_at_another_hook
from harness.judge.diagnoses.matches import rule_did_not_match
from harness.judge.evidence import Evidence
from harness.judge.unmet import place, rule_status
from harness.model.observation import Verdict
from harness.packets.spec import Sees
from harness.reading.decision import REFUSED
from harness.reading.rules import bare, translated
from harness.reading.words import describe_decision
from harness.scenario.models.expect import Expect
from harness.topology.parts import Vrf

_QUEUEING = frozenset({"nf_queue", "__nf_queue", "nf_hook_slow"})
"""By these a packet is dropped that no queue takes (net/netfilter/nf_queue.c)."""
_NUMBER = re.compile(r"(?<!\S)queue(?: flags [\w,]+)?(?: (?:num|to) (?P<number>\S+))?")


def no_socket(evidence: Evidence) -> Iterator[str]:
    """No socket of the device takes the packet: what that means depends on what the scenario expects."""
    drop, device = evidence.packet.drop, evidence.device
    if drop is None or drop.reason != "NO_SOCKET" or drop.host != device:
        return
    if evidence.expect.verdict in REFUSED:
        yield from _should_have_been_refused(evidence)
    elif evidence.expected_host not in ("", "nowhere", device):
        changed = translated(evidence.packet, device)
        why = f"{place(changed)} sent it there" if changed else "no rule changed its destination"
        host = evidence.expected_host
        yield f"the packet was for {device} itself, where no socket listens, and not for {host}: {why}"
    elif evidence.expects_answer and not _expects_icmp(evidence.expect) and not any(not_announced(evidence)):
        yield f"no socket of {device} listens there: start a program in a step before, `listen: {{on: {device}, …}}`"


def _expects_icmp(expect: Expect) -> bool:
    return isinstance(expect.reply, Sees) and (expect.reply.icmp or expect.reply.icmpv6) is not None


def _should_have_been_refused(evidence: Evidence) -> Iterator[str]:
    rule = evidence.expected
    if any(rule_did_not_match(evidence)) or any(rule_at_another_hook(evidence)):
        return
    if rule:
        status = rule_status(rule, evidence.rules, evidence.packet, evidence.device)
        yield f"look at {place(rule)}, which the scenario expects to refuse the packet: it {status}"
    elif evidence.last:
        yield (
            f"the ruleset accepted the packet ({describe_decision(evidence.last)}); that {evidence.device} has no "
            f"socket for it is not the ruleset's doing: add a rule that refuses it, or expect `verdict: accept`"
        )


def outside_of_vrf(evidence: Evidence) -> Iterator[str]:
    """A socket that is not bound to a VRF does not use its routes (Documentation/networking/vrf.rst)."""
    flow, network = evidence.observation.flow, evidence.network
    if flow is None or network is None or flow.error != "ENETUNREACH":
        return
    if vrfs := [name for name, made in network.hosts[flow.host].made.items() if isinstance(made, Vrf)]:
        names = " or ".join(vrfs)
        yield f"the program on {flow.host} is not bound to the VRF {names}, so it does not use the routes there"


def no_queue(evidence: Evidence) -> Iterator[str]:
    """A packet for a queue that no program reads is dropped, unless the rule says bypass."""
    last, drop = evidence.last, evidence.packet.drop
    refused = drop and drop.host == evidence.device and drop.function in _QUEUEING
    if last and last.rule and last.verdict is Verdict.QUEUE and refused:
        found = _NUMBER.search(bare(last.rule.text))
        number = f" {found['number']}" if found and found["number"] else ""
        yield (
            f"{place(last.rule)} sent the packet to queue{number}, which no program on {evidence.device} reads or "
            "which is full, so the kernel dropped it; with `flags bypass` it goes on"
        )
