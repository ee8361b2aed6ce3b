"""Changes to a YAML text that leave every other byte as it is.

The text is not written anew from a tree of values: what changes is cut out and put in at the places
that the parser reports. So comments, order, quotes and line breaks stay as their author had them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from harness.model.fields import Keys
from harness.model.node import LineColumn
from harness.scenario.document import parse

Value = str | int | list[Any] | dict[str, Any]
"""What can be put into a text: ``[]`` and ``{}`` of such values."""


class KeptEntry(NamedTuple):
    """An entry of a list that stays, by its number."""

    number: int


class Splice(NamedTuple):
    """Characters of the text, from ``start`` to before ``end``, that become ``new``."""

    start: int
    end: int
    new: str


class UneditableError(Exception):
    """A place that cannot be changed; the text is the end of a sentence."""


class Text:
    """A YAML text and the changes to be made to it."""

    def __init__(self, text: str) -> None:
        self._text = text
        # The parser counts from behind a byte order mark.
        self._start = len(text) - len(text.removeprefix("\ufeff"))
        self._root = YAML(typ="safe", pure=True).compose(text[self._start :])
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._splices: list[Splice] = []

    def changes(self) -> list[Splice]:
        """The changes asked for since the last call; they are forgotten here."""
        splices, self._splices = self._splices, []
        return splices

    def changed(self, splices: Iterable[Splice]) -> str:
        """The text with ``splices`` made."""
        text = self._text
        for start, end, new in sorted(splices, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def has(self, keys: Keys) -> bool:
        """Whether there is a value at ``keys``."""
        try:
            self._find(keys)
        except KeyError:
            return False
        return True

    def entry_at(self, keys: Keys, place: LineColumn) -> int:
        """The index of the entry that begins at ``place`` in the list at ``keys``."""
        marks = (child.start_mark for child in self._find(keys).value)
        return next(n for n, mark in enumerate(marks) if (mark.line + 1, mark.column + 1) == place)

    def written(self, keys: Keys) -> str:
        """The value at ``keys`` as it is written. Raises :class:`UneditableError` for one shared by an alias."""
        node = self._find(keys)
        return self._text[self._from(node) : self._end(node)]

    def insert(self, keys: Keys, value: Value, after: str) -> None:
        """Put a new key, the last of ``keys``, behind the key ``after`` of its mapping."""
        *outer, key = keys
        around = self._find(tuple(outer))
        before = next(child for name, child in around.value if name.value == after)
        if around.flow_style:
            self._splice(self._end(before), self._end(before), f", {key}: {flow(value)}")
            return
        indent = " " * around.start_mark.column
        if isinstance(value, dict) and value:
            lines = [f"{indent}{key}:", *mapping(value, indent + "  ")]
        else:
            lines = [f"{indent}{key}: {_value(value)}"]
        self._add_lines(self._end_of_line(self._end(before)), lines)

    def replace(self, keys: Keys, value: Value) -> None:
        """Write ``value`` in the place of the one at ``keys``."""
        node = self._find(keys)
        around = self._find(keys[:-1])
        if isinstance(node, MappingNode) and not node.value and not around.flow_style and isinstance(value, dict):
            # {} stands for what is to be filled in; a comment behind it stays in its line.
            self._splice(self._after_key(around, keys[-1]), self._end(node), "")
            lines = mapping(value, " " * (around.start_mark.column + 2))
            self._add_lines(self._end_of_line(self._end(node)), lines)
        elif self._is_block(node):
            self._splice(self._after_key(around, keys[-1]), self._end(node), f" {flow(value)}")
        else:
            inside = any(getattr(self._find(keys[:n]), "flow_style", False) for n in range(len(keys)))
            self._splice(self._from(node), self._end(node), flow(value) if inside else _value(value))

    def remove(self, keys: Keys) -> None:
        """Take the key or entry out."""
        around = self._find(keys[:-1])
        if isinstance(around, MappingNode):
            spans = [(self._from(name), self._end(child)) for name, child in around.value]
            at = next(n for n, (name, _) in enumerate(around.value) if name.value == keys[-1])
        else:
            spans = [(self._from(child), self._end(child)) for child in around.value]
            at = int(keys[-1])
        self._find(keys)
        self._take_out(around, spans, at, at + 1)

    def append(self, keys: Keys, lines: Sequence[str]) -> None:
        """Add an entry behind the last of the list at ``keys``, an empty line before it.

        ``lines`` are the entry as it stands in a list that is indented by two.

        Raises :class:`KeyError` where there is no list, and :class:`UneditableError` for one that is on one line.
        """
        node = self._find(keys)
        if not isinstance(node, SequenceNode) or not self._is_block(node):
            raise UneditableError("it is not a list with an entry a line")
        indent = " " * node.start_mark.column
        self._add_lines(self._end_of_line(self._end(node)), ["", *(indent + line[2:] for line in lines)])

    def relist(self, keys: Keys, entries: Sequence[KeptEntry | Value]) -> None:
        """Make the list at ``keys`` one of ``entries``, of which at least one is :class:`KeptEntry`, in their old
        order."""
        node = self._find(keys)
        spans = [(self._from(child), self._end(child)) for child in node.value]
        kept = [entry.number for entry in entries if isinstance(entry, KeptEntry)]
        for at in range(len(spans)):
            if at not in kept:
                self._take_out(node, spans, at, at + 1, first_kept=kept[0])
        last: int | None = None
        new: list[Value] = []
        for entry in [*entries, None]:
            if isinstance(entry, KeptEntry) or entry is None:
                self._put_in(node, spans, last, kept[0], new)
                last, new = entry.number if isinstance(entry, KeptEntry) else last, []
            else:
                new.append(entry)

    # -- where things stand -----------------------------------------------------------------------

    def _find(self, keys: Keys) -> Any:
        node = self._root
        for key in keys:
            if isinstance(node, MappingNode):
                node = next((child for name, child in node.value if name.value == key), None)
            elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
            else:
                node = None
            if node is None:
                raise KeyError(keys)
            if node.anchor:
                raise UneditableError("it is shared by an alias")
        return node

    def _from(self, node: Any) -> int:
        return self._start + int(node.start_mark.index)

    def _end(self, node: Any) -> int:
        """Behind the last character; the parser's end of a block is where the next token begins."""
        if self._is_block(node):
            last = node.value[-1]
            return self._end(last[1] if isinstance(node, MappingNode) else last)
        end = self._start + int(node.end_mark.index)
        if isinstance(node, ScalarNode) and node.style in ("|", ">"):
            end = self._from(node) + len(self._text[self._from(node) : end].rstrip())
        return end

    @staticmethod
    def _is_block(node: Any) -> bool:
        return isinstance(node, MappingNode | SequenceNode) and not node.flow_style and bool(node.value)

    def _after_key(self, mapping: Any, key: str | int) -> int:
        """Behind the colon of ``key``."""
        name = next(name for name, _ in mapping.value if name.value == key)
        return self._text.index(":", self._start + int(name.end_mark.index)) + 1

    def _start_of_line(self, at: int) -> int:
        return self._text.rfind("\n", 0, at) + 1

    def _end_of_line(self, at: int) -> int:
        """Before the line's break, so behind a comment."""
        end = self._text.find("\n", at)
        end = len(self._text) if end < 0 else end
        return end - 1 if self._text[at:end].endswith("\r") else end

    # -- changing ---------------------------------------------------------------------------------

    def _splice(self, start: int, end: int, new: str) -> None:
        self._splices.append(Splice(start, end, new))

    def _add_lines(self, at: int, lines: Iterable[str]) -> None:
        self._splice(at, at, "".join(f"\n{line}" for line in lines).replace("\n", self._newline))

    def _take_out(
        self, around: Any, spans: Sequence[tuple[int, int]], at: int, end: int, *, first_kept: int | None = None
    ) -> None:
        if not around.flow_style:
            start = self._start_of_line(spans[at][0])
            stop = self._end_of_line(spans[end - 1][1])
            # With the line break before it: a text may end without one.
            self._splice(max(start - len(self._newline), 0), stop, "")
        elif at == 0 or (first_kept is not None and at < first_kept):
            self._splice(spans[at][0], spans[end][0] if end < len(spans) else spans[at][1], "")
        else:
            self._splice(spans[at - 1][1], spans[end - 1][1], "")

    def _put_in(
        self, node: Any, spans: Sequence[tuple[int, int]], last: int | None, first: int, values: Sequence[Value]
    ) -> None:
        """``values`` behind the entry ``last``, or in front of the entry ``first``."""
        if not values:
            return
        if node.flow_style and last is None:
            self._splice(spans[first][0], spans[first][0], "".join(f"{flow(value)}, " for value in values))
        elif node.flow_style and last is not None:
            self._splice(spans[last][1], spans[last][1], "".join(f", {flow(value)}" for value in values))
        else:
            indent = " " * node.start_mark.column
            lines = [f"{indent}- {_entry(value)}" for value in values]
            if last is None:
                at = self._start_of_line(spans[first][0])
                self._splice(at, at, "".join(f"{line}{self._newline}" for line in lines))
            else:
                self._add_lines(self._end_of_line(spans[last][1]), lines)


