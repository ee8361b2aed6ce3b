"""The report for viewers of mutants, in the form of mutation-testing-elements.

https://github.com/stryker-mutator/mutation-testing-elements, ``packages/report-schema``: version 2. Mutants that are
probably equivalent are *Ignored*, so that a viewer's score is the one of :mod:`harness.mutate.results`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from harness import __version__
from harness.errors import Position
from harness.mutate.output import diff, question
from harness.mutate.results import MutantResult, RulesetResult
from harness.text import counted

STRYKER: Final = {
    "killed": "Killed",
    "survived": "Survived",
    "equivalent": "Ignored",
    "unjudged": "RuntimeError",
    "not run": "Pending",
}
HIGH, LOW = 90, 70
"""Percentages from which on a viewer shows a score as good, and as fair."""


def as_json(results: Sequence[RulesetResult]) -> str:
    """For Stryker's viewers and other programs."""
    report = {
        "$schema": "https://git.io/mutation-testing-schema",
        "schemaVersion": "2",
        "thresholds": {"high": HIGH, "low": LOW},
        "framework": {"name": "nft-harness", "version": __version__},
        "files": {name: _file(name, source, mutants) for name, (source, mutants) in _files(results).items()},
        "testFiles": _tests(results),
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def _files(results: Sequence[RulesetResult]) -> dict[str, tuple[str, list[tuple[str, MutantResult]]]]:
    """The source and the mutants of each file, these with the name of their ruleset."""
    found: dict[str, tuple[str, list[tuple[str, MutantResult]]]] = {}
    for result in results:
        for name, source in result.texts.items():
            found.setdefault(name, (source, []))
        for one in result.mutants:
            name = one.position.file if one.position else next(iter(result.texts), result.name)
            found.setdefault(name, ("", []))[1].append((result.name, one))
    return found


def _file(name: str, source: str, mutants: Sequence[tuple[str, MutantResult]]) -> dict[str, Any]:
    seen: dict[str, int] = {}
    listed = []
    for ruleset, one in mutants:
        key = f"{name} {ruleset} {one.chain} {one.position} {one.operator} {one.what}"
        seen[key] = seen.get(key, 0) + 1
        mutant = hashlib.sha256(f"{key} {seen[key]}".encode()).hexdigest()[:16]
        listed.append(_mutant(mutant, source, one))
    return {"language": "nftables", "source": source, "mutants": listed}


def _mutant(name: str, source: str, one: MutantResult) -> dict[str, Any]:
    status = STRYKER[one.status]
    if one.status == "survived" and not one.covered_by:
        status = "NoCoverage"
    found: dict[str, Any] = {
        "id": name,
        "mutatorName": one.operator,
        "description": one.name,
        "replacement": "\n".join(line for sign, line in diff(one) if sign == "+"),
        "location": _location(source, one),
        "status": status,
        "coveredBy": one.covered_by,
    }
    if one.killed_by:
        found["killedBy"] = [one.killed_by]
    if reason := _reason(one):
        found["statusReason"] = reason
    return found


def _reason(one: MutantResult) -> str:
    if one.status == "killed":
        return one.why
    if one.witness is not None:
        return f"{question(one.witness.sends)}: {one.witness.difference}"
    if one.status == "equivalent":
        return (
            f"probably equivalent: {counted(one.packets, 'packet')} tried, and none distinguishes it from the original"
        )
    return "no scenario could be run under it" if one.status == "unjudged" else ""


def _location(source: str, one: MutantResult) -> dict[str, Any]:
    start = one.position or Position("", 1, 1)
    line, column = max(start.line, 1), max(start.column, 1)
    end = end_of(source, line, column, one.written)
    return {"start": {"line": line, "column": column}, "end": {"line": end[0], "column": end[1]}}


def end_of(source: str, line: int, column: int, written: str) -> tuple[int, int]:
    """Line and column behind the text ``written``, which stands in ``source`` from a place on, however it is spaced.

    The end of the line where it does not stand there.
    """
    lines = source.splitlines()
    if not 0 < line <= len(lines):
        return line, column + 1
    wanted = [character for character in written if not character.isspace()]
    for number in range(line, min(line + 50, len(lines)) + 1):
        for place, character in enumerate(lines[number - 1], 1):
            if (number == line and place < column) or character.isspace() or character == "\\":
                continue
            if not wanted or character != wanted[0]:
                return line, len(lines[line - 1]) + 1
            wanted.pop(0)
            if not wanted:
                return number, place + 1
    return line, len(lines[line - 1]) + 1


def _tests(results: Sequence[RulesetResult]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys(_scenarios(results)):
        file, _, scenario = name.partition("::")
        found.setdefault(file, {"tests": []})["tests"].append({"id": name, "name": scenario})
    return found


def _scenarios(results: Sequence[RulesetResult]) -> Iterator[str]:
    for one in results:
        yield from one.scenarios
