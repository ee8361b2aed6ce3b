"""The summary of a session, in Markdown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.model.result import Result
from harness.report import summary
from tests.report.builders import EVIL, WHERE, Make


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
