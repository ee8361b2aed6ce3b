"""Which chains lead to which, read off the ruleset: rules that no packet can reach, base chains that a chain is entered
from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from harness.model.observation import Rule
from harness.model.result import Policy, RulesetPlan
from harness.reading.rules import bare

_TARGET = re.compile(r"\b(?:jump|goto) ([^\s;,{}]+)")
_MAP = re.compile(r"\bvmap @([\w./-]+)")
_ALWAYS = re.compile(r"(?:accept|drop|reject\b.*|return|queue\b.*|goto \S+)$")
_ASIDE = re.compile(
    r"\b(?:counter(?: name \S+)?(?: packets \d+ bytes \d+)?|log(?: prefix| level \w+| flags \w+| group \d+)*)\s*"
)
"""Statements that go before a verdict and change nothing about it."""


def unreachable(ruleset: RulesetPlan) -> set[tuple[str, int]]:
    """Return the rules of ``ruleset``, by chain and handle, that stand behind one that lets nothing pass, or in a
    chain that nothing leads to."""
    chains: dict[str, list[Rule]] = defaultdict(list)
    for rule in ruleset.rules:
        chains[rule.chain_path].append(rule)
    pending = [policy.chain_path for policy in ruleset.policies]
    pending += filter(_is_block, chains)
    reached: set[tuple[str, int]] = set()
    seen: set[str] = set()
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        for rule in chains.get(path, ()):
            reached.add((path, rule.handle))
            pending += _targets(rule, ruleset.sets, list(chains))
            if _ALWAYS.match(_ASIDE.sub("", bare(rule.text)).strip()):
                break
    return {(rule.chain_path, rule.handle) for rule in ruleset.rules} - reached


def entrances(chain: str, rules: Sequence[Rule], policies: Sequence[Policy]) -> tuple[Policy, ...]:
    """Return those of the base chains ``policies`` from which the chain with the path ``chain`` may be entered.

    Where that is not known, as for a block in braces or a named map, all base chains of the table are returned.
    """
    chains = list(dict.fromkeys(rule.chain_path for rule in rules))
    callers: dict[str, set[str]] = defaultdict(set)
    for rule in rules:
        for target in _targets(rule, {}, chains):
            callers[target].add(rule.chain_path)
    above, pending = {chain}, [chain]
    while pending:
        path = pending.pop()
        if _is_block(path):
            table = path.rpartition(" ")[0]
            return tuple(one for one in policies if f"{one.family} {one.table}" == table)
        pending += callers[path] - above
        above |= callers[path]
    return tuple(one for one in policies if one.chain_path in above)


def _is_block(path: str) -> bool:
    """Whether the chain is a block in braces. nft generates its name, which the listing of its rule lacks."""
    return path.rpartition(" ")[2].startswith("__chain")


def _targets(rule: Rule, sets: Mapping[str, Sequence[str]], chains: Sequence[str]) -> list[str]:
    """The chains that ``rule`` may lead to."""
    table = f"{rule.family} {rule.table} "
    text = bare(rule.text)
    for name in _MAP.findall(text):
        if (held := sets.get(f"{table}{name}")) is None:
            return [path for path in chains if path.startswith(table)]  # what it holds is not known
        text += "".join(f", {element}" for element in held)
    return [f"{table}{name}" for name in _TARGET.findall(text)]
