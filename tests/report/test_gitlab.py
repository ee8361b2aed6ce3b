"""The code quality report of GitLab."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from harness.errors import Position
from harness.model.result import Result
from harness.report import gitlab
from tests.report.builders import WHERE


def test_gitlab_gets_the_fields_that_it_reads(failed: Result, evil: Result, tmp_path: Path) -> None:
    issues = json.loads(gitlab.render([failed, failed, evil], tmp_path))
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert isinstance(issue["location"]["lines"]["begin"], int)
        assert not issue["location"]["path"].startswith(("/", "./"))
        assert issue["description"].isprintable()
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    assert issues[0]["check_name"] == "nft-harness/failed"
    assert issues[0]["location"] == {"path": "scenarios/edge.yaml", "lines": {"begin": 31}}


def test_a_failure_that_moved_is_no_new_issue(failed: Result, tmp_path: Path) -> None:
    moved = msgspec.structs.replace(failed, where=Position(WHERE.file, 99))
    before, after = (json.loads(gitlab.render([one], tmp_path))[0] for one in (failed, moved))
    assert before["fingerprint"] == after["fingerprint"]
    assert before["location"] != after["location"]
