"""The matches of a rule, and which of them held or failed for a packet, as far as that can be proved.

nf_tables evaluates a rule's matches from left to right and stops at the first that fails; its trace reports only that
all held. That one failed follows where those before it held by the packet's headers, and it did not, or could be the
only one. All else stays open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from harness.model.observation import Rule, Step, Value, Verdict
from harness.netfilter import PROTOCOLS
from harness.packets.headers import fields, framed
from harness.reading.decision import FINAL
from harness.reading.elements import header_match, matches_elements, packet_value, plain

_ALONE: Final = frozenset(
    (
        *("iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup", "ibrname", "obrname"),
        *("limit", "quota", "numgen", "jhash", "symhash"),
    )
)
"""Words that are all that a match looks at, in nft's listing (nft(8), expressions)."""
_KINDS: Final = frozenset(
    (
        *("ct", "meta", "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "th", "icmp"),
        *("icmpv6", "igmp", "ether", "vlan", "arp", "socket", "rt", "fib", "osf", "ipsec", "exthdr"),
        *("frag", "dst", "hbh", "mh", "srh", "esp", "ah", "comp", "gre", "geneve", "vxlan", "xt"),
    )
)
"""Words of which the next one says what the match looks at."""
_RAW: Final = re.compile(r"@(?:ll|nh|th|ih),\d+,\d+$")
_LAST: Final = frozenset(
    (
        *("accept", "drop", "reject", "return", "continue", "queue", "jump", "goto"),
        *("dnat", "snat", "masquerade", "redirect", "tproxy", "dup", "fwd", "synproxy"),
    )
)
"""Words that statements begin with behind which a rule has no match."""
_OTHERS: Final = frozenset(("log", "counter", "notrack", "flow", "add", "update", "delete", "meter"))
"""Words that other statements begin with."""
_JOINING: Final = frozenset(("!=", "==", "<", ">", "<=", ">=", "&", "|", "^", "/", ".", "set", "original", "reply"))
"""Words behind which no match begins."""


_VERSIONS: Final = {"ip": 4, "ip6": 6}
_OF_XT: Final = re.compile(r"(?<!\S)xt target(?!\S)")
_MAY_FAIL: Final = re.compile(r"(?<!\S)(?:(?:add|update|delete) @|meter \S)")
"""Statements that are no matches but may end a rule: a set is full, or a limit is reached."""


class MatchesHeld(Value, frozen=True):
    """Which matches of a rule held for a packet that came to it."""

    held: tuple[str, ...]
    """Those that certainly did."""
    failed: str = ""
    """The one that certainly failed; "" where none did, or that is open."""
    open: tuple[str, ...] = ()
    """Those of which it is not known."""
    stopped: bool = False
    """Whether all held, and another statement than a match did not let the packet by."""


@lru_cache(4096)
def clauses(text: str) -> tuple[str, ...]:
    """The matches of a rule with this ``text``, as nft lists it, in order."""
    found: list[list[str]] = []
    is_match = False
    depth, before = 0, ""
    for word in _OF_XT.split(plain(text))[0].split():
        inside, depth = depth, depth + (word == "{") - (word == "}")
        last = found[-1] if found and is_match else []
        if not inside and word in _LAST:
            break
        if inside or word == "}":
            pass
        elif word in _OTHERS:
            is_match = False
        elif before != "set" and _begins(word, last):
            found.append([])
            is_match = True
        elif word == "set" and is_match:
            found.pop()  # a statement that writes
            is_match = False
        before = word
        if is_match:
            found[-1].append(word)
    return tuple(" ".join(words) for words in found)


def _begins(word: str, last: Sequence[str]) -> bool:
    """Whether a match begins with ``word``, behind the words ``last`` of the match before."""
    if word not in _ALONE and word not in _KINDS and not _RAW.match(word):
        return False
    if not last:
        return True
    least = 2 if last[0] in _ALONE or _RAW.match(last[0]) else 3
    return len(last) >= least and last[-1] not in _JOINING and not (last[0] == "fib" and last[-2:-1] == ["."])


def passes(
    steps: Sequence[tuple[Step, Step | None]], rules: Mapping[str, Sequence[Rule]]
) -> Iterator[tuple[Rule, MatchesHeld]]:
    """For each time that a packet with these ``steps`` came to a rule, which of its matches held.

    ``rules`` are those of each chain, by its path. With each step comes that which has the headers as the chain saw
    them; None where they are not to be believed.
    """
    places: dict[str, int] = {}
    for step, first in steps:
        if step.kind == "policy":  # the end of the chain came before it
            places.clear()
            continue
        own = rules.get(step.chain_path, ())
        number = _place(step.rule, own)
        if number is not None:
            for rule in own[places.get(step.chain_path, 0) : number]:
                yield rule, _failing(rule, first)
            if number < len(own):
                yield own[number], MatchesHeld(clauses(own[number].text))
            places[step.chain_path] = number + 1
        if step.verdict in FINAL:
            places.clear()
        elif step.rule is None or step.verdict is Verdict.RETURN:
            places.pop(step.chain_path, None)


def _place(rule: Rule | None, own: Sequence[Rule]) -> int | None:
    """Which of the rules of its chain a step names, their number for the end of the chain.

    None for one that is not among them, as it was added meanwhile.
    """
    if rule is None:
        return len(own)
    return next((place for place, one in enumerate(own) if one.handle == rule.handle), None)


def _failing(rule: Rule, first: Step | None) -> MatchesHeld:
    """What is known of the matches of a ``rule`` that did not match."""
    matches = clauses(rule.text)
    is_match = not _MAY_FAIL.search(rule.text)
    answers = [None if first is None else holds(one, first) for one in matches]
    for number, answer in enumerate(answers):
        before = matches[:number]
        if answer is False or (answer is None and is_match and all(answers[number + 1 :])):
            return MatchesHeld(before, matches[number])
        if answer is None:
            return MatchesHeld(before, open=matches[number:])
    return MatchesHeld(matches, stopped=True)


def holds(match: str, first: Step) -> bool | None:
    """Whether ``match`` holds for the packet whose headers ``first`` has; None where that is not known."""
    found = header_match(match)
    if found is None:
        return None
    key, is_not, values = found
    value = packet_value(key, first)
    if value is None:
        return False if _is_of_another_protocol(key, first) else None
    answers = matches_elements(key, value, values)
    if True in answers:
        return not is_not
    return is_not if all(answer is False for answer in answers) else None


def _is_of_another_protocol(key: str, first: Step) -> bool:
    """Whether the packet has no such header at all."""
    version = first.headers[0] >> 4 if first.headers else None
    if version not in _VERSIONS.values():
        return False
    kind = key.partition(" ")[0]
    if kind in _VERSIONS:
        return _VERSIONS[kind] != version
    return kind in PROTOCOLS.values() and fields(framed(first.headers)).get("protocol", kind) != kind


def chain_rules(rules: Sequence[Rule]) -> dict[str, list[Rule]]:
    """``rules`` by the path of their chain."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        found.setdefault(rule.chain_path, []).append(rule)
    return found
