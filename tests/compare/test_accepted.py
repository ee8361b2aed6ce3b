"""Approved changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compare import accepted
from harness.errors import HarnessError
from tests.compare.builders import DROPPED, change, effect, sure


def test_approved_changes_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "accepted.yaml"
    assert accepted.read(file) == []
    one = sure(change(0, DROPPED, effect()))
    accepted.write(file, [one])
    accepted.write(file, [one])
    assert accepted.read(file) == [one.key]
    assert one.key == ("drop → accept", "inet t forward: policy drop", "inet t forward: tcp dport 80 accept")
    file.write_text("accepted:\n  - {change: x}\n")
    with pytest.raises(HarnessError, match=r"accepted.yaml:2:5: is not a change"):
        accepted.read(file)
