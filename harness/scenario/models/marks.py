"""Marks of pytest as scenarios write them: a name, or a name with numbers, ``True`` or ``False``, and named texts.

Nothing in them is evaluated. A mark may do that itself, as ``skipif`` does with a text that stands first or is called
``condition``: no such text can be given.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
_PLAIN: Final = r"-?[0-9]{1,15}(?:[.][0-9]{1,15})?|True|False"
_TEXT: Final = r"\"[^\"\\\\]*\"|'[^'\\\\]*'"
_ARGUMENT: Final = rf"(?:{_PLAIN}|(?!condition\b){_NAME} ?= ?(?:{_PLAIN}|{_TEXT}))"
PATTERN: Final = rf"^{_NAME}(?:\({_ARGUMENT}(?:, ?{_ARGUMENT})*\))?$"
"""A regular expression, also of ECMA 262."""

Value = int | float | bool | str


class Mark(NamedTuple):
    """A mark, and what it is given."""

    name: str
    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = {}


def parse(text: str) -> Mark:
    """The mark that ``text``, which matches :data:`PATTERN`, stands for: ``timeout(60)``."""
    name, _, rest = text.removesuffix(")").partition("(")
    args: list[Value] = []
    kwargs: dict[str, Value] = {}
    for found in re.finditer(rf"(?:({_NAME}) ?= ?)?({_PLAIN}|{_TEXT})(?:, ?|$)", rest):
        if found[1]:
            kwargs[found[1]] = _value(found[2])
        else:
            args.append(_value(found[2]))
    return Mark(name, tuple(args), kwargs)


def _value(text: str) -> Value:
    if text[0] in "\"'":
        return text[1:-1]
    if text in ("True", "False"):
        return text == "True"
    return float(text) if "." in text else int(text)
