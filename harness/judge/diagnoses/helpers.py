"""Helpers of connection tracking: connections that another one announces, such as those for the data of FTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from harness.judge.evidence import Evidence
from harness.judge.flow import belongs, describe_connection
from harness.judge.unmet import named, place
from harness.model.observation import Connection, Rule
from harness.netfilter import PROTOCOLS
from harness.packets.headers import fields
from harness.reading.rules import bare, conntrack_states

PORTS: Final = {
    ("tcp", 21): "ftp",
    ("tcp", 1720): "Q.931",
    ("tcp", 1723): "pptp",
    ("tcp", 5060): "sip",
    ("tcp", 6566): "sane",
    ("tcp", 6667): "irc",
    ("udp", 69): "tftp",
    ("udp", 137): "netbios-ns",
    ("udp", 161): "snmp",
    ("udp", 1719): "RAS",
    ("udp", 5060): "sip",
    ("udp", 10080): "amanda",
}
"""Helpers by the port of the protocol in which connections are announced: nf_conntrack_*.c in net/netfilter/."""
MODULES: Final = {
    "ftp": "nf_nat_ftp",
    "irc": "nf_nat_irc",
    "sip": "nf_nat_sip",
    "tftp": "nf_nat_tftp",
    "amanda": "nf_nat_amanda",
    "pptp": "nf_nat_pptp",
    "Q.931": "nf_nat_h323",
    "RAS": "nf_nat_h323",
    "snmp": "nf_nat_snmp_basic",
}
"""The modules that translate what a helper reads: nf_nat_*.c in net/netfilter/ and net/ipv4/netfilter/."""
_ENDS_WELL = ("connected", "answered")
_RELATED = re.compile(
    r"\bct state (?!!= )(?:vmap )?[^;]*\brelated\b|(?<!! )--(?:ct)?state \S*RELATED|\bct helper (?!set\b)"
)
_ASSIGNS = re.compile(r"\bct helper set\b|-j CT\b.*--helper\b")
_TRANSLATED = {"SRC_NAT", "DST_NAT"}


def may_be_announced(evidence: Evidence) -> bool:
    """Whether the packet should have passed as one that belongs to a connection announced by another."""
    flow, drop = evidence.observation.flow, evidence.packet.drop
    failed = flow.result not in _ENDS_WELL if flow else drop is not None and drop.host == evidence.device
    wanted = evidence.should_pass or evidence.expects_answer or _expects_related(evidence)
    if not failed or not wanted or fields(evidence.packet.frame).get("protocol") not in ("tcp", "udp"):
        return False
    return any(map(_accepts_related, evidence.rules))  # last: a ruleset may have thousands


def not_announced(evidence: Evidence) -> Iterator[str]:
    """Only a helper makes connections `related`, and it must be assigned by a rule (nf_conntrack_helper.c).

    Linux 6.0 has removed the assignment by port: b118509076b3 ("netfilter: remove nf_conntrack_helper sysctl").
    """
    if not may_be_announced(evidence) or any(conntrack_states(one) == {"related"} for one in evidence.packet.steps):
        return
    own = [one for one in evidence.observation.connections if belongs(evidence.packet, one)]
    if any("EXPECTED" in one.status for one in own):
        return
    for control in evidence.observation.connections:
        if control not in own and _between_the_same(evidence, control):
            yield from _without_helper(evidence, control)
            return


def _accepts_related(rule: Rule) -> bool:
    return bool(_RELATED.search(bare(rule.text)) or _RELATED.search(rule.written))


def _expects_related(evidence: Evidence) -> bool:
    return any(_accepts_related(rule) for one in evidence.unmet for rule in named(one, evidence.rules))


def _between_the_same(evidence: Evidence, control: Connection) -> bool:
    """Whether ``control`` is one in which others are announced, and may have announced the packet's.

    What is announced has a port that no service has and no rule names, unless the scenario expects that it is related.
    """
    if not _helper(control):
        return False
    seen = fields(evidence.packet.frame)
    ends = {one for way in (control.original, control.reply) for one in (way.src, way.dst)}
    if not {seen.get("src"), seen.get("dst")} <= ends:
        return False
    port = seen.get("dport")
    is_named = any(re.search(rf"\b{port}\b", bare(rule.text)) for rule in evidence.rules)
    return _expects_related(evidence) or (isinstance(port, int) and port >= 1024 and not is_named)


def _helper(control: Connection) -> str:
    """The helper of the connection, or the one for its port."""
    port = control.original.dport
    return control.helper or PORTS.get((PROTOCOLS.get(control.protocol, ""), port), "")


def _without_helper(evidence: Evidence, control: Connection) -> Iterator[str]:
    """What ``control`` lacks to announce the packet's connection."""
    helper, entry = _helper(control), describe_connection(control)
    certain = "" if _expects_related(evidence) else "if the packet begins a connection announced in another: "
    if control.helper:
        module = MODULES.get(helper)
        modules = evidence.network.hosts[evidence.device].modules if evidence.network else ()
        if module and module not in modules and _TRANSLATED & set(control.status):
            yield (
                f"{certain}{entry} is translated, and what its helper {helper} reads in it only with {module}, which "
                f"the lab does not ask for: add `modules: [{module}]` to {evidence.device}"
            )
        return
    port = control.original.dport
    lacks = f"{certain}{entry} has no helper, so nothing is related to it"
    if assigning := next((rule for rule in evidence.rules if _assigns(rule, port)), None):
        yield (
            f"{lacks}: {place(assigning)} assigns one only to a connection whose first packet it matches, in a chain "
            "behind connection tracking (priority -200 or higher)"
        )
    else:
        yield (
            f'{lacks}, and the kernel assigns none by itself: declare a `ct helper` of type "{helper}", and assign '
            f"it to port {port} by a rule with `ct helper set`"
        )


def _assigns(rule: Rule, port: int) -> bool:
    """Whether ``rule`` assigns a helper to connections to ``port``."""
    texts = (bare(rule.text), rule.written)
    return any(_ASSIGNS.search(text) and re.search(rf"\b{port}\b", text) for text in texts)
