"""Keywords of nft, for one that is misspelt: nft takes an unknown word for a symbol, and complains of what follows."""

from __future__ import annotations

import re
from typing import Final

from harness.model.problem import nearest
from harness.nft_syntax import NAME

KEYWORDS: Final = frozenset(
    {
        *("accept", "drop", "reject", "return", "continue", "jump", "goto", "queue", "policy"),
        *("table", "chain", "type", "hook", "priority", "filter", "route", "elements", "flags", "timeout", "define"),
        *("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"),
        *("meta", "ether", "vlan", "icmp", "icmpv6", "saddr", "daddr", "sport", "dport", "protocol", "l4proto"),
        *("state", "status", "mark", "iifname", "oifname", "established", "related", "invalid", "untracked"),
        *("counter", "limit", "quota", "log", "prefix", "comment", "notrack", "masquerade", "redirect", "snat", "dnat"),
    }
)
"""Those of rules, chains and sets that most rulesets have. Source: nft(8)."""

NEAR: Final = 0.75
"""Ratio of :class:`difflib.SequenceMatcher` from which a word counts as a misspelt keyword."""


def meant(line: str, column: int, end: int) -> tuple[str, str] | None:
    """The misspelt word, and the keyword, where nft complains of the columns ``column`` to ``end`` of ``line``.

    It is the word there or the one before it; None if neither is near a keyword.
    """
    for word in (*re.findall(NAME, line[: column - 1])[-1:], *re.findall(NAME, line[column - 1 : end])[:1]):
        if word not in KEYWORDS and (near := nearest(word, KEYWORDS, NEAR)):
            return word, near
    return None
