"""Serialized values, before they are made."""

from __future__ import annotations

import struct

import execnet
import pytest
from execnet import gateway_base

from harness.pytest_plugin.wire import MalformedMessage, check

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    "value", [None, True, 1, -1, 1 << 40, 1.5, 2j, "ä", b"\0", [1, [2]], (1, "x"), {"a": [{}]}, {1, 2}, frozenset({1})]
)
def test_plain_values_travel(value: object) -> None:
    check(execnet.dumps(value)[1:])


def test_nothing_else_travels() -> None:
    bomb = b"K" + struct.pack("!i", 1 << 30) + b"Q"
    for data in (bomb, b"B\0\0\0\1Q", b"Z", gateway_base.opcode.PY3STRING + b"\xff\xff\xff\xff"):
        with pytest.raises(MalformedMessage):
            check(data)
