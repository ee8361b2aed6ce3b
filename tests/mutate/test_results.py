"""The score."""

from __future__ import annotations

import pytest

from harness.mutate.results import score
from tests.mutate.builders import EVERY, mutant, result


def test_the_score_is_of_mutants_that_some_packet_tells_apart() -> None:
    assert score([result(*EVERY)]) == pytest.approx(100 / 3)
    assert score([result(mutant("equivalent"), mutant("unjudged"))]) is None
    assert score([]) is None
