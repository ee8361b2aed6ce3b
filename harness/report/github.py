"""Annotations of GitHub Actions: findings as workflow commands.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.model.result import Result
from harness.report.findings import Finding, findings, in_repository
from harness.text import command

_COMMANDS = {"failed": "error", "error": "error", "decided": "warning"}
"""GitHub shows ten of each command in a step: the places of rules do not take those of scenarios. Rules
that nothing met are no news in every run; SARIF has them."""


def commands(results: Sequence[Result], folder: Path, *, failed: bool = True) -> Iterator[str]:
    """Yield a workflow command for each place to be pointed at.

    ``failed`` is False where another plugin annotates scenarios that failed.
    """
    for finding in findings(results):
        if finding.kind in _COMMANDS and (failed or finding.kind != "failed"):
            yield _command(_COMMANDS[finding.kind], finding, folder)


def _command(name: str, finding: Finding, folder: Path) -> str:
    place = finding.position
    properties = {
        "file": in_repository(place.file, folder),
        "line": str(place.line or 1),
        "col": str(place.column) if place.column else "",
        "title": finding.title,
    }
    return command(name, properties, finding.text)
