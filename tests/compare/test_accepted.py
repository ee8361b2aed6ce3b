"""Approved changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compare import accepted
from harness.errors import HarnessError
from tests.compare.builders import DROPPED, change, effect, sure


def test_approved_changes_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "accepted.yaml"
    assert accepted.read(file, may_lack=True) == []
    one = sure(change(0, DROPPED, effect()))
    accepted.write(file, [one])
    accepted.write(file, [one])
    assert accepted.read(file) == [one.key]
    assert one.key == ("drop → accept", "inet t forward: policy drop", "inet t forward: tcp dport 80 accept")
    file.write_text("accepted:\n  - {change: x}\n")
    with pytest.raises(HarnessError, match=r"accepted.yaml:2:5: is not a change"):
        accepted.read(file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: no such file or directory; name the file of approved changes, or add --approve"),
        (b"", "is empty; nft-harness diff --accept FILE --approve writes such a file"),
        (b"# nothing yet\n", "is empty; nft-harness diff --accept FILE --approve writes such a file"),
        (b"approved: []\n", ":1:1: has no list accepted:"),
        (b"just a text\n", ":1:1: has no list accepted:"),
        (b"\xff", " is not UTF-8"),
    ],
)
def test_what_is_no_list_of_approved_changes_approves_nothing_in_silence(
    content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "accepted.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(HarnessError) as found:
        accepted.read(file)
    assert sentence in str(found.value)


def test_an_empty_list_approves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "accepted.yaml"
    accepted.write(file, [])
    assert accepted.read(file) == []
