"""Marks of scenarios with arguments."""

from __future__ import annotations

import re

import pytest

from harness.scenario.models import marks
from harness.scenario.models.marks import Mark


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("slow", Mark("slow")),
        ("timeout(60)", Mark("timeout", (60,))),
        ("timeout(-1.5, func_only=True)", Mark("timeout", (-1.5,), {"func_only": True})),
        ("flaky(reruns=2,reruns_delay=0.5)", Mark("flaky", (), {"reruns": 2, "reruns_delay": 0.5})),
        ("xdist_group(name=\"a, b\", x='c')", Mark("xdist_group", (), {"name": "a, b", "x": "c"})),
        ("skip(reason='not yet (soon)')", Mark("skip", (), {"reason": "not yet (soon)"})),
    ],
)
def test_what_may_be_written(text: str, mark: Mark) -> None:
    assert re.search(marks.PATTERN, text)
    assert marks.parse(text) == mark


@pytest.mark.parametrize(
    "text",
    [
        "skipif('__import__(\"os\").abort()')",
        'skipif("1")',
        'skipif(condition="1", reason="x")',
        'flaky(reruns=1, condition = "1")',
        "timeout()",
        "timeout(60",
        "timeout(open)",
        "timeout(60)(61)",
        "timeout([1])",
        "a.b(1)",
        "timeout(60); x",
        'skip(reason="a\\"b")',
    ],
)
def test_what_may_not(text: str) -> None:
    assert not re.search(marks.PATTERN, text)
