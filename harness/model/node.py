"""A value of a YAML document that knows its place; :mod:`harness.scenario.document` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class LineColumn(NamedTuple):
    """Line and column, from 1."""

    line: int
    column: int


class Node:
    """A value of the document, and those inside it."""

    __slots__ = ("children", "count", "is_block", "key", "place", "text", "value")

    def __init__(self, value: Any, place: LineColumn) -> None:
        self.value = value
        """A str, int, float, bool, list or dict."""
        self.place = place
        self.text: LineColumn | None = None
        """Where the first character of a text stands, if it is written character by character: in one line, or as a
        block whose lines are indented alike."""
        self.is_block = False
        """Whether the text is written as a block."""
        self.key = place
        """Where its key stands, for a value in a mapping."""
        self.children: dict[str | int, Node] = {}
        """By key of a mapping, by index of a sequence."""
        self.count = 1
        """Values in it, itself included."""

    @classmethod
    def of(cls, value: Any, place: LineColumn) -> Node:
        """A value that stands in no document, as if all of it stood at ``place``; None is as if it was not given."""
        node = cls({} if isinstance(value, Mapping) else [] if isinstance(value, list | tuple) else value, place)
        if isinstance(value, Mapping | list | tuple):
            for key, child in value.items() if isinstance(value, Mapping) else enumerate(value):
                if child is not None:
                    node.put(key, place, cls.of(child, place))
        return node

    def used_at(self, place: LineColumn) -> Node:
        """The same value where an alias stands for it."""
        alias = Node(self.value, place)
        alias.children, alias.count = self.children, self.count
        return alias

    def within(self, offset: int) -> LineColumn:
        """The place ``offset`` characters into a text, as far as that is known."""
        known = self.text and offset and not self.is_block
        return self.text._replace(column=self.text.column + offset) if self.text and known else self.place

    def at(self, line: int, column: int) -> LineColumn:
        """The place of a line and column of a text, both from 1, as far as that is known."""
        if self.text is None or (line > 1 and not self.is_block):
            return self.place
        return LineColumn(self.text.line + line - 1, self.text.column + column - 1)

    def put(self, key: str | int, key_place: LineColumn, child: Node) -> None:
        """Add ``child`` to this mapping or sequence."""
        child.key = key_place
        self.children[key] = child
        self.count += child.count
        if isinstance(key, int):
            self.value.append(child.value)
        else:
            self.value[key] = child.value

    def without(self, key: str | int, *rest: str | int) -> Node:
        """A copy that lacks what stands at the keys; indices of the others stay as they are."""
        copy = Node([] if isinstance(self.value, list) else {}, self.place)
        for name, child in self.children.items():
            if name != key:
                copy.put(name, child.key, child)
            elif rest:
                copy.put(name, child.key, child.without(*rest))
        return copy

    def nearest(self, *keys: str | int) -> Node:
        """The value at the keys, or the nearest around it that exists."""
        node = self
        for key in keys:
            if key not in node.children:
                break
            node = node.children[key]
        return node
