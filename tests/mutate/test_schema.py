"""The report for viewers of mutants."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.errors import Position
from harness.mutate import output, schema
from harness.mutate.results import MutantResult, RulesetResult, Witness, score

SOURCE = "table inet fw {\n\tchain input {\n\t\ttcp dport 22 \\\n\t\t\taccept # ssh\n\t}\n}\n"
WITNESS = Witness(
    sends=({"from": "client", "to": "device", "tcp": {"dport": 23}},),
    summary="client → device",
    difference="drop → accept",
)


def mutant(fate: Any, **more: Any) -> MutantResult:
    given: dict[str, Any] = {
        "operator": "port off by one",
        "what": "tcp dport 22 → 23",
        "chain": "inet fw input",
        "position": Position("fw.nft", 3, 3),
        "written": "tcp dport 22 accept",
        "texts": (("tcp dport 22 accept", "tcp dport 23 accept"),),
        "fate": fate,
    }
    return MutantResult(**given | more)


def result(*mutants: MutantResult) -> RulesetResult:
    return RulesetResult(
        name="fw.nft",
        kernel="6.12.1",
        nft="1.1.3",
        watched="kprobe",
        texts={"fw.nft": SOURCE},
        scenarios=("fw.yaml::ssh", "fw.yaml::web"),
        mutants=mutants,
    )


EVERY = (
    mutant("killed", killed_by="fw.yaml::ssh", why="verdict: expected accept, seen drop", covered_by=("fw.yaml::ssh",)),
    mutant("survived", witness=WITNESS, covered_by=("fw.yaml::ssh",)),
    mutant("survived", witness=WITNESS),
    mutant("equivalent", packets=40),
    mutant("unjudged"),
    mutant("not run"),
)


def test_every_fate_has_a_status() -> None:
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


def test_the_score_is_of_mutants_that_some_packet_tells_apart() -> None:
    assert score([result(*EVERY)]) == pytest.approx(100 / 3)
    assert score([result(mutant("equivalent"), mutant("unjudged"))]) is None
    assert score([]) is None


def test_the_terminal_shows_each_survivor_with_its_packet_and_those_that_are_probably_equivalent() -> None:
    text = output.text([result(*EVERY)])
    assert "fw.nft:3: port off by one: tcp dport 22 → 23\n  - tcp dport 22 accept\n  + tcp dport 23 accept" in text
    assert "ask     client > device tcp dport 23" in text
    assert "probably equivalent: no packet that was tried" in text
    assert "(40 packets tried)" in text
    assert "mutation score 33 %: 1 of 3 mutants" in text


def test_pages_and_annotations_escape_what_strangers_wrote() -> None:
    odd = mutant("survived", witness=WITNESS, texts=(("<script>", "::error::"),), what="a\nb %")
    page = output.as_html([result(odd)])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    (line,) = output.warnings([result(odd)])
    assert line.startswith("::warning file=fw.nft,line=3,")
    assert "\n" not in line


def test_a_survivor_that_no_packet_was_found_for_is_said_once() -> None:
    missing = result(mutant("survived"), mutant("survived", witness=WITNESS))
    text = output.text([missing])
    assert text.count("packet  not found yet: the search was interrupted") == 1
    assert text.count("no packet was found yet for 1 of those that survived: they count in the score") == 1
    assert output.as_html([missing]).count("not found yet: the search was interrupted") == 1
    assert "not found yet" not in output.text([result(mutant("survived", witness=WITNESS), mutant("equivalent"))])
