"""The page of causes that a failure names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import Position
from harness.judge.advice import PAGE, symptom
from harness.model.mismatch import Mismatch

TEXT = (Path(__file__).parents[2] / PAGE).read_text("utf-8")
HEADINGS = {
    re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-") for line in TEXT.splitlines() if line[:3] == "## "
}


def mismatch(*keys: str, expected: str = "x") -> Mismatch:
    return Mismatch(keys=("expect", *keys), position=Position("a.yaml", 1), expected=expected, seen="y")


@pytest.mark.parametrize(
    ("mismatches", "part"),
    [
        ([mismatch("verdict", expected="accept")], "my-packet-is-accepted-but-does-not-arrive"),
        ([mismatch("delivered", "to", expected="server")], "my-packet-is-accepted-but-does-not-arrive"),
        ([mismatch("verdict", expected="drop"), mismatch("rule")], "my-packet-should-have-been-dropped"),
        ([mismatch("flow", "result")], "no-answer-comes-back"),
        ([mismatch("reply")], "no-answer-comes-back"),
        ([mismatch("delivered", "sees", "src")], "my-packet-is-not-translated"),
        ([mismatch("rule")], "my-rule-is-not-reached"),
        ([mismatch("mark")], ""),
        ([mismatch("delivered", expected="nowhere")], ""),
    ],
)
def test_a_failure_names_the_part_about_its_symptom(mismatches: list[Mismatch], part: str) -> None:
    assert symptom(mismatches) == part
    assert not part or part in HEADINGS
