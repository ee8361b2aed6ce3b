"""Waiting for facts."""

from __future__ import annotations

import time

import pytest

from harness.errors import BrokenMeasurement
from harness.wait import wait_for_turn, wait_until


def test_a_fact_ends_the_wait() -> None:
    answers = iter([0, 0, 1])
    wait_until(lambda: next(answers), 5, "the third answer")


def test_a_fact_that_holds_already_takes_no_time() -> None:
    wait_until(lambda: True, 0, "nothing")


def test_a_deadline_is_told_with_what_was_waited_for() -> None:
    start = time.monotonic()
    with pytest.raises(BrokenMeasurement, match=r"timed out after 0\.05 s waiting for the moon"):
        wait_until(lambda: False, 0.05, "the moon")
    assert time.monotonic() - start < 2


def test_a_turn_comes_at_its_moment_and_not_before() -> None:
    looks: list[float] = []
    moment = time.monotonic() + 0.05
    wait_for_turn(moment, lambda: looks.append(time.monotonic()))
    assert time.monotonic() >= moment
    assert len(looks) > 1


def test_a_turn_that_has_passed_is_taken_at_once() -> None:
    looks: list[int] = []
    wait_for_turn(0, lambda: looks.append(1))
    assert looks == [1]
