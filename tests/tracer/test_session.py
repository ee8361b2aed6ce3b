"""What a program has counted since a moment is what a measurement lost."""

from __future__ import annotations

import pytest

from harness.model.observation import Counted, Loss
from harness.tracer.session import Counts

BEFORE = Counts(entered=[10, 20, 30], refused=[1, 2, 3], untracked=[4, 5, 6], missed=7)


def test_nothing_counted_is_nothing_lost() -> None:
    assert BEFORE.since(BEFORE, received=0) == Loss()


def test_what_was_counted_before_is_not_of_this_measurement() -> None:
    after = Counts(entered=[15, 20, 37], refused=[1, 2, 5], untracked=[4, 5, 9], missed=18)
    loss = after.since(BEFORE, received=9)
    assert loss == Loss(
        entered=12,
        received=9,
        refused=2,
        untracked=3,
        missed=11,
        cpus={0: Counted(entered=5), 2: Counted(entered=7, refused=2, untracked=3)},
    )
    assert loss.total == 1 + 2 + 3 + 11


@pytest.mark.parametrize(
    ("after", "counted"),
    [
        (BEFORE._replace(entered=[10, 21, 30]), Counted(entered=1)),
        (BEFORE._replace(refused=[1, 3, 3]), Counted(refused=1)),
        (BEFORE._replace(untracked=[4, 6, 6]), Counted(untracked=1)),
    ],
)
def test_a_cpu_counts_by_itself(after: Counts, counted: Counted) -> None:
    assert after.since(BEFORE, received=0).cpus == {1: counted}


def test_counts_of_another_number_of_cpus_do_not_fit() -> None:
    with pytest.raises(ValueError, match="shorter"):
        BEFORE._replace(refused=[1, 2]).since(BEFORE, received=0)
