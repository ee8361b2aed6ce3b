"""Planted changes and refactorings: files beside rulesets that say what is edited, and whether a packet can show it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from ruamel.yaml import YAML

FOLDER = Path(__file__).parent / "planted"

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text that occurs once in a ruleset and what stands in its place, or a line that is moved."""

    find: str = ""
    replace: str = ""
    move: str = ""
    """Text of the line that is moved."""
    above: str = ""
    """Text of the line that it then stands above, or ``below``."""
    below: str = ""

    def apply(self, ruleset: str) -> str:
        """``ruleset``, edited."""
        if self.find:
            assert (self.move, self.above, self.below) == ("", "", ""), self
            assert ruleset.count(self.find) == 1, f"{self.find!r} occurs {ruleset.count(self.find)} times"
            return ruleset.replace(self.find, self.replace)
        assert self.move
        assert bool(self.above) != bool(self.below), self
        lines = ruleset.splitlines(keepends=True)
        moved = lines.pop(_only(lines, self.move))
        place = _only(lines, self.above or self.below)
        lines.insert(place if self.above else place + 1, moved)
        return "".join(lines)


def _only(lines: list[str], text: str) -> int:
    """The number of the only line with ``text``."""
    found = [number for number, line in enumerate(lines) if text in line]
    assert len(found) == 1, f"{text!r} is in {len(found)} lines"
    return found[0]


class Planted(Edit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change, or a refactoring, of a ruleset."""

    name: Text
    edits: tuple[Edit, ...] = ()
    """Several; else it is one itself."""
    shows: bool | None = None
    """Of a change: whether the packets of a comparison can show it."""
    why: str = ""
    """Why none can."""
    unreached: str = ""
    """Of a change that a packet could show and none does: what the answer says about that, in its own words."""
    kind: str = ""
    """Of a refactoring: one of :data:`KINDS`."""

    def applied(self, ruleset: str) -> str:
        """``ruleset``, changed."""
        for edit in self.edits or ([] if self.kind == OPTIMIZE else [self]):
            ruleset = edit.apply(ruleset)
        return ruleset


OPTIMIZE = "optimize"
"""Refactored by ``nft --optimize``."""
KINDS = ("split", "set", "vmap", "renamed", "reordered", OPTIMIZE)


class Sheet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file beside a ruleset."""

    ruleset: str
    changes: tuple[Planted, ...]
    refactorings: tuple[Planted, ...]


@functools.cache
def sheets() -> dict[str, Sheet]:
    """Every sheet, by the name of its ruleset."""
    return {path.stem: msgspec.convert(_plain(path), Sheet) for path in sorted(FOLDER.glob("*.yaml"))}


def _plain(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def changes() -> Iterator[tuple[str, Planted]]:
    """Every change with the name of its ruleset."""
    for name, sheet in sheets().items():
        yield from ((name, one) for one in sheet.changes)


def refactorings() -> Iterator[tuple[str, Planted]]:
    """Every refactoring with the name of its ruleset."""
    for name, sheet in sheets().items():
        yield from ((name, one) for one in sheet.refactorings)
