"""Why the kernel dropped a packet, in words.

The names are those of ``enum skb_drop_reason`` (include/net/dropreason-core.h) without their
prefix; a reason that is not here is shown by its name. What to do about it stands beside the words
where the cause is clear enough to say.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """One drop reason: what it means, and what an admin can do about it ("" when that depends)."""

    words: str
    advice: str = ""


_CHECKSUM = "leave the checksum to the harness, or correct it in `send`"

REASONS = {
    "NOT_SPECIFIED": Reason("the kernel gives no reason"),
    "NO_SOCKET": Reason("no socket listens there"),
    "PKT_TOO_SMALL": Reason("shorter than its headers state"),
    "PKT_TOO_BIG": Reason(
        "larger than the MTU of the output interface",
        "lower the payload, allow fragments or raise the MTU of the lab's link",
    ),
    "NETFILTER_DROP": Reason("dropped by a netfilter hook"),
    "OTHERHOST": Reason("the Ethernet address is another host's", "check `ether.dst` in `send`"),
    "IP_CSUM": Reason("wrong IPv4 header checksum", _CHECKSUM),
    "TCP_CSUM": Reason("wrong TCP checksum", _CHECKSUM),
    "UDP_CSUM": Reason("wrong UDP checksum", _CHECKSUM),
    "ICMP_CSUM": Reason("wrong ICMP checksum", _CHECKSUM),
    "SKB_CSUM": Reason("the checksum could not be computed"),
    "IP_INHDR": Reason("broken IP header, or TTL exceeded"),
    "IP_RPFILTER": Reason(
        "reverse path filter: the route back to its source does not use the interface that it arrived on",
        "check the packet's source address, the device's routes, and net.ipv4.conf.*.rp_filter",
    ),
    "IP_NOPROTO": Reason("no handler for this IP protocol"),
    "IP_INADDRERRORS": Reason("neither an address of this host nor one that it may forward to"),
    "IP_INNOROUTES": Reason("no route to its destination", "add a route on the device, or check the destination"),
    "IP_OUTNOROUTES": Reason("no output route to its destination", "add a route, or check the destination"),
    "IP_LOCAL_SOURCE": Reason(
        "received from the network with a source address of this host", "check the packet's source address"
    ),
    "IP_INVALID_SOURCE": Reason("its source address can't be a source", "check the packet's source address"),
    "IP_INVALID_DEST": Reason("its destination address can't be a destination", "check the packet's destination"),
    "IP_LOCALNET": Reason("a loopback address received from the network", "see net.ipv4.conf.*.route_localnet"),
    "UNICAST_IN_L2_MULTICAST": Reason("a unicast address inside an Ethernet broadcast or multicast"),
    "XFRM_POLICY": Reason("dropped by an IPsec policy"),
    "IPV6DISABLED": Reason("IPv6 is off on this interface", "set net.ipv6.conf.*.disable_ipv6 to 0"),
    "IPV6_BAD_EXTHDR": Reason("broken IPv6 extension header"),
    "UNHANDLED_PROTO": Reason("no handler for this EtherType"),
    "INVALID_PROTO": Reason("the protocol does not fit the interface"),
    "SOCKET_FILTER": Reason("dropped by the socket's filter"),
    "SOCKET_RCVBUFF": Reason("the socket's receive buffer was full"),
    "SOCKET_BACKLOG": Reason("the socket's backlog was full"),
    "TCP_FLAGS": Reason("its TCP flags are invalid in this state"),
    "TCP_INVALID_SEQUENCE": Reason("TCP sequence number outside the window"),
    "TCP_INVALID_SYN": Reason("a SYN inside an established connection"),
    "TCP_RESET": Reason("a TCP reset ended the connection"),
    "TCP_CLOSE": Reason("the TCP connection is closed"),
    "NEIGH_CREATEFAIL": Reason("no entry could be made in the neighbour table"),
    "NEIGH_FAILED": Reason(
        "the next hop does not answer ARP or ND", "check the destination: no host of the lab has it"
    ),
    "NEIGH_QUEUEFULL": Reason("too many packets wait for the next hop's address"),
    "NEIGH_DEAD": Reason("the neighbour entry is gone"),
    "TC_INGRESS": Reason("dropped by tc at ingress"),
    "TC_EGRESS": Reason("dropped by tc at egress"),
    "QDISC_DROP": Reason("the queueing discipline dropped it"),
    "CPU_BACKLOG": Reason("the CPU's backlog was full"),
    "XDP": Reason("an XDP program dropped it"),
    "DEV_HDR": Reason("its link-layer header is broken"),
    "DEV_READY": Reason("the interface is down"),
    "FULL_RING": Reason("the interface's ring was full"),
    "NOMEM": Reason("the kernel had no memory for it"),
    "HDR_TRUNC": Reason("truncated header"),
    "DUP_FRAG": Reason("duplicate fragment"),
    "FRAG_REASM_TIMEOUT": Reason("fragment reassembly timed out"),
    "FRAG_TOO_FAR": Reason("fragments too far apart"),
    "TCP_MINTTL": Reason("TTL below the socket's minimum"),
}


# The meaning of a few reasons depends on the function that dropped the packet: net/ipv4/route.c,
# net/ipv4/ip_forward.c, net/ipv6/ip6_output.c.
_TTL = Reason("TTL or hop limit exceeded", "raise the TTL or hop limit in `send`")
_IN_FUNCTION = {
    ("ip_error", "IP_INADDRERRORS"): Reason(
        "forwarding is off on the interface it came in by", "set `forwarding: true` on this host of the lab"
    ),
    ("ip6_forward", "NOT_SPECIFIED"): Reason("not to be forwarded"),
    ("ip_forward", "IP_INHDR"): _TTL,
    ("ip6_forward", "IP_INHDR"): _TTL,
}


def explain(function: str, reason: str) -> Reason:
    """Return the meaning of ``reason`` as given by ``function``; no words where there is no more to say."""
    return _IN_FUNCTION.get((function, reason)) or REASONS.get(reason, Reason(""))
