"""What ``nft --handle list ruleset`` prints, read back: chains, and rules with their handles.

nft's JSON has no text of rules and, in 1.0.6, no devices of chains.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

FAMILIES: Final = ("ip", "ip6", "inet", "arp", "bridge", "netdev")


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain as loaded; only a base chain has a hook."""

    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = ""
    devices: tuple[str, ...] = ()
    """Of a chain at ingress or egress."""

    @property
    def is_base(self) -> bool:
        """Whether packets enter here by a hook."""
        return bool(self.hook)


class Listed(NamedTuple):
    """A rule as nft lists it."""

    family: str
    table: str
    chain: str
    handle: int
    text: str
    comment: str


_HANDLE = re.compile(r" # handle (\d+)$")
_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_BASE = re.compile(
    r"^\t\ttype (?P<type>\S+) hook (?P<hook>\S+)(?: devices? (?:= )?(?P<devices>\{[^}]*\}|\S+))?"
    r" priority (?P<priority>-?\d+);(?: policy (?P<policy>\S+);)?"
)
_COMMENT = re.compile(r'(?:^|\s)comment "([^"]*)"$')
_OF_CHAIN = re.compile(r'^\t\t(?:comment "[^"]*"|flags [^;]*;|policy \S+;)$')
"""Lines of a chain that are neither a rule nor its hook."""


def read(listing: str) -> tuple[tuple[Chain, ...], tuple[Listed, ...]]:
    """Chains and rules of ``listing``, in its order."""
    chains: list[Chain] = []
    rules: list[Listed] = []
    family = table = chain = ""
    pending: list[str] = []
    for line in listing.splitlines():
        if found := _TABLE.match(line):
            family, table = found.groups()
        elif found := _CHAIN.match(line):
            chain = found[1]
            chains.append(Chain(family=family, table=table, name=chain))
        elif line == "\t}":
            chain = ""
        elif not chain:
            continue  # a set or another object
        elif not pending and (base := _BASE.match(line)):
            chains[-1] = Chain(
                family=family,
                table=table,
                name=chain,
                type=base["type"],
                hook=base["hook"],
                priority=int(base["priority"]),
                policy=base["policy"] or "accept",
                devices=tuple(re.findall(r"[^\s{},\"]+", base["devices"] or "")),
            )
        elif not pending and (_OF_CHAIN.match(line) or not line.strip()):
            continue
        else:
            # A rule may take several lines: long sets are wrapped, and a block may follow a jump.
            pending.append(line.strip())
            if handle := _HANDLE.search(line):
                text = _HANDLE.sub("", " ".join(pending))
                comment = _COMMENT.search(text)
                rules.append(Listed(family, table, chain, int(handle[1]), text, comment[1] if comment else ""))
                pending.clear()
    return tuple(chains), tuple(rules)
