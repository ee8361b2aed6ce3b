"""What scenarios name, against what is written in the rulesets of their hosts: rules, chains, sets and counters.

Without a kernel there is no listing, and a scenario may name a rule as nft lists it. So a rule's text is reported only
where no rule could be listed so: see :func:`may_be_listed_as`.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from harness.model.problem import Problem, did_you_mean
from harness.nft_syntax import is_object
from harness.reading.path import entries, parse_entry
from harness.reading.rules import canonical, host_of
from harness.ruleset.files import Read
from harness.ruleset.source import ChainKey, Source, SourceRule
from harness.scenario.case import Case
from harness.scenario.models.actions import NftAction, ReloadAction, WaitAction
from harness.scenario.models.expect import Exactly, Expect, PathEntry

_Operands = Mapping[str, list[tuple[str, str]]]

_PLACE: Final = re.compile(r"(?P<file>[^\s:]+):(?P<line>\d+)")
_STRING: Final = re.compile(r'"[^"]*"')
_VERDICTS: Final = frozenset({"accept", "drop", "reject", "return", "continue", "masquerade", "notrack"})
"""Statements that nft lists as they are written."""
_FIELDS: Final = frozenset({"saddr", "daddr", "sport", "dport", "iif", "oif", "iifname", "oifname"})
"""Keys of expressions that nft lists as they are written; it leaves out others, such as ``meta l4proto``."""
_INTERFACES: Final = frozenset({"iif", "oif", "iifname", "oifname"})
_OPERAND: Final = re.compile(
    rf"\b({'|'.join(sorted(_FIELDS, key=len, reverse=True))})\b ?([=!<>]+)?(\{{[^{{}}]*\}}|[^\s{{}}=!<>]+)"
)
_JUMP: Final = re.compile(r"\b(jump|goto) ([^\s;,{}$]+)")


def in_rulesets(case: Case, rulesets: Mapping[str, Read]) -> Iterator[tuple[int, Problem]]:
    """What ``case`` names and the ``rulesets`` of its hosts do not have; the step, and the problem in it.

    Nothing is reported behind a step that changes what is loaded.
    """
    for number, action in enumerate(case.actions):
        if isinstance(action, NftAction | ReloadAction):
            return
        if isinstance(action, WaitAction):
            for problem in _objects(action.wait.elements, ("set", "map"), case, rulesets):
                yield number, problem.below("wait", "elements")
        for keys, expect in action.entries:
            for problem in _in_expect(expect, case, rulesets):
                yield number, problem.below(*keys)


def _in_expect(expect: Expect, case: Case, rulesets: Mapping[str, Read]) -> Iterator[Problem]:
    yield from _rules(expect, case, rulesets)
    for problem in _objects(expect.counters, ("counter",), case, rulesets):
        yield problem.below("counters")
    for problem in _objects(expect.elements, ("set", "map"), case, rulesets):
        yield problem.below("elements")
    inner = ("exactly",) if isinstance(expect.path, Exactly) else ()
    for key, path in ((("path", *inner), entries(expect.path)), (("never",), expect.never or ())):
        for index, entry in enumerate(path):
            for problem in _in_entry(entry, case, rulesets):
                yield problem.below(*key, index, next(iter(entry)), "chain")


def _in_entry(entry: PathEntry, case: Case, rulesets: Mapping[str, Read]) -> Iterator[Problem]:
    detail = parse_entry(entry)[1]
    read = rulesets.get(detail.host or case.network.device)
    if detail.chain and read and read.written and not read.of_iptables:
        yield from _chain(detail.chain, read.written)


# --- rules --------------------------------------------------------------------------------------


def _rules(expect: Expect, case: Case, rulesets: Mapping[str, Read]) -> Iterator[Problem]:
    named: list[tuple[tuple[str | int, ...], str | int | None]] = [(("rule",), expect.rule)]
    named += [(("rules", index), one) for index, one in enumerate(expect.rules or ())]
    for keys, wanted in named:
        if not isinstance(wanted, str):
            continue  # a handle, which only the kernel knows
        host = host_of(wanted, rulesets, case.network.device)
        read = rulesets.get(host)
        if read and read.written and not read.written.unclear:  # else rules have no places
            text = wanted if host == case.network.device else wanted.removeprefix(f"{host}: ")
            for problem in _rule(" ".join(text.split()), read, read.written):
                yield problem.below(*keys)


def _rule(wanted: str, read: Read, written: Source) -> Iterator[Problem]:
    if wanted.split()[-1:] == ["policy"]:
        if len(wanted.split()) == 4 and not read.of_iptables:
            yield from _policy(wanted, written)
        return
    rules = [one for several in written.rules.values() for rule in several for one in _with_blocks(rule)]
    if not wanted or wanted.isdigit() or any(wanted == " ".join(rule.comment.split()) for rule in rules):
        return
    if place := _PLACE.fullmatch(wanted):
        yield from _place(place["file"], int(place["line"]), read, rules)
    elif not read.of_iptables and not any(may_be_listed_as(wanted, rule) for rule in rules):
        known = {canonical(one): rule for rule in rules for one in (rule.text, rule.comment) if one}
        near = difflib.get_close_matches(canonical(wanted), known, n=1, cutoff=0.4)
        yield Problem("no rule of the ruleset reads so", remedy=_nearest(known[near[0]] if near else None))


def _nearest(rule: SourceRule | None) -> str:
    return f"the nearest is {rule.position.file}:{rule.position.line}: {rule.text}" if rule else ""


def _with_blocks(rule: SourceRule) -> Iterator[SourceRule]:
    yield rule
    for inside in rule.block:
        yield from _with_blocks(inside)


def _policy(wanted: str, written: Source) -> Iterator[Problem]:
    known = [f"{' '.join(key)} policy" for key in written.policies]
    if wanted not in known:
        yield Problem(f"the ruleset has no base chain {wanted.removesuffix(' policy')}", remedy=_near(wanted, known))


def _place(name: str, line: int, read: Read, rules: Iterable[SourceRule]) -> Iterator[Problem]:
    name = f"/{name.removeprefix('./')}"
    files = [file for file in read.files if str(file).endswith(name)]
    if not files:
        yield Problem(
            f"no file of the ruleset is called {name[1:]}",
            remedy=did_you_mean(name[1:], [one.name for one in read.files]),
        )
        return
    there = [rule for rule in rules if f"/{rule.position.file}".endswith(name)]
    if not any(rule.position.line == line for rule in there):
        near = min(there, key=lambda rule: abs(rule.position.line - line), default=None)
        yield Problem("no rule of the ruleset begins on that line", remedy=_nearest(near))


def may_be_listed_as(wanted: str, rule: SourceRule) -> bool:
    """Whether nft could list ``rule`` as ``wanted``, or that is its text as it is written.

    Compared is what a listing has in common with what is written: statements that end the evaluation, the chains of
    jumps, which header fields and interfaces are looked at; single addresses and decimal ports. nft writes all else in
    its own way: symbols as numbers, prefixes without the host's part, sets sorted and merged.
    """
    text, listed = canonical(rule.text), canonical(wanted)
    if text == listed or rule.block:
        return True
    by_variable = re.search(r"\b(?:vmap|jump|goto) ?\$", text)
    own, other = _words(text), _words(listed)
    decides_otherwise = _VERDICTS & own != _VERDICTS & other or {*_JUMP.findall(text)} != {*_JUMP.findall(listed)}
    if decides_otherwise and not by_variable:
        return False
    if re.search(r"@(?:ll|nh|th|ih),", text):  # raw expressions are listed as fields where nft knows them
        return True
    if _FIELDS & own != _FIELDS & other:
        return False
    return not _operands_differ(_operands(text), _operands(listed))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.split(r"[\s{},:;=<>!|&]+", text))


def _operands(text: str) -> dict[str, list[tuple[str, str]]]:
    """What stands behind each field, in the order of the text: the operator, "" for equality, and the operand."""
    found: dict[str, list[tuple[str, str]]] = {}
    for field, operator, operand in _OPERAND.findall(text):
        found.setdefault(field, []).append((operator.replace("==", ""), operand))
    return found


def _operands_differ(own: _Operands, other: _Operands) -> bool:
    for field in own.keys() & other.keys():
        if len(own[field]) != len(other[field]):
            continue
        for one, two in zip(own[field], other[field], strict=True):
            first, second = _value(field, one[1]), _value(field, two[1])
            if first is not None and second is not None and (one[0], first) != (two[0], second):
                return True
    return False


def _value(field: str, operand: str) -> object:
    """The value of an operand that nft lists in one way only; None of any other."""
    if field in _INTERFACES:
        return operand if re.fullmatch(r"[A-Za-z][\w.-]*", operand) else None
    if field in ("sport", "dport"):
        inside = operand.strip("{}")
        ports = inside.split(",")
        return frozenset(ports) if all(re.fullmatch(r"[1-9]\d{0,4}", port) for port in ports) else None
    try:
        return ipaddress.ip_address(operand)
    except ValueError:
        return None


# --- chains, sets, counters ---------------------------------------------------------------------


def _chain(wanted: str, written: Source) -> Iterator[Problem]:
    chains: set[ChainKey] = {*written.rules, *written.unclear}
    known = [" ".join(key) for key in chains]
    if " ".join(wanted.split()) not in known and not wanted.split()[-1].startswith("__"):
        yield Problem(f"the ruleset has no chain '{wanted}'", remedy=_near(wanted, known))


def _objects(
    names: Iterable[str] | None, kinds: tuple[str, ...], case: Case, rulesets: Mapping[str, Read]
) -> Iterator[Problem]:
    for name in names or ():
        host, _, inner = name.rpartition(": ")
        read = rulesets.get(host or case.network.device)
        if read is None or read.written is None or read.of_iptables or not is_object(inner):
            continue
        known = [" ".join(one[1:]) for one in read.written.objects if one[0] in kinds]
        texts = [rule.text for several in read.written.rules.values() for rule in several]
        dynamic = any(re.search(r"\bmeter\b", text) for text in texts) or read.written.unclear
        if " ".join(inner.split()) not in known and not dynamic:
            noun = " or ".join(kinds)
            yield Problem(f"the ruleset has no {noun} '{inner}'", name, remedy=_near(inner, known), about_key=True)


def _near(wanted: str, known: Iterable[str]) -> str:
    return did_you_mean(" ".join(wanted.split()), sorted(known))
