"""A call of a test in Python as a document of a scenario file: its keyword arguments, and the line of the test."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import Position
from harness.model.node import LineColumn, Node
from harness.scenario.files import shortened


def document(values: Mapping[str, Any]) -> tuple[Node, Path]:
    """What a test says as if it stood in a document at the line of the call, and the test's file."""
    here = caller()
    return Node.of(_plain(values), LineColumn(here.line, 0)), Path(here.file)


def _plain(value: Any) -> Any:
    """The value as YAML has it; all but numbers are text: paths, addresses, verdicts."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        return {str(key).removesuffix("_"): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, int | float) else str(value)


def caller() -> Position:
    """The line that has called this package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "harness":
        frame = frame.f_back
    return Position(str(shortened(Path(frame.f_code.co_filename))), frame.f_lineno)
