"""Rule coverage: what counts as met, and the reports of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from harness.errors import HarnessError, Position
from harness.model.result import Result

coverage = pytest.importorskip("harness.report.coverage", reason="coverage.py is not installed")

Make = Callable[..., Result]
HTTPS = "4500002800010000400600000a0002010a0002029c4001bb000000000000000050020000"
"""The headers of a packet to port 443."""


def test_the_table_is_followed_by_what_nobody_met(make_result: Make) -> None:
    covered = coverage.RuleCoverage([make_result(), make_result("no", accepted=False)], Path("/somewhere"))
    text = "\n".join(covered.lines())
    assert re.search(r"rulesets/edge\.nft +4 +2 +0 +0 +50% +4, 6\n", text)
    assert covered.percent == 50
    assert "rulesets/edge.nft:6  inet edge forward  evaluated, never matched  tcp dport 22 accept" in text


def test_matches_that_were_not_seen_to_hold_and_to_fail_are_listed(make_result: Make) -> None:
    text = "\n".join(coverage.RuleCoverage([make_result()], Path("/somewhere")).lines())
    assert "clauses: 0 of 3 matches seen to hold and to fail, 0 of 1 policy decided, " in text
    assert text.endswith(
        "matches not seen to hold and to fail:\n"
        "  rulesets/edge.nft:4  inet edge forward  never seen to hold  ct state established\n"
        "  rulesets/edge.nft:5  inet edge forward  never seen to fail  tcp dport 443"
    ), "of a rule that nothing came to, the matches are not listed again"


def test_a_line_with_several_rules_is_covered_when_all_are(make_result: Make) -> None:
    one = make_result()
    assert one.ruleset is not None
    rules = [
        msgspec.structs.replace(rule, position=Position("rulesets/edge.nft", 4, rule.handle))
        for rule in one.ruleset.rules
    ]
    ruleset = msgspec.structs.replace(one.ruleset, rules=tuple(rules), policies=())
    assert coverage.RuleCoverage([msgspec.structs.replace(one, ruleset=ruleset)], Path()).percent == 0


def test_nothing_to_cover_is_said(make_result: Make) -> None:
    covered = coverage.RuleCoverage([make_result(ruleset=None, sent=())], Path())
    assert list(covered.lines()) == ["no rule of any ruleset was found in its file: nothing to cover"]
    assert covered.percent == 100


def test_every_report_names_the_files_and_the_scenarios(tmp_path: Path, make_result: Make) -> None:
    covered = coverage.RuleCoverage([make_result("HTTPS </script>")], tmp_path)
    for kind, path in (("html", "html"), ("lcov", "lcov.info"), ("xml", "cobertura.xml")):
        covered.write(kind, tmp_path / path)
    assert "DA:5,1" in (tmp_path / "lcov.info").read_text()
    lines = ElementTree.parse(tmp_path / "cobertura.xml").iter("line")
    assert {line.get("number"): line.get("hits") for line in lines} == {"3": "0", "4": "0", "5": "1", "6": "0"}
    page = next((tmp_path / "html").glob("*_nft.html")).read_text()
    assert "HTTPS [/script] (decided)" in page
    assert "nobody tries" in page


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path, make_result: Make) -> None:
    covered = coverage.RuleCoverage([make_result()], tmp_path)
    (tmp_path / "file").touch()
    for kind in ("html", "lcov", "xml"):
        with pytest.raises(HarnessError, match="rule coverage can't be written to"):
            covered.write(kind, tmp_path / "file" / "below")


def test_a_file_that_changed_between_results_is_refused(make_result: Make) -> None:
    one = make_result()
    assert one.ruleset is not None
    other = msgspec.structs.replace(one.ruleset, texts={"rulesets/edge.nft": "other"})
    with pytest.raises(HarnessError, match=r"rulesets/edge\.nft changed between the results"):
        coverage.RuleCoverage([one, msgspec.structs.replace(one, ruleset=other)], Path())


def test_elements_of_sets_are_branches(tmp_path: Path, make_result: Make) -> None:
    one = make_result()
    assert one.ruleset is not None
    (established, https, ssh) = one.ruleset.rules
    several = msgspec.structs.replace(https, text="tcp dport { 80, 443, 8443 } accept")
    (sent,) = one.sent
    step = msgspec.structs.replace(sent.seen.steps[0], rule=several, headers=bytes.fromhex(HTTPS))
    packet = msgspec.structs.replace(sent.seen, steps=(step,))
    observation = msgspec.structs.replace(sent.observation, packets=(packet,))
    result = msgspec.structs.replace(
        one,
        ruleset=msgspec.structs.replace(one.ruleset, rules=(established, several, ssh)),
        sent=(msgspec.structs.replace(sent, observation=observation, decided=(step,)),),
    )
    covered = coverage.RuleCoverage([result], tmp_path)
    text = "\n".join(covered.lines())
    assert re.search(r"rulesets/edge\.nft +4 +3 +2 +1 +33% +3-4, 5 in part, 6\n", text)
    assert "1 of 3 rules met; Cover counts policies and elements of sets as well\n\nnot fully met:\n" in text
    assert "inet edge forward  elements never met        tcp dport 80, tcp dport 8443 of: tcp dport { 80, 443" in text
    for kind, path in (("html", "html"), ("lcov", "lcov.info"), ("xml", "cobertura.xml")):
        covered.write(kind, tmp_path / path)
    assert "BRDA:5,0,tcp dport 443,1" in (tmp_path / "lcov.info").read_text()
    assert "BRDA:5,0,tcp dport 80, tcp dport 8443,0" in (tmp_path / "lcov.info").read_text()
    assert 'condition-coverage="50% (1/2)"' in (tmp_path / "cobertura.xml").read_text()
    assert "no packet met tcp dport 80, tcp dport 8443" in next((tmp_path / "html").glob("*_nft.html")).read_text()


def test_what_is_not_known_of_elements_is_said_and_not_counted(make_result: Make) -> None:
    one = make_result()
    assert one.ruleset is not None
    (established, https, ssh) = one.ruleset.rules
    several = msgspec.structs.replace(https, text="tcp dport { 80, 443 } accept")
    result = msgspec.structs.replace(
        one, ruleset=msgspec.structs.replace(one.ruleset, rules=(established, several, ssh))
    )
    seen = msgspec.structs.replace(one.sent[0].decided[0], rule=several)
    packet = msgspec.structs.replace(one.sent[0].seen, steps=(seen,))
    observation = msgspec.structs.replace(one.sent[0].observation, packets=(packet,))
    sent = msgspec.structs.replace(one.sent[0], observation=observation, decided=(seen,))
    covered = coverage.RuleCoverage([msgspec.structs.replace(result, sent=(sent,))], Path())
    assert covered.percent == 25
    assert "elements not known        tcp dport 80, tcp dport 443 of: tcp dport { 80, 443 } accept" in "\n".join(
        covered.lines()
    )
