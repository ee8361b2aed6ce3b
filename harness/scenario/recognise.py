"""YAML files that are something else than scenario files: manifests, playbooks, workflows.

A scenario file with a mistake must never be taken for one of those, so a file is something else only when *all* of
this holds: it is YAML; each of its documents is a mapping or a list; no key of its mappings is one of a scenario
file, or nearly one (``scenarois``); and no entry of a list at the top, or directly below the top, has a key that
only an entry of ``scenarios`` has. Only the events of the YAML parser are read, nothing is built of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from harness import untrusted
from harness.bounds import SCENARIO_BYTES
from harness.project import Project
from harness.scenario.events import Event, Kind, YamlSyntaxError, walk
from harness.scenario.models.file import ScenarioFile

KEYS: Final = ScenarioFile.__struct_encode_fields__
"""The keys of a scenario file."""
SCENARIO_KEYS: Final = ("send", "connect", "exchange", "steps", "expect")
"""Keys that say what a scenario does."""

_NEAR: Final = 0.85
"""Similarity from which a key counts as a misspelt one of the language: ``rulset`` is, ``rules`` is not."""
_DEPTH: Final = 3
"""Levels down to which keys are looked at."""
_LINE: Final = re.compile(rf"^(?:{'|'.join(KEYS)}):(?:\s|$)", re.MULTILINE)


def is_something_else(path: Path, project: Project) -> bool:
    """Whether the YAML file ``path`` is not a scenario file, not even a wrong one.

    A file that cannot be read is for those to complain of who will read it.
    """
    try:
        text = untrusted.read(path, SCENARIO_BYTES, allowed=project.allows).decode("utf-8-sig")
    except (untrusted.Unreadable, UnicodeDecodeError):
        return False
    # Most files are scenario files, and say so in a line of their own.
    return not _LINE.search(text) and is_other_yaml(text)


def is_other_yaml(text: str) -> bool:
    """Whether ``text`` is YAML, and of another kind than scenario files."""
    try:
        return walk(text, _is_other)
    except (YamlSyntaxError, RecursionError, ValueError):
        return False


def _is_other(events: Iterator[Event]) -> bool:
    documents = 0
    for path in _paths(events):
        documents += path == ()
        if _is_ours(path):
            return False
    return documents > 0


def _is_ours(path: tuple[str | int | None, ...]) -> bool:
    match path:
        case (None,):  # a document that is neither a mapping nor a list
            return True
        case (str() as key,):
            return any(_is_near(key, known) for known in KEYS)
        case (int(), str() as key) | (str(), int(), str() as key):
            return key in SCENARIO_KEYS
    return False


def _is_near(key: str, known: str) -> bool:
    return key.lower() == known or (
        abs(len(key) - len(known)) < 4 and SequenceMatcher(None, key.lower(), known).ratio() >= _NEAR
    )


def _paths(events: Iterator[Event]) -> Iterator[tuple[str | int | None, ...]]:
    """Where the keys of mappings stand, down to the third level: ``("a", 0, "b")``.

    Each document that is a mapping or a list gives ``()`` as well, and one that is neither ``(None,)``.
    """
    stack: list[_Open] = []
    for event in events:
        begins_one = event.kind in (Kind.MAPPING, Kind.SEQUENCE)
        if event.kind is Kind.DOCUMENT:
            stack = []
        elif event.kind in (Kind.MAPPING_END, Kind.SEQUENCE_END):
            stack.pop()
        elif not stack and not begins_one:
            if event.text:  # an empty document is none
                yield (None,)
        elif not stack:
            yield ()
        elif stack[-1].take(event.text) and len(stack) <= _DEPTH:
            yield tuple(one.at for one in stack)
        if begins_one:
            stack.append(_Open(event.kind is Kind.MAPPING))


class _Open:
    """A mapping or list that has begun and not ended."""

    def __init__(self, is_mapping: bool) -> None:
        self._is_mapping = is_mapping
        self._key_next = is_mapping
        self.at: str | int = "" if is_mapping else -1
        """The key or index of the value that is read."""

    def take(self, text: str) -> bool:
        """Something begins in it, with ``text`` where it is a scalar; whether that is a key."""
        is_key = self._key_next
        if is_key:
            self.at = text
        elif isinstance(self.at, int):
            self.at += 1
        self._key_next = self._is_mapping and not is_key
        return is_key
