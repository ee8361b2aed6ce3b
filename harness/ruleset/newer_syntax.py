"""Syntax that later versions of nft read and earlier ones refuse.

Each was tried with nft 1.0.6, 1.1.3 and 1.1.7, those of Debian 12, 13 and unstable: the version here is the first of
these three that reads it.
"""

from __future__ import annotations

import re
from typing import Final

from harness.text import numbers_in

NEWER: Final = (
    (r"\bfib\b[^;{}]*\bcheck\b", "1.1.7", "7.2"),
    (r"\bdestroy\b", "1.1.3", "6.12"),
    (r"\breset rules\b", "1.1.3", "6.12"),
    (r"\bflags\b[^;}]*\bpersist\b", "1.1.3", "6.12"),
    (r"\bhook output priority dstnat\b", "1.1.3", "6.12"),
    (r"\btimeout never\b", "1.1.3", "6.12"),
    (r"\btcp option mptcp subtype\b", "1.1.3", "6.12"),
    (r"\b(?:vxlan|geneve|gre|gretap) (?:ip|ip6|tcp|udp|icmp|ether|vni|flags|vlan)\b", "1.1.3", "6.12"),
    (r"\b(?:ct|meta) mark set (?:ip6?|ct|meta|tcp|udp|th|ether|vlan)\b", "1.1.3", "6.12"),
    (r"\bset [^;{}]*\b(?:and|or|xor) (?:ip6?|ct|meta|tcp|udp|th|ether|vlan)\b", "1.1.3", "6.12"),
    (r"\bip6? dscp set ip6? dscp\b", "1.1.3", "6.12"),
    (r"^\s*(?:[^#\"]*[;{\s])?last\b", "1.1.3", "6.12"),
)
"""A regular expression for a line of a ruleset, the version, and the kernel image that has it."""


def read_by(line: str, version: str) -> tuple[str, str] | None:
    """The version, and the kernel image that has it, that reads what nft ``version`` refuses in ``line``, if known."""
    for pattern, newer, image in NEWER:
        if re.search(pattern, line) and numbers_in(newer) > numbers_in(version):
            return newer, image
    return None
