"""The parser for YAML 1.2 to the letter; where the quick one suffices is in test_events.py."""

from __future__ import annotations

import pytest

from harness.bounds import YAML_DEPTH
from harness.scenario.yaml12 import NESTED, MarkedYAMLError, events


def test_events_come_in_order() -> None:
    kinds = [type(one).__name__ for one in events("a: [1, &x 2, *x]\n")]
    assert kinds[2:-2] == [
        *("MappingStartEvent", "ScalarEvent", "SequenceStartEvent", "ScalarEvent", "ScalarEvent", "AliasEvent"),
        *("SequenceEndEvent", "MappingEndEvent"),
    ]


def test_brackets_in_one_another_are_refused_at_their_place() -> None:
    with pytest.raises(MarkedYAMLError, match=NESTED) as refused:
        list(events("a:\n- " + "[" * 5000))
    assert refused.value.problem_mark.line == 1
    assert len(list(events("[" * (YAML_DEPTH - 1) + "]" * (YAML_DEPTH - 1)))) > YAML_DEPTH


def test_what_is_no_yaml_has_its_reason() -> None:
    with pytest.raises(MarkedYAMLError, match="expected"):
        list(events("a: ]\n"))
