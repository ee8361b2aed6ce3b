"""Limits of rules: how much they let pass at once, and how soon that comes back.

A limit is a bucket of tokens, full when it is loaded, that fills with the time between two packets (nft_limit_eval() in
net/netfilter/nft_limit.c; xt_limit.c and xt_hashlimit.c for iptables). How much time that is depends on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from harness.model.observation import Rule, Step
from harness.reading.clauses import clauses, holds
from harness.reading.elements import plain

_SECONDS: Final = {
    **dict.fromkeys(("second", "sec", "s"), 1),
    **dict.fromkeys(("minute", "min", "m"), 60),
    **dict.fromkeys(("hour", "h"), 3600),
    **dict.fromkeys(("day", "d"), 86400),
    "week": 604800,
}
_UNITS: Final = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20, "gbytes": 1 << 30}
_LIMIT: Final = re.compile(
    r"(?<!\S)limit rate (?P<over>over )?(?P<rate>\d+)(?: (?P<unit>[kmg]?bytes))?/(?P<per>[a-z]+)"
    r"(?: burst (?P<burst>\d+) (?P<of>[kmg]?bytes|packets))?"
    r"|(?<!\S)limit name (?P<name>[\w./-]+)(?P<map>.*? map )?"
)
_IN_ELEMENT: Final = re.compile(
    r"(?:(?:add|update) (?P<set>@\S+)|(?P<meter>meter \S+)(?: size \d+)?) \{ (?P<key>[^{}]+?)"
    r"(?: timeout (?P<timeout>\w+))? $"
)
"""What stands before a limit of each element of a set."""
_OF_SET: Final = re.compile(
    r"(?:(?:add|update) )?(?<!\S)(?P<set>@[A-Za-z][\w./-]*)"
    r"(?: \{ (?P<key>[^{}]+?)(?: timeout (?P<timeout>\w+))? \})?(?= |$)"
)
"""A set whose declaration may have a limit for each element."""
_OF_IPTABLES: Final = re.compile(
    r"(?<!\S)--(?:limit|hashlimit(?P<over>-above)?(?:-upto)?) (?P<rate>\d+)(?P<unit>[kmg]?b?)/(?P<per>[a-z]+)"
)
_BURST_OF_IPTABLES: Final = re.compile(r"--(?:hash)?limit-burst (?P<burst>\d+)")
_EXPIRES: Final = re.compile(r"--hashlimit-htable-expire (?P<ms>\d+)")
_RECENT: Final = re.compile(r"(?<!\S)(?:-m|--match) recent\b.*--seconds (?P<seconds>\d+)")
MAPPED: Final = "*"
"""The name of a limit that a map chooses."""
BURST: Final = 5
"""Packets, where none is given (NFT_LIMIT_PKT_BURST_DEFAULT; XT_LIMIT_BURST in include/uapi of iptables)."""


class Limit(NamedTuple):
    """What a rule lets pass."""

    text: str
    before: str
    """The rule's text before it."""
    burst: int
    """At once: packets, or bytes; 0 if that is not known."""
    token: float
    """Seconds in which the next one, packet or byte, may pass; 0 if that is not known."""
    bytes: bool
    over: bool
    """Whether the rule matches what is more than that."""
    shared: bool
    """Whether it is one for all packets that come to it, and not one for each element of a set."""
    name: str = ""
    """Of one that is declared by itself: its tokens are those of all rules that name it."""
    set: str = ""
    """``@name``, or ``meter name``, of one for each element of a set; "" where the set is not known."""
    key: str = ""
    """What makes an element of that, as ``ip saddr . tcp dport``; "" where that is not known."""
    timeout: str = ""
    """For how long an element is kept, as the rule says."""


def limits_of(rule: Rule, named: Mapping[str, str] = MappingProxyType({})) -> tuple[Limit, ...]:
    """The limits of ``rule``, in order.

    ``named`` are the texts of those with a name, by family, table and name, and of those that sets declare for each of
    their elements, by family, table and ``@name``: see :func:`harness.ruleset.listing.limits`.
    """
    found = [_of_name(one, rule, named) if one.name else one for one in _written(rule)]
    if "@" in rule.text and any("@" in one for one in named):
        found += _of_sets(rule, named)
    return tuple(found)


