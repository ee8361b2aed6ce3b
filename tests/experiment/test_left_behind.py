"""Errors get their place in the scenario; what packets leave behind on hosts is in test_run.py and test_kept.py."""

from __future__ import annotations

import pytest

from harness.errors import BrokenMeasurement, HarnessError, Position, ScenarioError, Unsupported
from harness.experiment.left_behind import placed

PLACE = Position("scenarios/edge.yaml", 7, 3)


def raised(error: Exception) -> Exception:
    with pytest.raises(Exception, match="refused") as caught, placed(PLACE):
        raise error
    return caught.value


def test_an_error_of_the_kernel_gets_the_place_of_the_step() -> None:
    error = raised(HarnessError("the kernel refused it", remedy="leave it out"))
    assert isinstance(error, ScenarioError)
    assert str(error) == "scenarios/edge.yaml:7:3: the kernel refused it; leave it out"


@pytest.mark.parametrize(
    "error",
    [ScenarioError("refused", Position("other.yaml", 1)), Unsupported("refused"), BrokenMeasurement("refused")],
)
def test_the_three_bad_ends_stay_what_they_are(error: HarnessError) -> None:
    assert raised(error) is error


def test_a_bug_stays_a_bug() -> None:
    assert type(raised(KeyError("refused"))) is KeyError
