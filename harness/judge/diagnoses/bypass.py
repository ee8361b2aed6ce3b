"""Packets that no base chain saw, because a flowtable forwarded them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.judge.evidence import Evidence
from harness.judge.unmet import place
from harness.reading.path import XMIT, hops_on
from harness.reading.rules import bare

_LOOKUPS = frozenset({"nf_flow_offload_ip_hook", "nf_flow_offload_ipv6_hook"})
"""By these a flowtable looks at a packet at ingress, and sends it on if it has its flow: nf_flow_table_ip.c."""
_RECEIVED = frozenset({"ip_rcv", "ipv6_rcv", "ip_rcv_core", "ip6_rcv_core", "br_handle_frame"})
"""By these the stack goes on with a packet that no flowtable took."""
_ADD = re.compile(r"\bflow (?:add|offload) @(?P<table>[\w./-]+)")


def flowtable_took_it(evidence: Evidence) -> Iterator[str]:
    """A flowtable sends the packets of an offloaded flow on by itself, past prerouting, forward and postrouting."""
    packet, device = evidence.packet, evidence.device
    if any(step.host == device and step.hook != "ingress" for step in packet.steps):
        return
    functions = [hop.function for hop in hops_on(packet, device)]
    if not (_LOOKUPS & set(functions) and set(XMIT) & set(functions)) or _RECEIVED & set(functions):
        return
    offloading = [(rule, found["table"]) for rule in evidence.rules if (found := _ADD.search(bare(rule.text)))]
    names = ", ".join(dict.fromkeys(name for _, name in offloading))
    by = " or ".join(place(rule) for rule, _ in offloading[:3])
    table = f"the flowtable {names}" if names and "," not in names else "a flowtable"
    yield (
        f"no chain behind ingress saw the packet: {table} forwarded it, because its flow had been offloaded"
        + (f" by {by}" if by else "")
        + "; what must see each packet of such a flow belongs at hook ingress, or before the flow is offloaded"
    )
