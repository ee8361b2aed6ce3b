"""execnet's serialized values, looked over before they are made: bounded in size, and nothing but plain values.

Source: execnet/gateway_base.py, class ``Unserializer``.
"""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 64 << 20
"""Of one message; the result of a scenario with 400 packets has some 5 MB."""

_ALONE: Final = frozenset(b"CRLJPQ")  # False, True, None, a new dict, an item set, the end
_COUNTED: Final = frozenset(b"@EFGKO")  # four bytes: tuple, frozenset, int, long, list, set
_SIZED: Final = frozenset(b"AHIMNS")  # four bytes, and as many as they say: bytes, large numbers, texts
_FIXED: Final = {ord("D"): 8, ord("T"): 16}  # float, complex
_LIST: Final = ord("K")


class MalformedMessage(Exception):
    """No message that execnet makes of plain values."""


def check(data: bytes) -> None:
    """Raise :class:`MalformedMessage` for what no plain value is made of, and for a list longer than its data."""
    at, room = 0, 0
    while at < len(data):
        code = data[at]
        at += 1
        if code in _ALONE:
            continue
        if code in _FIXED:
            at += _FIXED[code]
            continue
        if code not in _COUNTED and code not in _SIZED:
            raise MalformedMessage(f"a value of kind {code:#04x}")
        number = int.from_bytes(data[at : at + 4], "big", signed=True)
        at += 4
        if code in _SIZED:
            if number < 0:
                raise MalformedMessage("a text of negative length")
            at += number
        elif code == _LIST:
            room += number
            if number < 0 or room > len(data):  # each element takes some bytes
                raise MalformedMessage("a list longer than its message")
