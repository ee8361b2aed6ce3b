"""The report for viewers of mutants."""

from __future__ import annotations

import json

import pytest

from harness.mutate import schema
from tests.mutate.builders import EVERY, SOURCE, mutant, result


def test_every_status_has_one_of_strykers() -> None:
    report = json.loads(schema.as_json([result(*EVERY)]))
    found = report["files"]["fw.nft"]["mutants"]
    assert [one["status"] for one in found] == [
        *("Killed", "Survived", "NoCoverage", "Ignored", "RuntimeError", "Pending"),
    ]
    assert found[0]["killedBy"] == ["fw.yaml::ssh"]
    assert found[1]["statusReason"] == "client > device tcp dport 23: drop → accept"
    assert "40 packets" in found[3]["statusReason"]
    assert len({one["id"] for one in found}) == len(found)


def test_it_has_what_the_schema_requires() -> None:
    report = json.loads(schema.as_json([result(*EVERY)]))
    assert {"schemaVersion", "thresholds", "files"} <= report.keys()
    assert report["files"]["fw.nft"]["source"] == SOURCE
    for one in report["files"]["fw.nft"]["mutants"]:
        assert {"id", "mutatorName", "location", "status"} <= one.keys()
        assert set(one.get("coveredBy", ())) <= {test["id"] for test in report["testFiles"]["fw.yaml"]["tests"]}
    assert [one["name"] for one in report["testFiles"]["fw.yaml"]["tests"]] == ["ssh", "web"]


def test_a_mutant_is_where_its_rule_stands() -> None:
    report = json.loads(schema.as_json([result(mutant("killed"))]))
    (one,) = report["files"]["fw.nft"]["mutants"]
    assert one["location"] == {"start": {"line": 3, "column": 3}, "end": {"line": 4, "column": 10}}
    assert one["replacement"] == "tcp dport 23 accept"


@pytest.mark.parametrize(
    ("line", "written", "end"),
    [(3, "something else", (3, 17)), (99, "tcp", (99, 4)), (6, "tcp dport 22 accept", (6, 2))],
)
def test_the_end_of_the_line_where_the_rule_is_not_found(line: int, written: str, end: tuple[int, int]) -> None:
    assert schema.end_of(SOURCE, line, 3, written) == end
