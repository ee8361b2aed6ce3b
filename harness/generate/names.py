"""Numbers that nft prints as names: protocols, types of ICMP and Ethernet, TCP flags, DSCP."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from harness import netfilter
from harness.packets import icmp

PROTOCOLS: Mapping[str, int] = {
    **{name: number for number, name in netfilter.PROTOCOLS.items()},
    "ipv6-icmp": 58,
    "ipencap": 4,
    "ipip": 4,
    "ipv6": 41,
    "hopopt": 0,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "rsvp": 46,
    "eigrp": 88,
    "ospf": 89,
    "ospfigp": 89,
    "pim": 103,
    "comp": 108,
    "vrrp": 112,
    "l2tp": 115,
}
WITH_PORTS = frozenset(netfilter.PROTOCOLS[number] for number in netfilter.WITH_PORTS)
FLAGS: Mapping[str, int] = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
ETHER_TYPES: Mapping[str, int] = {
    "ip": 0x0800,
    "arp": 0x0806,
    "ip6": 0x86DD,
    "vlan": 0x8100,
    "8021q": 0x8100,
    "8021ad": 0x88A8,
}
FAMILIES: Mapping[str, int] = {"ip": 4, "ip6": 6, "ipv4": 4, "ipv6": 6}
IP_FAMILIES: Mapping[int, str] = {4: "ip", 6: "ip6"}
DSCP: Mapping[str, int] = {
    **{f"cs{number}": 8 * number for number in range(8)},
    **{f"af{klass}{drop}": 8 * klass + 2 * drop for klass in range(1, 5) for drop in range(1, 4)},
    "be": 0,
    "df": 0,
    "lephb": 1,
    "va": 44,
    "ef": 46,
}
"""See RFC 2474, RFC 2597 and nft(8), "DSCP TYPE"."""
ECN: Mapping[str, int] = {"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3}
IGMP: Mapping[str, int] = {
    "membership-query": 0x11,
    "membership-report-v1": 0x12,
    "membership-report-v2": 0x16,
    "leave-group": 0x17,
    "membership-report-v3": 0x22,
}
ARP_OPERATIONS: Mapping[str, int] = {"request": 1, "reply": 2}

_BY_FIELD: Mapping[str, tuple[Mapping[str, int], ...]] = {
    "proto": (PROTOCOLS,),
    "flags": (FLAGS,),
    "ether_type": (ETHER_TYPES,),
    "dscp": (DSCP,),
    "ecn": (ECN,),
    "priority": ({"none": 0},),
    "op": (ARP_OPERATIONS,),
}


def protocol(value: Any) -> str | int:
    """A protocol as packets have it: by its name where one is used here, ``ipv6-icmp`` for ``icmpv6``."""
    number = PROTOCOLS.get(value, value)
    name = netfilter.PROTOCOLS.get(number, number)
    return "ipv6-icmp" if name == "icmpv6" else name


def number(value: Any, field: str = "", protocol: Any = None) -> int | None:
    """``value`` as a number: an integer, an address, or a name that ``field`` has; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        tables = _BY_FIELD.get(field, ())
        is_six = protocol == "ipv6-icmp"
        if field == "type":
            tables = (icmp.TYPES_V6,) if is_six else (icmp.TYPES,)
        if field == "code":
            tables = (icmp.CODES_V6, icmp.CODES) if is_six else (icmp.CODES, icmp.CODES_V6)
        for table in tables:
            if value in table:
                return table[value]
        if value.isdecimal():
            return int(value)
    return _of_address(str(value))


@functools.lru_cache(4096)
def _of_address(text: str) -> int | None:
    try:
        return int(ip_address(text))
    except ValueError:
        return None


def flags(value: Any) -> int | None:
    """TCP flags as a number: of one name, of a list of names, or of a set; None for anything else."""
    if isinstance(value, str):
        return FLAGS.get(value)
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping) and "|" in value:
        value = value["|"]
    if isinstance(value, list | tuple | frozenset) and all(isinstance(one, str) and one in FLAGS for one in value):
        return sum(FLAGS[one] for one in set(value))
    return None
