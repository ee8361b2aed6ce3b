"""What CI is pointed at, and the forms in which it is reported: GitHub, GitLab, SARIF, Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from harness.errors import Position
from harness.model.result import Result
from harness.report import github, gitlab, sarif, summary
from harness.report.findings import findings, in_repository

Make = Callable[..., Result]
EVIL = '</details><img src=x> "q" | `x` [a](b) @you #1 ::error::\n::warning::\x1b[31m,50%:'
WHERE = Position("scenarios/edge.yaml", 31, 7)


@pytest.fixture
def failed(make_result: Make) -> Result:
    return make_result("SSH is refused", outcome="failed", accepted=False, line=9, where=WHERE, message="SSH\n  …")


@pytest.fixture
def evil(make_result: Make) -> Result:
    one = make_result(EVIL, outcome="failed", accepted=False, where=WHERE, message=EVIL + "\n```\nend")
    sent = msgspec.structs.replace(one.sent[0], summary=EVIL, ended=EVIL)
    return msgspec.structs.replace(one, sent=(sent,), kernel=EVIL)


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


# --- GitHub -------------------------------------------------------------------------------------


def test_github_is_told_by_workflow_commands(failed: Result, tmp_path: Path) -> None:
    assert list(github.commands([failed], tmp_path)) == [
        (
            "::error file=scenarios/edge.yaml,line=31,col=7,title=SSH is refused::"
            "expect.verdict: expected x, seen y%0A"
            "packet: client 203.0.113.5:40000 → server 10.0.2.2:23 tcp S (IPv4, 40 bytes)%0A"
            "decided: inet edge forward, policy drop: policy drop%0A"
            "ended: dropped on device by inet edge forward, policy drop"
        ),
        (
            "::warning file=rulesets/edge.nft,line=3,col=45,title=decided here%3A policy drop::"
            "“SSH is refused” (scenarios/edge.yaml:31): expect.verdict: expected x, seen y"
        ),
    ]
    assert [one[:9] for one in github.commands([failed], tmp_path, failed=False)] == ["::warning"]


def test_no_name_is_a_workflow_command(evil: Result, tmp_path: Path) -> None:
    for command in github.commands([evil], tmp_path):
        assert command.splitlines() == [command]
        assert "\x1b" not in command
        properties, _, _ = command.removeprefix("::").partition("::")
        assert set(re.findall(r"(?:^\w+ |,)(\w+)=", properties)) == {"file", "line", "col", "title"}


# --- GitLab -------------------------------------------------------------------------------------


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


# --- SARIF --------------------------------------------------------------------------------------


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


# --- Markdown -----------------------------------------------------------------------------------


def rendered(text: str) -> tuple[str, list[Any]]:
    """HTML of a summary as a CommonMark reader makes it, and its fenced pieces."""
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed").MarkdownIt("commonmark")
    fences = [token for token in markdown.parse(text) if token.type == "fence"]
    return markdown.render(text), fences


def test_the_summary_shows_a_failure_and_its_way(failed: Result, make_result: Make) -> None:
    page, fences = rendered(summary.render([failed, make_result()]))
    assert "1 failed, 1 passed" in page
    assert "on Linux 6.12.1; 1 of 3 rules met (33%)" in page
    assert [fence.info for fence in fences] == ["mermaid", "text"]
    assert fences[1].content == "SSH\n  …\n"
    for words in ("flowchart LR", '"client"', "inet edge forward<br>policy drop<br>rulesets/edge.nft:3", ":::decided"):
        assert words in fences[0].content


def test_no_name_is_markup_in_the_summary(evil: Result, make_result: Make) -> None:
    skipped = make_result(outcome="skipped", message=EVIL)
    page, fences = rendered(summary.render([evil, skipped]))
    assert "<img" not in page
    assert "<a " not in page
    assert page.count("</details>") == 1
    assert fences[1].content.endswith("end\n")
    assert "\x1b" not in page
    diagram = fences[0].content
    assert set(re.findall(r"[\"`<>\[\]#;]", re.sub(r'"(?:[^"#<]|#\d+;|<br>)*"', "", diagram))) <= set("[]>;")


def test_the_summary_keeps_below_what_github_takes(make_result: Make) -> None:
    many = [make_result(str(n), outcome="failed", accepted=False, line=n, message="x" * 5000) for n in range(500)]
    text = summary.render(many)
    assert len(text.encode()) < 1 << 20
    assert text.count("```mermaid") == summary.DIAGRAMS
    assert re.search(r"… and \d+ more", text)


def test_a_mistake_that_stops_several_scenarios_is_told_once(make_result: Make) -> None:
    broken = [make_result(name, outcome="error", message="edge.nft:3: wrong", where=WHERE) for name in ("one", "two")]
    text = summary.render([*broken, make_result("three", outcome="error", message="another", where=WHERE)])
    assert re.findall(r"<b>(.*)</b>(.*) \(error\)", text) == [("one", ", and 1 more"), ("three", "")]


def test_a_session_without_scenarios_has_a_summary() -> None:
    assert summary.render([]) == "## ✅ no scenario ran\n\n"
