"""Connection tracking: why it holds a packet invalid, and what is not translated because it is not tracked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from harness.judge.evidence import Evidence
from harness.judge.flow import belongs, describe_connection, same
from harness.judge.unmet import named, place
from harness.model.observation import Connection, ObservedPacket, Step
from harness.packets import icmp
from harness.packets.checksum import is_checksum_wrong
from harness.packets.headers import fields
from harness.reading.decision import arrivals
from harness.reading.path import hops_on
from harness.reading.rules import bare, conntrack_states, untracking
from harness.scenario.models.expect import Delivered

INVALID = "conntrack considers the packet invalid"
_CONNTRACK = "nf_conntrack_in"
"""By this connection tracking looks at a packet (net/netfilter/nf_conntrack_core.c)."""
_VALID_FLAGS = frozenset(map(frozenset, ("S", "SU", "SA", "R", "RA", "FA", "FAU", "A", "AU")))
"""tcp_valid_flags[] in net/netfilter/nf_conntrack_proto_tcp.c, which leaves P, E and C aside."""
_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Types of ICMP that quote a packet: icmp_is_err() in include/linux/icmp.h."""
_REPLIES, _REPLIES_V6 = frozenset({0, 14, 16, 18}), frozenset({129, 140})
_NAT_DONE = {"SRC_NAT", "DST_NAT"}
_DNAT = re.compile(r"(?<!\S)dnat (?:ip6? )?to \[?(?P<address>(?:\d{1,3}\.){3}\d{1,3}|[\da-f]*:[\da-f:]+)(?![\w.])")
_NAT = re.compile(r"(?<!\S)(?:dnat|snat|masquerade|redirect|netmap)\b")


def packet_is_invalid(evidence: Evidence) -> Iterator[str]:
    """A rule matched `ct state invalid` and refused the packet; what made it invalid."""
    step = evidence.last
    if evidence.is_refused and evidence.should_pass and step and is_invalid(step):
        yield f"{INVALID}: {_reason(evidence)}"


def is_invalid(step: Step) -> bool:
    """Whether ``step`` proves that conntrack considers the packet invalid."""
    return conntrack_states(step) == {"invalid"}


def needs_connections(evidence: Evidence) -> bool:
    """Whether the connections that the device tracks are needed to say what is wrong with the packet."""
    return any(map(is_invalid, evidence.packet.steps)) or should_be_translated(evidence)


def not_translated(evidence: Evidence) -> Iterator[str]:
    """What conntrack does not track is not translated: nf_nat_inet_fn() in net/netfilter/nf_nat_core.c."""
    is_asked = should_be_translated(evidence)
    if not is_asked and not _would_be_sent_on(evidence):
        return
    packet, device = evidence.packet, evidence.device
    steps = [step for step in packet.steps if step.host == device and step.rule]
    invalid = next((step for step in steps if is_invalid(step)), None)
    untracked = next((step for step in steps if conntrack_states(step) == {"untracked"}), None)
    without = "and only packets of a tracked connection are translated"
    if invalid and invalid.rule:
        yield f"{INVALID} ({place(invalid.rule)}), {without}; {_reason(evidence)}"
    elif (step := untracking(packet, device)) and step.rule and (untracked or _came_first(evidence, step)):
        yield f"{place(step.rule)} exempts the packet from connection tracking (notrack), {without}"
    elif untracked and untracked.rule:
        yield f"the packet is untracked ({place(untracked.rule)}), {without}"
    elif is_asked:
        yield from _by_connections(evidence, without)


def _by_connections(evidence: Evidence, without: str) -> Iterator[str]:
    """What the connections that the device tracks afterwards say of a packet that went on."""
    if not evidence.observation.listed or evidence.is_refused or not arrivals(evidence.packet):
        return
    own = [one for one in evidence.observation.connections if belongs(evidence.packet, one)]
    if not own:
        protocol = fields(evidence.packet.frame).get("protocol")
        why = f" ({_reason(evidence)})" if protocol in ("tcp", "icmp", "icmpv6") else ""
        yield f"the packet was not tracked{why}, {without}"
    elif len(own) == 1 and "SEEN_REPLY" in own[0].status and not _NAT_DONE & set(own[0].status):
        yield (
            "the packet belongs to a connection that was not translated when it began, and chains of type nat see only "
            f"the first packet of one: {describe_connection(own[0])}"
        )


