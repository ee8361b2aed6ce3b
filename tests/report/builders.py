"""Results of strangers, and where they point."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import Position
from harness.model.result import Result

Make = Callable[..., Result]
EVIL = '</details><img src=x> "q" | `x` [a](b) @you #1 ::error::\n::warning::\x1b[31m,50%:'
WHERE = Position("scenarios/edge.yaml", 31, 7)
