"""What ``nft-harness check`` prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.check.command import Found
from harness.errors import ScenarioError
from harness.text import colour, counted, escape, in_colour, lines, say


def text(found: Found) -> None:
    """Print a line for each mistake, then what was read; what was not checked goes to standard error."""
    coloured = in_colour()
    for error in found.errors:
        _line(error, "", "red" if coloured else "")
    for warning in found.warnings:
        _line(warning, "warning: ", "yellow" if coloured else "")
    for note in found.notes:
        say(f"nft-harness: {escape(note)}", sys.stderr)
    if found.errors:
        return
    numbers = ((found.files, "file"), (found.scenarios, "scenario"))
    right = " OK" if not found.warnings else f": {counted(len(found.warnings), 'warning')}"
    print(", ".join(counted(number, noun) for number, noun in numbers) + right)
    for path in found.left_alone:
        say(f"{escape(str(path))}: skipped: not a scenario file")


def _line(error: ScenarioError, before: str, name: str) -> None:
    place = escape(str(error.position))
    rest = str(error).removeprefix(f"{place}: ")
    said = lines(f"{place}: {before}{rest}")
    print(f"{place}: {colour(name, said.removeprefix(f'{place}: '))}" if name else said, flush=True)


def json(found: Found) -> None:
    """Print one object, with the members that docs/reports.md lists."""
    print(msgspec.json.format(msgspec.json.encode(_members(found))).decode())


def _members(found: Found) -> dict[str, Any]:
    return {
        "files": found.files,
        "scenarios": found.scenarios,
        "skipped": [str(path) for path in found.left_alone],
        "not_checked": list(found.notes),
        "findings": [
            {
                "level": level,
                "file": error.position.file,
                "line": error.position.line,
                "column": error.position.column,
                "message": error.sentence,
                "remedy": error.remedy,
            }
            for level, error in _levels(found)
        ],
    }


def sarif(found: Found) -> None:
    """Print a SARIF log; its columns count Unicode characters."""
    from harness.report import findings
    from harness.report import sarif as log

    kinds: dict[str, findings.Kind] = {"error": "error", "warning": "doubtful"}
    made = [
        findings.Finding(kind=kinds[level], position=error.position, title=escape(error.sentence), text=error.remedy)
        for level, error in _levels(found)
    ]
    print(log.of_findings(made, Path()).decode())


def github(found: Found) -> None:
    """Print an annotation for each mistake, then what :func:`text` prints."""
    from harness.report.findings import in_repository
    from harness.text import command

    for level, error in _levels(found):
        place = error.position
        properties = {
            "file": in_repository(place.file, Path()),
            "line": str(place.line or 1),
            "col": str(place.column) if place.column else "",
            "title": "nft-harness check",
        }
        print(command(level, properties, str(error).partition(": ")[2]))
    text(found)


def _levels(found: Found) -> Iterator[tuple[str, ScenarioError]]:
    yield from (("error", error) for error in found.errors)
    yield from (("warning", warning) for warning in found.warnings)


FORMATS: Final[Mapping[str, Callable[[Found], None]]] = {"text": text, "json": json, "sarif": sarif, "github": github}
"""By the name that ``--format`` takes."""
