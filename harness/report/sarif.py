"""Findings as SARIF 2.1.0, which code scanning of GitHub and others reads.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; the sections are named below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from harness import __version__
from harness.errors import Position
from harness.model.result import Result
from harness.report.findings import Finding, findings, in_repository

_RULES = {
    "failed": ("error", "The ruleset did not do what a scenario expects."),
    "error": ("error", "A scenario is mistaken, or something could not be measured."),
    "decided": ("warning", "A rule or policy decided otherwise than a scenario expects."),
    "never-met": ("note", "No scenario met a rule."),
    "doubtful": ("warning", "A scenario may be mistaken: only a kernel knows."),
}
"""By kind of finding: level (3.27.10) and what it stands for."""


def render(results: Sequence[Result], folder: Path) -> bytes:
    """Return the report, JSON."""
    return of_findings(findings(results), folder)


def of_findings(found: Iterable[Finding], folder: Path) -> bytes:
    """Return the report of what was ``found``, JSON; the folder is that which files are relative to."""
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver()},
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, folder) for one in found],
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log))


def _driver() -> dict[str, Any]:
    return {
        "name": "nft-harness",
        "version": __version__,
        "rules": [
            {"id": kind, "shortDescription": {"text": words}, "defaultConfiguration": {"level": level}}
            for kind, (level, words) in _RULES.items()
        ],
    }


def _result(finding: Finding, folder: Path) -> dict[str, Any]:
    path = in_repository(finding.position.file, folder)
    what = "\0".join((finding.kind, path, finding.title, finding.text if finding.kind == "never-met" else ""))
    return {
        "ruleId": finding.kind,
        "ruleIndex": list(_RULES).index(finding.kind),
        "level": _RULES[finding.kind][0],
        "message": {"text": f"{finding.title}\n{finding.text}"},
        "locations": [_location(finding.position, folder)],
        "relatedLocations": [
            {**_location(place, folder), "message": {"text": "decided here"}} for place in finding.related
        ],
        "partialFingerprints": {"nftHarness/v1": hashlib.sha256(what.encode(errors="replace")).hexdigest()},
    }


def _location(place: Position, folder: Path) -> dict[str, Any]:
    path = in_repository(place.file, folder)
    region = {"startLine": place.line or 1} | ({"startColumn": place.column} if place.column else {})
    # A name with a colon in front of the first slash would be read as a URI with a scheme (RFC 3986, 4.2).
    uri = quote(path) if not path.startswith("/") else f"file://{quote(path)}"
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}
