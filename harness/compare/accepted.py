"""Approved changes: a small YAML file that a review can read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import untrusted
from harness.bounds import SCENARIO_BYTES
from harness.compare.changes import Change
from harness.errors import HarnessError, Position, ScenarioError
from harness.recording import edit
from harness.save import save

KEYS = ("change", "old", "new")
REMEDY = "nft-harness diff --accept FILE --approve writes such a file; accepted: [] approves nothing"


def read(path: Path, *, may_lack: bool = False) -> list[tuple[str, str, str]]:
    """The changes that ``path`` approves; with ``may_lack`` none where there is no such file.

    Raises :class:`~harness.errors.HarnessError`, with its place, for what is not such a list.
    """
    from harness.scenario.document import parse

    if may_lack and not path.exists():
        return []
    try:
        text = untrusted.read(path, SCENARIO_BYTES).decode()
    except untrusted.Unreadable as error:
        remedy = "" if path.exists() else "name the file of approved changes, or add --approve to write it"
        raise HarnessError(f"{path} {error.sentence}", remedy=remedy) from None
    except UnicodeDecodeError:
        raise HarnessError(f"{path} is not UTF-8") from None
    root = parse(text, str(path), needs=REMEDY)
    entries = root.children.get("accepted")
    if entries is None or not isinstance(entries.value, list):
        raise ScenarioError("has no list accepted:", Position(str(path), *root.place), remedy=REMEDY)
    found = []
    for entry in entries.children.values():
        if not isinstance(entry.value, dict) or sorted(entry.value) != sorted(KEYS):
            remedy = "each entry has change:, old: and new:"
            raise ScenarioError("is not a change", Position(str(path), *entry.place), remedy=remedy)
        change, old, new = (str(entry.value[key]) for key in KEYS)
        found.append((change, old, new))
    return found


def write(path: Path, changes: Iterable[Change]) -> None:
    """Have ``path`` approve ``changes`` besides what it approves already.

    Raises :class:`~harness.errors.HarnessError` where that cannot be done.
    """
    lines = ["# Changes that nft-harness diff found, and that were approved.", "accepted:"]
    for values in dict.fromkeys([*read(path, may_lack=True), *(one.key for one in changes)]):
        first, *rest = (f"{key}: {edit.scalar(value, in_flow=False)}" for key, value in zip(KEYS, values, strict=True))
        lines += [f"  - {first}", *(f"    {line}" for line in rest)]
    if len(lines) == 2:
        lines[1] = "accepted: []"
    try:
        save(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise HarnessError(f"{path} can't be written: {error.strerror}") from None
