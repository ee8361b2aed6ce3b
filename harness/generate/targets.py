"""The rules and policies of a ruleset, each of which is to get a scenario."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.packets import REPEATED_AT_MOST
from harness.generate.simulate import FINAL, NAT, ChainKey, Key, SimulatedChain, excess
from harness.model.observation import Rule
from harness.recording import naming
from harness.ruleset.listing import ANONYMOUS
from harness.topology.parts import LOOPBACK

LONGEST = 150
"""Characters of a scenario's name."""


def joined(titles: Sequence[str]) -> str:
    """One title for scenarios that are one."""
    text = "; ".join(titles)
    return text if len(text) <= LONGEST else f"{titles[0]}; and {len(titles) - 1} more"


class Target(NamedTuple):
    """A rule or a policy."""

    key: Key
    name: str
    """As scenarios name it."""
    title: str
    """Of its scenario; no other has it."""
    place: str
    """``edge.nft:18``; "" when it is not known."""


def targets(facts: Facts) -> Iterator[Target]:
    """Every rule, and behind those of a base chain its policy, in the order of nft's listing."""
    taken: set[str] = set()

    def title(words: str) -> str:
        words = words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
        found = next(one for n in itertools.count(1) if (one := f"{words} ({n})" if n > 1 else words) not in taken)
        taken.add(found)
        return found

    def of_rule(rule: Rule, short: str) -> Target:
        name = str(naming.name_of_rule(rule, facts.rules))
        place = f"{rule.position.file}:{rule.position.line}" if rule.position else ""
        words = rule.comment or rule.written or rule.text
        key = (rule.family, rule.table, rule.chain, rule.handle)
        return Target(key, name, title(" ".join(f"{short}: {words}".split())), place)

    chains = [chain.name for chain in facts.chains]
    held = _held(facts)
    for chain in facts.chains:
        here_is = chain.family, chain.table, chain.name
        here = " ".join(here_is)
        short = chain.name if chains.count(chain.name) == 1 else here
        yield from (of_rule(rule, short) for rule in held[here_is])
        if chain.is_base:
            place = f"{chain.position.file}:{chain.position.line}" if chain.position else ""
            yield Target((*here_is, 0), f"{here} policy", title(f"{short}: policy {chain.policy}"), place)


def _held(facts: Facts) -> dict[ChainKey, list[Rule]]:
    """The rules of each chain that has a name; those in a block stand behind the rule that holds it."""
    found: dict[ChainKey, list[Rule]] = defaultdict(list)
    holder = ("", "", "")
    for rule in facts.rules:
        if not ANONYMOUS.match(rule.chain):
            holder = rule.family, rule.table, rule.chain
        found[holder].append(rule)
    return found


def why_none(device: SimulatedDevice, key: Key) -> str:
    """Why no packet was made for a rule or policy."""
    ruleset = device.ruleset
    chain = ruleset.chains.get(key[:3])
    if chain is None:
        return "nft does not list the rules of its block"
    if not ruleset.is_reached(chain):
        return f"no rule leads into chain {chain.name}"
    rule = next((one for one in chain.rules if one.key == key), None)
    if rule and (empty := next(ruleset.empty(rule), "")):
        return f"set {empty} is empty when the ruleset has just been loaded"
    if rule and max((excess(word, what) for word, what in rule.statements), default=0) > REPEATED_AT_MOST:
        return "it matches only after more packets than a scenario would send"
    if chain.hook in ("output", "postrouting", "egress") and chain.family in ("arp", "bridge"):
        return f"a lab sends nothing through the {chain.hook} hook of family {chain.family}"
    if chain.hook and chain.devices and not {LOOPBACK, *device.facing} & set(chain.devices):
        return f"the lab has no {' or '.join(chain.devices)}"
    if _is_shadowed(chain, key):
        return "a rule before it decides about every packet"
    return "no packet was found: other rules decide before it, or it asks for what is not understood"


def _is_shadowed(chain: SimulatedChain, key: Key) -> bool:
    """Whether a rule of the chain before the one of ``key``, or before the policy, decides about every packet."""
    before = itertools.takewhile(lambda one: one.key != key, chain.rules)
    return any(one.statements and one.statements[0][0] in (*FINAL, *NAT) for one in before)