def should_be_translated(evidence: Evidence) -> bool:
    """Whether the scenario expects a rule of NAT that did not match, or other addresses than those that arrived."""
    if any(_NAT.search(bare(rule.text)) for one in evidence.unmet for rule in named(one, evidence.rules)):
        return True
    delivered = evidence.expect.delivered
    sees = Delivered.of(delivered).sees if delivered is not None else None
    if sees is None:
        return False
    sent, *arrived = (fields(frame) for frame in (evidence.packet.frame, *_frames(evidence.packet)))
    for key, wanted in (("src", sees.src), ("dst", sees.dst)):
        if wanted and _differs(sent, key, wanted) and all(_differs(one, key, wanted) for one in arrived):
            return True
    return False


def _would_be_sent_on(evidence: Evidence) -> bool:
    """Whether the packet is expected at a host, did not come there, and a rule translates to that host's address."""
    host, network = evidence.expected_host, evidence.network
    if network is None or host == evidence.device or host in arrivals(evidence.packet):
        return False
    targets = [found["address"] for rule in evidence.rules if (found := _DNAT.search(bare(rule.text)))]
    return any(network.owner(ip_address(one)) == host for one in targets)


def _frames(packet: ObservedPacket) -> Iterator[bytes]:
    yield from (delivery.frame for delivery in packet.deliveries if delivery.frame)


def _differs(found: Mapping[str, str | int], key: str, wanted: str) -> bool:
    return key in found and not same(wanted, found[key])


def _came_first(evidence: Evidence, step: Step) -> bool:
    """Whether conntrack had not seen the packet yet: afterwards notrack changes nothing (net/netfilter/nft_ct.c)."""
    if not evidence.observation.whole or _CONNTRACK not in evidence.observation.traced:
        return False
    hops = hops_on(evidence.packet, evidence.device)
    return not any(hop.function == _CONNTRACK and hop.time < step.time for hop in hops)


def _reason(evidence: Evidence) -> str:
    seen = fields(evidence.packet.frame)
    protocol = seen.get("protocol")
    if _is_checked(evidence) and is_checksum_wrong(evidence.packet.frame):
        return f"its {str(protocol).upper()} checksum is wrong"
    if protocol == "tcp" and "flags" in seen:
        return _reason_of_tcp(evidence, str(seen["flags"]))
    if protocol in ("icmp", "icmpv6"):
        return _reason_of_icmp(seen)
    return "it fits no connection, and cannot begin one"


def _is_checked(evidence: Evidence) -> bool:
    """Whether conntrack verifies the checksum: of what comes in, unless net.netfilter.nf_conntrack_checksum is 0."""
    sysctls = evidence.network.hosts[evidence.device].sysctls if evidence.network else {}
    packet = evidence.packet
    comes_in = packet.injected and packet.sender != evidence.device and not evidence.observation.flow
    return comes_in and sysctls.get("net.netfilter.nf_conntrack_checksum") != "0"


def _reason_of_tcp(evidence: Evidence, written: str) -> str:
    flags = frozenset(written) - set("PECN")
    if flags not in _VALID_FLAGS:
        return f"no TCP packet has the flags {written or 'none'} together"
    own = [one for one in evidence.observation.connections if belongs(evidence.packet, one)]
    if not own:
        if evidence.observation.listed:
            return f"the device tracks no connection that it belongs to, and the flags {written} do not begin one"
        return f"it fits no connection that the device tracks, and the flags {written} do not begin one"
    if len(own) > 1:
        return f"it does not fit its connection: {'; '.join(map(describe_connection, own))}"
    return _reason_in(own[0], flags, written)


def _reason_in(own: Connection, flags: frozenset[str], written: str) -> str:
    entry = f"its connection is {describe_connection(own)}"
    if own.state == "SYN_SENT" and not flags & {"S", "R"}:
        return f"{entry}: the device has seen the SYN but not the SYN-ACK, which may have taken another way"
    if own.state == "ESTABLISHED" and "A" in flags and not flags & {"S", "R"}:
        return f"{entry}, and its sequence or acknowledgement number is out of the window"
    return f"{entry}, and the flags {written} or the numbers of the packet do not fit that"


def _reason_of_icmp(seen: Mapping[str, str | int]) -> str:
    """Why an ICMP message is invalid: nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c in net/netfilter/."""
    is_v6, kind = seen["protocol"] == "icmpv6", seen.get("type")
    names = icmp.TYPES_V6 if is_v6 else icmp.TYPES
    name = icmp.name_of(names, kind, f"type {kind}")
    if isinstance(kind, int) and (kind < 128 if is_v6 else kind in _ERRORS):
        return f"an ICMP error ({name}) is valid only if the packet that it quotes belongs to a tracked connection"
    if kind in (_REPLIES_V6 if is_v6 else _REPLIES):
        return f"no request is tracked that this {name} answers"
    return f"conntrack does not take {name} for the beginning of a connection"
