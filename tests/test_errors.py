from __future__ import annotations

import pickle

import pytest

from harness.errors import BrokenMeasurement, HarnessError, Position, ScenarioError, Unsupported, together


@pytest.mark.parametrize(
    "error",
    [
        ScenarioError("a wrong port", Position("edge.yaml", 3, 7), remedy="choose another"),
        Unsupported("no probes", remedy="boot another kernel"),
        BrokenMeasurement("3 events lost"),
    ],
)
def test_an_error_travels_to_another_process_and_says_the_same(error: HarnessError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_mistakes_found_together_travel_together() -> None:
    errors = [ScenarioError(sentence, Position("edge.yaml", line)) for line, sentence in enumerate("abc", 1)]
    found = together([together(errors[:2]), errors[2]])
    assert found.each == tuple(errors)
    assert [str(one) for one in pickle.loads(pickle.dumps(found)).each] == list(map(str, errors))
