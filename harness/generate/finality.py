"""Rules that decide about every packet that comes to them, by themselves or by chains that they lead to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from harness.generate.expressions import unpacked
from harness.generate.simulate import (
    DEPTH,
    FINAL,
    NAT,
    SimulatedChain,
    SimulatedRule,
    SimulatedRuleset,
    answered,
    jumps,
)


def decides(ruleset: SimulatedRuleset, rule: SimulatedRule, depth: int = DEPTH) -> bool:
    """Whether ``rule`` decides about every packet that comes to it; of a rule with matches that is never known."""
    if not depth or not passes(rule, (*FINAL, *NAT, "jump", "goto")):
        return False
    word, what = rule.statements[-1]
    if word == "reject":
        return not answered(what)
    targets = [ruleset.chains.get((*rule.key[:2], name)) for name in jumps({word: what})]
    if not targets:
        return word in FINAL or word in NAT
    return any(_always_ends(ruleset, chain, depth - 1) for chain in targets if chain is not None)


def _always_ends(ruleset: SimulatedRuleset, chain: SimulatedChain, depth: int) -> bool:
    """Whether no packet leaves ``chain`` without a verdict."""
    for rule in chain.rules:
        if decides(ruleset, rule, depth):
            return True
        if any(word in ("return", "goto", "vmap") for word, _ in rule.statements):
            return False  # it may return to the caller
    return False


def passes(rule: SimulatedRule, words: Collection[str]) -> bool:
    """Whether ``rule`` asks for nothing, and ends in a statement of ``words``."""
    if not rule.statements or rule.statements[-1][0] not in words:
        return False
    return all(word in ("counter", "log", "notrack") or _sets_mark(word, what) for word, what in rule.statements[:-1])


def _sets_mark(word: str, what: Any) -> bool:
    """Whether a statement changes what every packet has: where there is no header to change, the rule ends."""
    return word == "mangle" and unpacked(what.get("key"))[0] in ("meta", "ct")