def _of_name(limit: Limit, rule: Rule, named: Mapping[str, str]) -> Limit:
    table = f"{rule.family} {rule.table} "
    if limit.name == MAPPED:
        several = _several(text for name, text in named.items() if name.startswith(table) and "@" not in name)
        # It is not known which of them it is, nor what that has left.
        least = min((one.token for one in several), default=0.0)
        return limit._replace(name="", token=least, shared=False)
    found = _LIMIT.match(named.get(table + limit.name, ""))
    return _limit(found, limit.before)._replace(name=limit.name) if found else limit


def _of_sets(rule: Rule, named: Mapping[str, str]) -> Iterator[Limit]:
    """The limits that the sets of ``rule`` have for each of their elements.

    An update evaluates them, and a lookup that finds the element (nft_set_elem_update_expr() in
    include/net/netfilter/nf_tables.h).
    """
    text = plain(rule.text)
    for found in _OF_SET.finditer(text):
        several = _several([named.get(f"{rule.family} {rule.table} {found['set']}", "")])
        if not several:
            continue
        before = text[: found.start()]
        lookup = next((one for one in clauses(text) if one.endswith(f" {found['set']}")), "")
        yield several[0]._replace(
            before=before,
            burst=min(one.burst for one in several),
            token=min(one.token for one in several),
            shared=False,
            set=found["set"],
            # Elements may have others than their set.
            key=(found["key"] or lookup.rpartition(" ")[0]) if len(set(several)) == 1 else "",
            timeout=found["timeout"] or "",
        )


def _several(texts: Iterable[str]) -> list[Limit]:
    return [_limit(found, "") for text in texts for found in _LIMIT.finditer(text)]


@lru_cache(4096)
def _written(rule: Rule) -> tuple[Limit, ...]:
    text = plain(rule.text)
    found = tuple(_limit(one, text[: one.start()]) for one in _LIMIT.finditer(text))
    found = found or tuple(_of_iptables(rule.written))
    if not rule.written.startswith("-"):
        return found
    return tuple(one if one.shared else one._replace(timeout=_expiry(rule.written, one)) for one in found)


def _limit(found: re.Match[str], before: str) -> Limit:
    shared = before.count("{") == before.count("}")
    if found["name"]:
        name = MAPPED if found["map"] else found["name"]
        return Limit(found[0], before, burst=0, token=0.0, bytes=False, over=False, shared=shared, name=name)
    rate = int(found["rate"]) * (_UNITS[found["unit"]] if found["unit"] else 1)
    burst = int(found["burst"]) * _UNITS.get(found["of"], 1) if found["burst"] else 0
    element = None if shared else _IN_ELEMENT.search(before)
    return Limit(
        text=found[0],
        before=before,
        # The bucket of a limit by bytes has room for those of a unit of time and the burst (nft_limit_init()).
        burst=rate + burst if found["unit"] else burst or BURST,
        token=_seconds(found["per"]) / rate if rate else 0.0,
        bytes=bool(found["unit"]),
        over=bool(found["over"]),
        shared=shared,
        set=(element["set"] or element["meter"]) if element else "",
        key=element["key"] if element else "",
        timeout=(element["timeout"] or "") if element else "",
    )


def _of_iptables(written: str) -> Iterator[Limit]:
    """The limit of a rule as iptables-save writes it; nothing is known of one by bytes."""
    if found := _OF_IPTABLES.search(written):
        burst = _BURST_OF_IPTABLES.search(written)
        yield Limit(
            text=found[0],
            before="",
            burst=0 if found["unit"] else int(burst["burst"]) if burst else BURST,
            token=0.0 if found["unit"] else _seconds(found["per"]) / max(int(found["rate"]), 1),
            bytes=bool(found["unit"]),
            over=bool(found["over"]),
            shared=False,
        )


def _expiry(written: str, limit: Limit) -> str:
    """When xt_hashlimit forgets an element: after a unit of the rate, unless a rule says otherwise (libxt_hashlimit.c
    of iptables)."""
    found = _EXPIRES.search(written)
    return f"{found['ms']}ms" if found else f"{_seconds(limit.text.split('/')[1].split()[0])}s"


def _seconds(unit: str) -> int:
    return _SECONDS.get(unit, 1)


def recent(rule: Rule) -> Iterator[float]:
    """Seconds for which iptables' `-m recent` looks back in ``rule``."""
    yield from (float(found["seconds"]) for found in _RECENT.finditer(rule.written))


def may_come_behind(text: str, first: Step) -> bool:
    """Whether a packet whose headers ``first`` has may come to what stands behind ``text``, the beginning of a rule: no
    match in it certainly fails."""
    return not any(holds(match, first) is False for match in clauses(text))
