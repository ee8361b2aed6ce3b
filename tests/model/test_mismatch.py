"""A mismatch names the key of the expectation as it is written."""

from __future__ import annotations

import pytest

from harness.errors import Position
from harness.model.fields import Keys
from harness.model.mismatch import Mismatch


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (("expect", "verdict"), "expect.verdict"),
        (("expect", "path", 2), "expect.path[2]"),
        (("expect", "elements", "inet t s", 0), "expect.elements.inet t s[0]"),
        ((), ""),
    ],
)
def test_the_keys_as_one_word(keys: Keys, key: str) -> None:
    assert Mismatch(keys=keys, position=Position("a.yaml", 1), expected="x", seen="y").key == key
