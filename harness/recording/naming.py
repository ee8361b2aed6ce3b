"""Names of rules and policies in scenarios: those that outlive most edits of the ruleset."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.observation import Rule, Step, Verdict
from harness.reading.rules import is_rule


def name_of(step: Step, rules: Sequence[Rule]) -> str | int:
    """A name that means this rule or policy alone, the one that outlives most edits of the ruleset."""
    if step.rule is None:
        return f"{step.chain_path} policy"
    return name_of_rule(step.rule, rules)


def name_of_rule(rule: Rule, rules: Sequence[Rule]) -> str | int:
    """The comment of ``rule`` if it is its alone, else its text, its place, or its handle."""
    others = [
        Step(time=0, host="", hook="", family="", table="", chain="", kind="rule", verdict=Verdict.ACCEPT, rule=other)
        for other in rules
        if other != rule
    ]
    place = f"{rule.position.file.rpartition('/')[2]}:{rule.position.line}" if rule.position else ""
    for name in (rule.comment, rule.written, rule.text, place):
        plain = name and name.isprintable() and name not in ("policy", "none")
        if plain and not any(is_rule(name, other) for other in others):
            return name
    return rule.handle
