"""A case knows where each of its values stands, and travels to a worker."""

from __future__ import annotations

import pickle
from pathlib import Path

from harness.scenario.case import Case
from harness.scenario.load import load


def test_where(example: Path) -> None:
    https, answer = load(example)
    assert isinstance(https, Case)
    assert isinstance(answer, Case)
    assert https.where(0, "expect", "path", 2) == (str(example), 15, 11)
    assert https.where(0, "expect", "path", 1, "nft_do_chain", "chain") == (str(example), 14, 33)
    assert https.where(0, "expect", "with") == (str(example), 8, 7)
    assert https.where(0) == (str(example), 5, 5)
    assert answer.where(1, "expect", "verdict") == (str(example), 23, 27)


def test_a_case_can_be_sent_to_a_worker(example: Path) -> None:
    case = load(example)[0]
    again = pickle.loads(pickle.dumps(case))
    assert (again.name, again.actions, again.network) == (case.name, case.actions, case.network)
    assert again.where(0, "expect", "path", 2) == case.where(0, "expect", "path", 2)
