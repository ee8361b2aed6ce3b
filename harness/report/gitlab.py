"""GitLab's code quality report: findings in the form of Code Climate that GitLab reads.

https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.model.result import Result
from harness.report.findings import Finding, findings, in_repository

_SEVERITIES = {"failed": "critical", "error": "blocker", "decided": "major", "never-met": "info"}


def render(results: Sequence[Result], folder: Path) -> bytes:
    """Return the report, JSON."""
    seen: Counter[str] = Counter()
    return msgspec.json.format(msgspec.json.encode([_issue(one, folder, seen) for one in findings(results)]))


def _issue(finding: Finding, folder: Path, seen: Counter[str]) -> dict[str, Any]:
    path = in_repository(finding.position.file, folder)
    # Not the line: what only moved is no new issue. Where that leaves two alike, they are numbered.
    what = f"{finding.kind}\0{path}\0{finding.title}" + (f"\0{finding.text}" if finding.kind == "never-met" else "")
    seen[what] += 1
    return {
        "description": f"{finding.title}: {'; '.join(finding.text.splitlines())}",
        "check_name": f"nft-harness/{finding.kind}",
        "fingerprint": hashlib.sha256(f"{what}\0{seen[what]}".encode(errors="replace")).hexdigest(),
        "severity": _SEVERITIES[finding.kind],
        "location": {"path": path, "lines": {"begin": finding.position.line or 1}},
    }
