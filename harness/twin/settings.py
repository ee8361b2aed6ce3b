"""Settings of the kernel that a twin has: those of a namespace that change what becomes of packets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from harness.topology import sysctls

DEFAULTS: Final[Mapping[str, str]] = {
    "net/ipv4/ip_default_ttl": "64",
    "net/ipv4/icmp_echo_ignore_broadcasts": "1",
    "net/ipv4/raw_l3mdev_accept": "1",
    "net/ipv4/conf/*/accept_source_route": "1",
    "net/ipv4/conf/*/send_redirects": "1",
    "net/ipv6/conf/*/hop_limit": "64",
    "net/ipv6/icmp/echo_ignore_multicast": "0",
    "net/netfilter/nf_conntrack_checksum": "1",
    "net/netfilter/nf_conntrack_tcp_loose": "1",
}
"""What a new namespace has, where that is not 0; ``*`` is an interface."""
FORWARDING: Final = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
BRIDGES: Final = ("bridge-nf-call-arptables", "bridge-nf-call-ip6tables", "bridge-nf-call-iptables")
"""What br_netfilter does only where one of them is set."""
_OF_INTERFACE = re.compile(r"(net/ipv[46]/conf)/(.*)/([^/]+)")
_COPIED: Final = ("net/ipv4/conf/default/", "net/ipv6/conf/default/")
"""Values for interfaces to come, which a lab has none of."""


def of(found: Mapping[str, str], interfaces: Collection[str], *, bridged: bool) -> dict[str, str | int]:
    """The settings of ``found`` that a new namespace has not, as a lab names them.

    ``found`` are the values by path below ``/proc/sys``; settings of other ``interfaces`` are left out, and of bridges
    where the machine has none.
    """
    forwards = [found.get(path, "0") != "0" for path in FORWARDING]
    skipped: tuple[str, ...] = (*FORWARDING, *_COPIED, "net/ipv4/conf/all/forwarding")
    if not bridged or all(found.get(f"net/bridge/{name}", "0") == "0" for name in BRIDGES):
        skipped = (*skipped, "net/bridge/")
    kept: dict[str, str | int] = {}
    for path, value in found.items():
        if path.startswith(skipped) or not re.fullmatch(r"-?\d{1,10}", value):
            continue
        general, usual = path, DEFAULTS.get(path, "0")
        if match := _OF_INTERFACE.fullmatch(path):
            folder, interface, name = match.groups()
            if interface not in ("all", *interfaces):
                continue
            general = f"{folder}/*/{name}"
            usual = _usual(folder, interface, name, forwards)
        is_usual = value == usual and path.removeprefix("net/bridge/") not in BRIDGES  # a lab sets those to 0
        if not is_usual and general in sysctls.own():
            kept[path if "." in path else path.replace("/", ".")] = int(value)
    if forwards[0] != forwards[1]:
        kept[FORWARDING[forwards[0]].replace("/", ".")] = 0
    return kept


def _usual(folder: str, interface: str, name: str, forwards: Sequence[bool]) -> str:
    """What a setting of an interface is in a new namespace that forwards IPv4, IPv6 or both."""
    if name == "forwarding" and interface != "all":
        return str(int(forwards[folder != "net/ipv4/conf"]))
    if (interface, name) == ("all", "accept_source_route"):
        return "0"  # both have to be set, and the kernel sets one
    return DEFAULTS.get(f"{folder}/*/{name}", "0")


def modules(found: Mapping[str, str], loaded: frozenset[str], ruleset: str) -> list[str]:
    """The modules that settings and the ``ruleset``'s text need beside those that are loaded for it anyway."""
    wanted = [name for name in sorted(loaded) if re.fullmatch(r"nf_(?:nat|conntrack)_(?!ipv)[a-z0-9]+", name)]
    helpers = set(re.findall(r'\b(?:type|--helper|helper)\s+"?([a-z0-9]+)', ruleset))
    kept = [name for name in wanted if name.rpartition("_")[2] in helpers and name != "nf_conntrack_netlink"]
    if any(path.startswith("net/netfilter/") for path in found):
        kept.insert(0, "nf_conntrack")
    if any(path.startswith("net/bridge/") for path in found):
        kept.insert(0, "br_netfilter")
    return kept


def forwarding(found: Mapping[str, str]) -> bool:
    """Whether the machine forwards IPv4 or IPv6."""
    return any(found.get(path, "0") != "0" for path in FORWARDING)
