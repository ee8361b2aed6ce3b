"""Values that an expectation allows, and the patterns of names."""

from __future__ import annotations

import msgspec
import pytest

from harness.model.fields import HostName, InterfaceName, Mac, alternatives


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("accept", ("accept",)),
        (443, (443,)),
        ("80 | 443", (80, 443)),
        ("a|b | c", ("a", "b", "c")),
        ("٣ | x", ("٣", "x")),  # a digit, but none of ASCII
        ("443", ("443",)),  # one text is taken as it is written
    ],
)
def test_alternatives(value: str | int, allowed: tuple[str | int, ...]) -> None:
    assert alternatives(value) == allowed


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (HostName, ["client", "a", "web-1_x", "a" * 32], ["", "1client", "a b", "a/b", "a" * 33, "größe"]),
        (InterfaceName, ["wan0", "eth0.100", "größe", "a" * 15], ["", "a b", "a/b", "a:b", "a" * 16]),
        (Mac, ["02:00:00:00:00:01", "AA:bb:CC:dd:EE:ff"], ["02:00:00:00:00", "2:0:0:0:0:1", "02-00-00-00-00-01"]),
    ],
)
def test_names(kind: object, right: list[str], wrong: list[str]) -> None:
    for text in right:
        assert msgspec.convert(text, kind) == text
    for text in wrong:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(text, kind)
