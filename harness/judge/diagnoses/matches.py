"""What in a rule did not match, where its matches on headers held: a limit, a set, a socket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from harness.judge.evidence import Evidence
from harness.judge.unmet import evaluations_of, place
from harness.model.observation import Rule, Step
from harness.reading.decision import evaluations
from harness.reading.elements import OTHERS, changes_headers, key_of, without_what_holds
from harness.reading.rules import bare

_PART = (
    r"(?:[io]if(?:name|group|type)?|(?:ip6?|tcp|udp|udplite|sctp|dccp|th|ether|meta|ct|icmp|icmpv6|vlan|arp|rt|socket)"
    r" [a-z\d-]+(?: (?!vmap\b)[a-z\d-]+)?)"
)
_ACCEPT = re.compile(r"(?<!\S)accept\b")
_LIMIT = re.compile(r"(?<!\S)limit rate (?P<over>over )?\d+(?: \w+)?/\w+(?: burst \d+ \w+)?")
_QUOTA = re.compile(r"(?<!\S)quota (?P<over>over )?(?:until )?\d+ \w+(?: used \d+ \w+)?")
_COUNT = re.compile(r"(?<!\S)ct count (?P<over>over )?\d+")
_CHANGE = re.compile(
    r"(?<!\S)(?:add|update) @(?P<name>[\w./-]+) \{ (?P<key>[^{}]*?)(?P<inner> limit [^{}]*| ct count [^{}]*)? \}"
)
_TPROXY = re.compile(r"(?<!\S)tproxy (?:ip6? )?to (?P<to>\S+)")
_LOOKUP = re.compile(
    rf"(?<!\S){OTHERS}(?P<key>{_PART}(?: \. {_PART})*) (?P<not>!= )?(?:vmap )?@(?P<name>[A-Za-z][\w./-]*)(?!\S)"
)


def _limit(found: re.Match[str], *_: object) -> str:
    return "the rate did not exceed its limit" if found["over"] else "its limit was exceeded"


def _quota(found: re.Match[str], *_: object) -> str:
    return "its quota was not used up" if found["over"] else "its quota was used up"


def _count(found: re.Match[str], *_: object) -> str:
    return f"there were {'not that many' if found['over'] else 'more'} connections"


def _change(found: re.Match[str], first: Step, *_: object) -> str:
    if found["inner"]:
        return f"the condition that set {found['name']} keeps for the packet did not hold, or the set was full"
    key = key_of(re.sub(r" timeout \S+", "", found["key"]), first)
    return f"set {found['name']} took no new element{f' {key}' if key else ''}, as when it is full"


def _tproxy(found: re.Match[str], *_: object) -> str:
    return f"no transparent socket of the device listens at {found['to']}"


def _lookup(found: re.Match[str], first: Step, rule: Rule, sets: Mapping[str, Sequence[str]]) -> str:
    key, name = "" if found["others"] else key_of(found["key"], first), found["name"]
    what = f"element for {key}" if key else "element for the packet"
    if found["not"]:
        return f"{name} has an {what}"
    loaded = {one.partition(" : ")[0] for one in sets.get(f"{rule.family} {rule.table} {name}", ())}
    if key in loaded:
        return f"{name} no longer has the element {key} that was loaded: it expired, or a step deleted it"
    return f"{name} has no {what}"


Suspects = Sequence[tuple[re.Pattern[str], Callable[..., str]]]
USED_UP: Final[Suspects] = ((_CHANGE, _change), (_LIMIT, _limit), (_QUOTA, _quota), (_COUNT, _count))
"""What ends after some packets."""
SUSPECTS: Final[Suspects] = (
    *USED_UP,
    (_TPROXY, _tproxy),
    (_LOOKUP, _lookup),
)
"""What makes a rule not match whatever the packet's headers are, and why: nft_limit.c, nft_quota.c, nft_connlimit.c,
nft_dynset.c, nft_tproxy.c and nft_lookup.c in net/netfilter/."""


def rule_did_not_match(evidence: Evidence) -> Iterator[str]:
    """The expected rule was evaluated, and its matches on headers held: what is left of it did not."""
    rule = evidence.expected
    if rule is None or changes_headers(evidence.rules):
        return
    # The end of a chain and its policy are two steps of one evaluation.
    firsts = list(dict.fromkeys(evaluations_of(rule, evidence.rules, evidence.packet, evidence.device)))
    if len(firsts) != 1:
        return
    reasons, rest = _reasons(rule, firsts[0], evidence.sets)
    if not reasons:
        return
    if rest:
        reasons.append(f"`{rest}` did not hold")
    yield f"{place(rule)}, the expected rule, did not match because {', or '.join(reasons)}"


def accepting_rule_was_used_up(evidence: Evidence) -> Iterator[str]:
    """The policy refused a packet that a rule before it accepts up to a limit, a quota, or the size of a set."""
    last = evidence.last
    if not (evidence.is_refused and evidence.should_pass and last and last.kind == "policy") or evidence.unmet:
        return
    if changes_headers(evidence.rules):
        return
    # The packet may have come to the chain before, as after decryption: what counts is the evaluation that refused it.
    run = evaluations(step for step in evidence.packet.steps if step.host == evidence.device)[-1]
    refused = msgspec.structs.replace(evidence.packet, steps=tuple(run))
    for rule in evidence.rules:
        if rule.chain_path != last.chain_path or not _ACCEPT.search(bare(rule.text)):
            continue
        first = next(evaluations_of(rule, evidence.rules, refused, evidence.device), None)
        if first is None:
            continue
        found, rest = _reasons(rule, first, evidence.sets, USED_UP)
        if found and not rest:
            yield f"{place(rule)} accepts such packets, but did not match this one because {' or '.join(found)}"


def _reasons(
    rule: Rule, first: Step, sets: Mapping[str, Sequence[str]], suspects: Suspects = SUSPECTS
) -> tuple[list[str], str]:
    """Each part of ``rule`` that may not have matched, and what else is left of its text."""
    left = without_what_holds(rule, first)
    if left is None:
        return [], ""
    reasons = []
    for pattern, why in suspects:
        for found in pattern.finditer(left):
            reasons.append(f"{why(found, first, rule, sets)} (`{found[0]}`)")
        left = pattern.sub("", left)
    return reasons, " ".join(left.split())
