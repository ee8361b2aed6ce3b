"""docs/security.md: each promise has a name and tests, and these are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMISES = (ROOT / "docs" / "security.md").read_text().partition("\n## Promises\n")[2].partition("\n## ")[0]
ITEMS = re.findall(r"^- (.*(?:\n  .*)*)", PROMISES, re.MULTILINE)
NAMED = [re.match(r"\*\*([a-z][a-z-]+)\*\* \w", item) for item in ITEMS]


def defined_in(file: Path) -> set[str]:
    """The names of the tests in ``file``, with their classes."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_every_promise_has_a_name_of_its_own() -> None:
    assert len(ITEMS) >= 8
    assert all(NAMED), [item for item, name in zip(ITEMS, NAMED, strict=True) if name is None]
    names = [found[1] for found in NAMED if found]
    assert len(names) == len(set(names))


def test_every_room_of_the_page_promises_something() -> None:
    rooms = re.split(r"^### ", PROMISES, flags=re.MULTILINE)[1:]
    assert [room.splitlines()[0] for room in rooms if not re.search(r"^- \*\*", room, re.MULTILINE)] == []


@pytest.mark.parametrize("item", ITEMS, ids=[found[1] if found else "unnamed" for found in NAMED])
def test_every_promise_has_a_test(item: str) -> None:
    reported = item.partition("Tests: ")[2]
    tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+|\w+::test_\w+)`", reported)
    assert tests, "a promise ends with: Tests: `tests/FILE.py::NAME`"
    assert len(tests) == reported.count("`") // 2, "something there is no test"
    for file, name in tests:
        assert name in defined_in(ROOT / file), f"{file} has no test {name}"
