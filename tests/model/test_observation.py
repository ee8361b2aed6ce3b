"""What was lost is counted once, whatever lost it."""

from __future__ import annotations

import pytest

from harness.model.observation import Loss


@pytest.mark.parametrize(
    ("loss", "total"),
    [
        (Loss(), 0),
        (Loss(entered=9, received=9), 0),
        (Loss(entered=9, received=7), 2),
        (Loss(entered=7, received=9), 2),
        (Loss(entered=9, received=7, refused=2), 2),
        (Loss(entered=9, received=9, refused=2), 4),
        (Loss(entered=9, received=6, refused=2), 3),
        (Loss(missed=3), 3),
        (Loss(untracked=4), 4),
        (Loss(trace=5), 5),
        (Loss(entered=9, received=6, refused=2, missed=3, untracked=4, trace=5), 15),
    ],
)
def test_the_total(loss: Loss, total: int) -> None:
    assert loss.total == total
