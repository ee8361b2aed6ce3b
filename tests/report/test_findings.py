"""What CI is pointed at."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from harness.errors import Position
from harness.model.result import Result
from harness.report.findings import findings, in_repository
from tests.report.builders import WHERE, Make


def test_a_failure_points_at_the_expectation_and_at_what_decided(failed: Result) -> None:
    found = findings([failed])
    assert [(one.kind, one.position) for one in found[:2]] == [
        ("failed", WHERE),
        ("decided", Position("rulesets/edge.nft", 3, 45)),
    ]
    assert found[0].title == "SSH is refused"
    assert found[0].text.splitlines()[0] == "expect.verdict: expected x, seen y"
    assert found[1].title == "decided here: policy drop"
    assert found[1].text == "“SSH is refused” (scenarios/edge.yaml:31): expect.verdict: expected x, seen y"


def test_a_rule_is_pointed_at_once_with_all_that_it_decided(make_result: Make) -> None:
    found = findings([make_result(name, outcome="failed", line=n) for n, name in enumerate(("one", "two"), 5)])
    (decided,) = [one for one in found if one.kind == "decided"]
    assert decided.position.line == 5
    assert [line[:5] for line in decided.text.splitlines()] == ["“one”", "“two”"]


def test_kernels_that_agree_make_one_finding(failed: Result) -> None:
    other = msgspec.structs.replace(failed.sent[0], ended="dropped in another function")
    both = [failed, msgspec.structs.replace(failed, kernel="7.2", sent=(other,))]
    (one,) = [one for one in findings(both) if one.kind == "failed"]
    assert one.text.endswith("on Linux 6.12.1, 7.2")


def test_rules_that_nobody_met_are_told_but_not_policies(make_result: Make) -> None:
    found = {one.position.line: one.text for one in findings([make_result()])}
    assert found == {
        4: "inet edge forward: no scenario met this rule (evaluated, never matched): ct state established accept",
        6: "inet edge forward: no scenario met this rule (never evaluated): tcp dport 22 accept",
    }


def test_an_error_points_at_the_mistake(make_result: Make) -> None:
    broken = make_result(outcome="error", sent=(), ruleset=None, where=WHERE, message="edge.yaml:31: wrong")
    assert [(one.kind, one.position, one.text) for one in findings([broken])] == [
        ("error", WHERE, "edge.yaml:31: wrong")
    ]
    other = msgspec.structs.replace(broken, name="another")
    assert [one.title for one in findings([broken, other])] == ["HTTPS is let in, and 1 more"]


def test_files_are_named_from_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "firewall").mkdir()
    assert in_repository("edge.nft", tmp_path / "firewall") == "edge.nft"
    (tmp_path / ".git").touch()
    assert in_repository("edge.nft", tmp_path / "firewall") == "firewall/edge.nft"
    assert in_repository("../a.nft", tmp_path / "firewall") == "a.nft"
    assert in_repository("/etc/nftables.conf", tmp_path) == "/etc/nftables.conf"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "firewall"))
    assert in_repository("edge.nft", tmp_path / "firewall") == "edge.nft"
