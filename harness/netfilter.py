"""Names of netfilter by the kernel's numbers, as nft(8) writes them: families, hooks, verdicts, protocols.

Sources: include/uapi/linux/netfilter.h, netfilter_arp.h, netfilter_bridge.h and netfilter/nf_tables.h; IANA's
protocol numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NFPROTO_INET, NFPROTO_IPV4, NFPROTO_ARP, NFPROTO_NETDEV, NFPROTO_BRIDGE, NFPROTO_IPV6 = 1, 2, 3, 5, 7, 10

FAMILIES: Final[Mapping[int, str]] = {
    NFPROTO_IPV4: "ip",
    NFPROTO_IPV6: "ip6",
    NFPROTO_INET: "inet",
    NFPROTO_ARP: "arp",
    NFPROTO_BRIDGE: "bridge",
    NFPROTO_NETDEV: "netdev",
}
"""``NFPROTO_*`` that nf_tables has, in the order of nft(8)."""
FAMILY_NAMES: Final = tuple(FAMILIES.values())
IP_FAMILIES: Final = ("ip", "ip6", "inet")
"""Families whose hooks are those of IPv4, IPv6 or both."""

_INET_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_HOOKS: Final[Mapping[int, tuple[str, ...]]] = {
    NFPROTO_INET: _INET_HOOKS,
    NFPROTO_IPV4: _INET_HOOKS,
    NFPROTO_IPV6: _INET_HOOKS,
    NFPROTO_BRIDGE: ("prerouting", "input", "forward", "output", "postrouting", "brouting"),
    NFPROTO_ARP: ("input", "output", "forward"),
    NFPROTO_NETDEV: ("ingress", "egress"),
}
"""``enum nf_inet_hooks``, ``NF_BR_*``, ``NF_ARP_*`` and ``enum nf_dev_hooks``: names in the order of the numbers."""
HOOK_NAMES: Final = ("ingress", "prerouting", "input", "forward", "output", "postrouting", "egress")
"""Hooks that a chain can have; the kernel's brouting is ebtables' alone."""

_VERDICTS: Final[Mapping[int, str]] = {0: "drop", 1: "accept", 2: "stolen", 3: "queue"}
"""``NF_*`` verdicts of hooks."""
_NFT_VERDICTS: Final[Mapping[int, str]] = {-1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}
"""``enum nft_verdicts``: what rules give beside those."""
_VERDICT_MASK: Final = 0xFF

PROTOCOLS: Final[Mapping[int, str]] = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}
"""``IPPROTO_*``; nft(8) calls 58 ``icmpv6`` as well as ``ipv6-icmp``."""
WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})
"""Protocols whose header begins with source and destination port."""


def family_name(number: int) -> str:
    """Name of a family, ``inet``; the number for an unknown one."""
    return FAMILIES.get(number, str(number))


def hook_name(family: int, hook: int) -> str:
    """Name of the hook with number ``hook`` of a family, ``postrouting``; ``family:hook`` for an unknown one."""
    names = _HOOKS.get(family, ())
    return names[hook] if hook < len(names) else f"{family}:{hook}"


def verdict_name(code: int) -> str:
    """Name of a verdict of a hook, chain or rule, ``accept``; ``code`` is the kernel's, as u32 or s32.

    What stands above the verdict, such as a queue's number, is left out. An unknown verdict is returned as number.
    """
    code &= 0xFFFFFFFF
    if name := _NFT_VERDICTS.get(code - (1 << 32)):
        return name
    name = _VERDICTS.get(code & _VERDICT_MASK, str(code & _VERDICT_MASK))
    # NF_DROP_REASON() frees the packet on the spot and returns NF_STOLEN with an error above it
    # (include/linux/netfilter.h).
    return "drop" if name == "stolen" and code >> 16 else name