# --- writing values -----------------------------------------------------------------------------


@functools.lru_cache(8192)
def scalar(text: str, *, in_flow: bool) -> str:
    """``text`` without quotes where YAML reads it as that text."""
    try:
        # As it may stand in a file: the parser reads "::" and "a:" in one place and not in another.
        places: dict[str, Value] = {f"a: {text}": {"a": text}}
        if in_flow:
            inside = f"a: {{b: {{c: {text}}}, d: [{text}, {text}], e: {text}}}"
            places[inside] = {"a": {"b": {"c": text}, "d": [text, text], "e": text}}
        if "\n" not in text and all(parse(one, "").value == wanted for one, wanted in places.items()):
            return text
    except Exception:
        pass
    return json.dumps(text, ensure_ascii=False)


def flow(value: Value) -> str:
    """``value`` on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key_text(key)}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return scalar(value, in_flow=True) if isinstance(value, str) else str(value)


@functools.lru_cache(8192)
def key_text(text: str) -> str:
    """A key, without quotes where it can do without."""
    try:
        if list(parse(f"{{{text}: 1}}", "").children) == [text]:
            return text
    except Exception:
        pass
    return json.dumps(text, ensure_ascii=False)


def mapping(values: Mapping[str, Value], indent: str) -> Iterator[str]:
    """``values`` line by line, as people write expectations: lists of functions an entry a line."""
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            yield f"{indent}{key_text(key)}:"
            yield from (f"{indent}  - {_entry(one)}" for one in value)
        else:
            yield f"{indent}{key_text(key)}: {_value(value)}"


def _entry(value: Value) -> str:
    """An entry of a list in lines: a mapping of one key does without braces."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, inside),) = value.items()
        return f"{key_text(key)}: {_value(inside)}"
    return _value(value)


def _value(value: Value) -> str:
    return scalar(value, in_flow=False) if isinstance(value, str) else flow(value)
