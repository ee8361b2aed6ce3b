"""``python tests/complexity.py``: fail for functions of harness/ whose complexity is above 20 without a stated reason.

Cyclomatic complexity as radon counts it: one, plus one for each branch. A function that is above for a good reason
gives it in its docstring, in a line that begins with ``Complexity:``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from radon.complexity import cc_visit
from radon.visitors import Class, Function

HARNESS = Path(__file__).parents[1] / "harness"
MOST = 20
REASON = "Complexity:"


def functions(blocks: Iterable[Function | Class], prefix: str = "") -> Iterator[tuple[str, Function]]:
    """All functions with their dotted names, including methods and nested functions."""
    for block in blocks:
        name = prefix + block.name
        if isinstance(block, Class):
            yield from functions(block.methods, f"{name}.")
            yield from functions(block.inner_classes, f"{name}.")
        elif not block.is_method or prefix:  # radon lists methods a second time beside their class
            yield name, block
            yield from functions(block.closures, f"{name}.")


def findings(source: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, line and complexity of each function of ``source`` above the limit without a reason."""
    lines = source.splitlines()
    for name, function in functions(cc_visit(source)):
        reason = any(line.strip().startswith(REASON) for line in lines[function.lineno - 1 : function.endline])
        if function.complexity > MOST and not reason:
            yield name, function.lineno, function.complexity


def main() -> int:
    """Print functions above the limit; return the exit status."""
    status = 0
    for path in sorted(HARNESS.rglob("*.py")):
        for name, line, complexity in findings(path.read_text()):
            status = 1
            print(f"{path.relative_to(HARNESS.parent)}:{line}: {name} has complexity {complexity}, above {MOST}")
    return status


if __name__ == "__main__":
    sys.exit(main())
