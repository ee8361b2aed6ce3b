"""What the lab does to a packet before a rule could: forwarding, VLAN tags, limits of ICMP errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.judge.evidence import Evidence
from harness.judge.unmet import place
from harness.model.observation import ObservedPacket
from harness.packets import icmp
from harness.packets.headers import fields, vlan_tags
from harness.reading.path import located
from harness.reading.rules import bare
from harness.topology.parts import Vlan

if TYPE_CHECKING:
    from harness.topology.network import Network

_TAGGED = re.compile(r"\bmeta protocol (?:8021q|8021ad|vlan|0x8100)\b")
_VLAN = re.compile(r"\bvlan id (?P<id>\d+)\b")
_LIMITS = ("net.ipv4.icmp_rate", "net.ipv4.icmp_msgs", "net.ipv6.icmp.rate")


def not_forwarding(evidence: Evidence) -> Iterator[str]:
    """IPv6 packets for others end in ip6_forward() on a host that does not forward (net/ipv6/ip6_output.c)."""
    drop = evidence.packet.drop
    if drop is None or evidence.network is None or drop.function != "ip6_forward":
        return
    host = evidence.network.hosts[drop.host]
    if not host.forwarding and host.sysctls.get("net.ipv6.conf.all.forwarding", "0") == "0":
        yield f"{drop.host} does not forward IPv6: set `forwarding: true` on this host of the lab"


def tagged_twice(evidence: Evidence) -> Iterator[str]:
    """A VLAN interface adds its tag to what is sent by it, also to a frame that has one already."""
    packet, network = evidence.packet, evidence.network
    if network is None or not packet.injected or not vlan_tags(packet.frame):
        return
    if name := _vlan_interface(packet, network):
        yield (
            f"{packet.sender} sent the frame by its VLAN interface {name}, which adds a tag to the one of "
            "`ether.vlan`: leave that out"
        )


def _vlan_interface(packet: ObservedPacket, network: Network) -> str:
    """The VLAN interface by which the sender sent ``packet``; "" for none."""
    made = network.hosts[packet.sender].made
    used = (hop.device for hop in located(packet) if hop.host == packet.sender)
    return next((name for name in used if isinstance(made.get(name), Vlan)), "")


def no_such_vlan(evidence: Evidence) -> Iterator[str]:
    """A frame with a tag for which an interface has no VLAN counts as another host's (net/core/dev.c)."""
    drop, found = evidence.packet.drop, fields(evidence.packet.frame)
    if drop is None or drop.reason != "OTHERHOST" or not found.get("vlan") or evidence.network is None:
        return
    own = {one.mac: one.name for one in evidence.network.hosts[drop.host].interfaces.values()}
    if name := own.get(str(found["ether_dst"])):
        yield f"{drop.host} has no interface for VLAN {found['vlan']} on {name}, so the tagged frame is not for it"


def tag_was_taken_off(evidence: Evidence) -> Iterator[str]:
    """`meta protocol` is of what is behind the VLAN tag: skb_vlan_untag() comes before the chains at ingress."""
    rule = evidence.expected
    comes_in = evidence.packet.sender != evidence.device
    if rule and comes_in and _TAGGED.search(bare(rule.text)) and len(vlan_tags(evidence.packet.frame)) == 1:
        yield (
            f"{place(rule)} cannot match: the kernel takes the VLAN tag off before any chain, so `meta protocol` is "
            "that of what is behind it; match the tag by `vlan id`"
        )


def other_vlan(evidence: Evidence) -> Iterator[str]:
    """The expected rule asks for another VLAN than the one that the frame was sent with."""
    rule, packet = evidence.expected, evidence.packet
    found = _VLAN.search(bare(rule.text)) if rule else None
    comes_in = packet.injected and packet.sender != evidence.device
    if rule and found and comes_in and evidence.network and not _vlan_interface(packet, evidence.network):
        tags = vlan_tags(packet.frame)
        if int(found["id"]) not in tags:
            sent = f"with VLAN {', '.join(map(str, tags))}" if tags else "without a tag"
            yield f"{place(rule)} asks for VLAN {found['id']}, and {packet.sender} sent the frame {sent}"


def icmp_is_limited(evidence: Evidence) -> Iterator[str]:
    """The lab limits the rate of ICMP errors, and the device sent none for this packet."""
    network, device = evidence.network, evidence.device
    if network is None or not evidence.expects_answer:
        return
    # A redirect comes beside the answer, and may be what used up the limit.
    if any(headers.get("type") != icmp.TYPES["redirect"] for _, headers in evidence.answers()):
        return
    limits = [f"{name}: {value}" for name, value in network.hosts[device].sysctls.items() if name.startswith(_LIMITS)]
    drop = evidence.packet.drop
    rejected = evidence.seen.with_.startswith("icmp")
    unreachable = drop and drop.reason == "NO_SOCKET" and fields(evidence.packet.frame).get("protocol") == "udp"
    if limits and (rejected or unreachable):
        yield f"{device} sent no ICMP error for this packet; the lab limits their rate ({', '.join(limits)})"
