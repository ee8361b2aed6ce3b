"""SARIF, for code scanning."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import msgspec

from harness.errors import Position
from harness.model.result import Result
from harness.report import sarif


def test_sarif_has_what_its_schema_asks_for(failed: Result, evil: Result, tmp_path: Path) -> None:
    log = json.loads(sarif.render([failed, evil], tmp_path))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert run["results"]
    for found in run["results"]:
        assert rules[found["ruleIndex"]] == found["ruleId"]
        assert found["level"] in {"none", "note", "warning", "error"}
        assert found["message"]["text"]
        assert all(isinstance(value, str) for value in found["partialFingerprints"].values())
        for place in (*found["locations"], *found["relatedLocations"]):
            assert place["physicalLocation"]["region"]["startLine"] >= 1
            assert re.fullmatch(r"[\w./%~-]+", place["physicalLocation"]["artifactLocation"]["uri"])
    assert {found["ruleId"] for found in run["results"]} == {"failed", "decided", "never-met"}


def test_a_file_with_an_odd_name_is_a_uri(failed: Result, tmp_path: Path) -> None:
    odd = msgspec.structs.replace(failed, where=Position("scenarios/für alle: 50%.yaml", 3))
    location = json.loads(sarif.render([odd], tmp_path))["runs"][0]["results"][0]["locations"][0]
    uri = location["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.isascii()
    assert unquote(uri) == "scenarios/für alle: 50%.yaml"
