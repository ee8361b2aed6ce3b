"""A rule that a scenario names and that did not decide: whether it exists, whether the packet came to it, and
what differs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.model.observation import ObservedPacket, Rule, Step, Verdict
from harness.model.result import Policy
from harness.reading import hooks
from harness.reading.reach import entrances
from harness.reading.rules import canonical, is_rule_on, names

LEAVES = (Verdict.GOTO, Verdict.RETURN)
"""After these the rest of a chain is not evaluated, although its policy may decide."""


def is_policy(wanted: str | int) -> bool:
    """Whether a policy is meant."""
    return isinstance(wanted, str) and wanted.split()[-1:] == ["policy"]


def named(wanted: str | int, rules: Sequence[Rule]) -> list[Rule]:
    """Return those of ``rules`` that ``wanted`` means."""
    return [] if is_policy(wanted) else [rule for rule in rules if names(wanted, rule)]


def is_met(wanted: str | int, packet: ObservedPacket, device: str) -> bool:
    """Whether the rule or policy matched the packet, whatever its verdict."""
    return any(is_rule_on(wanted, step, device) for step in packet.steps)


def place(rule: Rule) -> str:
    """Return where ``rule`` stands, in a word or two."""
    if rule.position:
        return f"{rule.position.file}:{rule.position.line}"
    return f"{rule.chain_path}, handle {rule.handle}"


def rule_status(
    rule: Rule, rules: Sequence[Rule], packet: ObservedPacket, device: str, policies: Sequence[Policy] = ()
) -> str:
    """Return what became of a ``rule`` that no packet met: ``did not match`` or ``was not reached``.

    ``policies`` are the base chains: with them it is also said that the packet did not pass the rule's hook.
    """
    if any(evaluations_of(rule, rules, packet, device)):
        return "did not match"
    if hook := hooks.missed(entrances(rule.chain_path, rules, policies), packet, device):
        return f"was not reached: the packet did not pass hook {hook}"
    return "was not reached"


def describe_unmet(
    wanted: str | int, rules: Sequence[Rule], packet: ObservedPacket, device: str, policies: Sequence[Policy] = ()
) -> str:
    """Return what is known about an expected rule that was not met; "" for a policy.

    ``rules`` and ``policies`` are those that were loaded; where they are not known the result is "".
    """
    if not rules or is_policy(wanted):
        return ""
    found = named(wanted, rules)
    return "; ".join(_unmet(wanted, rule, rules, packet, device, policies) for rule in found[:3]) or _missing(
        wanted, rules
    )


def _unmet(
    wanted: str | int,
    rule: Rule,
    rules: Sequence[Rule],
    packet: ObservedPacket,
    device: str,
    policies: Sequence[Policy],
) -> str:
    from harness.reading.elements import (
        changes_headers,
        difference,
    )  # expensive to import in a guest, and mostly not needed

    words = f"{place(rule)} {rule_status(rule, rules, packet, device, policies)}"
    if not changes_headers(rules):
        differences = {difference(rule, first) for first in evaluations_of(rule, rules, packet, device)}
        words += f": {differences.pop()}" if len(differences) == 1 and all(differences) else ""
    if isinstance(wanted, int) or canonical(wanted) != canonical(rule.text):
        words += f" (it reads: {rule.text})"
    return words


def _missing(wanted: str | int, rules: Sequence[Rule]) -> str:
    if isinstance(wanted, int):
        return f"no rule of the loaded ruleset has the handle {wanted}"
    if re.fullmatch(r"[^\s:]+:\d+", wanted.strip()):
        return "no rule of the loaded ruleset begins on that line"
    text = canonical(wanted)
    if not text:
        return ""
    known = {canonical(one): rule for rule in rules for one in (rule.written, rule.comment, rule.text) if one}
    for one, rule in known.items():
        if f" {text} " in f" {one} ":
            return f"a part of {place(rule)}: {rule.text}; give the whole text, its comment or file:line"
    import difflib  # as above

    for one in difflib.get_close_matches(text, known):
        return f"no rule of the loaded ruleset reads so; the nearest is {place(known[one])}: {known[one].text}"
    return "no rule of the loaded ruleset reads so"


def evaluations_of(rule: Rule, rules: Sequence[Rule], packet: ObservedPacket, device: str) -> Iterator[Step]:
    """Yield, each time that the packet came to ``rule``, the step that has its headers."""
    handles = [one.handle for one in rules if one.chain_path == rule.chain_path]
    first: Step | None = None
    left = False
    for step in packet.steps:
        if step.host != device:
            continue
        if step.headers or step.iif or step.oif or first is None:
            first = step
        if step.chain_path != rule.chain_path:
            continue
        if step.rule is None:
            if not (left and step.kind == "policy"):
                yield first
        elif step.rule.handle in handles and handles.index(step.rule.handle) > handles.index(rule.handle):
            yield first
        else:
            left = step.verdict in LEAVES
