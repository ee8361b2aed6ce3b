"""A YAML 1.2 text as plain values, each knowing its place.

ruamel.yaml finds the structure; values and places are taken from its events in one walk, which
costs half of its round-trip loader and lets nothing in that a scenario has no use for: tags,
merge keys, nulls and keys that are not text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.scanner import Scanner, ScannerError

from harness import untrusted
from harness.bounds import SCENARIO_BYTES, YAML_DEPTH, YAML_VALUES
from harness.errors import Position, ScenarioError
from harness.model.node import LineColumn, Node
from harness.project import Project


def read(path: Path, project: Project) -> Node:
    """The document in ``path``, which must really lie in ``project`` or where its settings allow it.

    Raises :class:`~harness.errors.ScenarioError` when it cannot be read, is not YAML, or is more
    than a scenario file can be.
    """
    file = str(path)
    try:
        data = untrusted.read(path, SCENARIO_BYTES, allowed=project.allows)
    except untrusted.Unreadable as error:
        remedy = "split it" if isinstance(error, untrusted.TooLarge) else ""
        raise ScenarioError(error.sentence, Position(file), remedy=remedy) from None
    return parse(_decode(data, file), file)


def parse(text: str, file: str) -> Node:
    """The document that ``text`` is; ``file`` is its name in errors."""
    text = text.removeprefix("\ufeff")
    if found := _UNPRINTABLE.search(text):
        before = text[: found.start()]
        place = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ScenarioError(f"has the character U+{ord(found[0]):04X}, which is not allowed in a text", place)
    try:
        return _Walk(file, events(text), text.splitlines()).document()
    except MarkedYAMLError as error:
        raise _syntax_error(error, file) from None


def events(text: str) -> Iterator[Any]:
    """The events of a YAML text, in order; raises :class:`~ruamel.yaml.error.YAMLError` among them."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    found: Iterator[Any] = yaml.parse(text)
    return found


class _Scanner(Scanner):
    """ruamel.yaml's, which takes minutes for a few thousand brackets in one another."""

    def fetch_flow_collection_start(self, token: Any, to_push: str) -> None:
        # It reads ahead of the walk below, and must not stop behind the place where that would.
        if len(self.indents) + len(self.flow_context) >= YAML_DEPTH:
            raise ScannerError(None, None, _TOO_DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(token, to_push)


_TOO_DEEP = f"is nested more than {YAML_DEPTH} deep"


class _Walk:
    """From events to nodes."""

    def __init__(self, file: str, events: Iterator[Any], lines: Sequence[str]) -> None:
        self.file = file
        self.lines = lines
        self.events = events
        self.anchors: dict[str, Node | None] = {}
        self.count = 0

    def document(self) -> Node:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise self.error("a second document begins", event, "keep one document in a file")
                root = self.node(next(self.events), "the file", 1)
        if root is None:
            raise ScenarioError("is empty", Position(self.file), remedy="write ruleset: and scenarios:")
        return root

    def node(self, event: Any, name: str, depth: int) -> Node:
        """The value that begins with ``event``; ``name`` is what a sentence calls it."""
        if isinstance(event, AliasEvent):
            node = self.anchored(event)
        else:
            if event.ctag is not None:
                raise self.error(f"the tag '{event.tag}' has no meaning here", event, "write the value alone")
            if event.anchor:
                self.anchors[event.anchor] = None
            if isinstance(event, ScalarEvent):
                node = Node(_scalar(event), _place(event))
                node.text = _verbatim(event)
                if event.style == "|":
                    node.text, node.is_block = self.block(event), True
                if node.value is None:
                    # Below the keys of the file are headers, which have defaults.
                    remedy = "give one" if depth <= 2 else "give one, or {} where its defaults will do"
                    raise self.error(f"{name} has no value", event, remedy)
                if "\0" in event.value and name != "'payload'":
                    raise self.error(f"{name} has a NUL character", event, "leave it out")
                if half := _SURROGATE.search(event.value):
                    raise self.error(
                        f"'\\u{ord(half[0]):x}' is half a character", event, "write the whole, as \\UXXXXXXXX"
                    )
            elif depth > YAML_DEPTH:
                raise self.error(f"is nested more than {YAML_DEPTH} deep", event)
            elif isinstance(event, SequenceStartEvent):
                node = self.sequence(event, depth)
            else:
                node = self.mapping(event, depth)
            if event.anchor:
                self.anchors[event.anchor] = node
        # An alias counts as all that it stands for, so that a bomb is found before it is lit.
        self.count += node.count if isinstance(event, AliasEvent) else 1
        if self.count > YAML_VALUES:
            raise self.error(f"the file has more than {YAML_VALUES:,} values", event, "split it")
        return node

    def anchored(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            raise self.error(f"'*{event.anchor}' repeats something that no '&{event.anchor}' names", event)
        node = self.anchors[event.anchor]
        if node is None:
            raise self.error(f"'*{event.anchor}' stands inside of what it repeats", event)
        return node.used_at(_place(event))

    def sequence(self, start: Any, depth: int) -> Node:
        node = Node([], _place(start))
        while not isinstance(event := next(self.events), SequenceEndEvent):
            child = self.node(event, "an entry of this list", depth + 1)
            node.put(len(node.children), child.place, child)
        return node

    def mapping(self, start: Any, depth: int) -> Node:
        node = Node({}, _place(start))
        last = ""
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.ctag is not None or event.anchor:
                raise self.error("a key must be plain text", event)
            key = event.value
            if "\0" in key:
                raise self.error("a key cannot hold a NUL character", event)
            if "`" in key:  # msgspec's messages set keys in these, unescaped
                raise self.error("a key cannot hold a '`'", event)
            if key == "<<" and not event.style:
                raise self.error("'<<' is not a key in YAML 1.2", event, "repeat a whole value by alias instead")
            if key in node.children:
                first = node.children[key].key
                raise self.error(f"'{key}' occurs twice in this mapping, first in line {first.line}", event)
            value = next(self.events)
            if start.flow_style and _is_nothing(value) and node.children and _is_cut(node.children[last]):
                sentence = f"'{key}' is cut off from the text before it"
                raise self.error(sentence, event, "quote the text: a comma inside { } ends it")
            node.put(key, _place(event), self.node(value, f"'{key}'", depth + 1))
            last = key
        return node

    def block(self, event: ScalarEvent) -> LineColumn | None:
        """Where the text of a literal block begins; None when its first line is empty or indented further."""
        first = event.start_mark.line + 1
        lines = self.lines[first : event.end_mark.line + 1]
        texts = event.value.splitlines()
        if not lines or not texts or not texts[0] or not lines[0].endswith(texts[0]):
            return None
        return LineColumn(first + 1, len(lines[0]) - len(texts[0]) + 1)

    def error(self, sentence: str, event: Any, remedy: str = "") -> ScenarioError:
        return ScenarioError(sentence, Position(self.file, *_place(event)), remedy=remedy)


def _place(event: Any) -> LineColumn:
    return LineColumn(event.start_mark.line + 1, event.start_mark.column + 1)


def _is_nothing(event: Any) -> bool:
    return isinstance(event, ScalarEvent) and not event.style and not event.value


def _is_cut(node: Node) -> bool:
    """Whether a text looks as if more was meant to follow: a bracket is open."""
    return isinstance(node.value, str) and node.value.count("(") > node.value.count(")")


_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""An escape may name one; no file can hold it."""


def _verbatim(event: ScalarEvent) -> LineColumn | None:
    """Where a scalar's text begins, if its characters stand in one line as they are."""
    start, end, quote = event.start_mark, event.end_mark, event.style in ("'", '"')
    if start.line != end.line or end.column - start.column - 2 * quote != len(event.value):
        return None
    return LineColumn(start.line + 1, start.column + 1 + quote)


# What YAML 1.2 (section 10.3.2) takes a plain scalar for; everything else is text. Infinity and
# not-a-number are left out.
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _scalar(event: Any) -> str | int | float | bool | None:
    text: str = event.value
    if event.style:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    # Most scalars are words; numbers begin like this. An integer of thousands of digits is not supported.
    if text[0] in "+-.0123456789" and len(text) < 40:
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Position(file, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        raise ScenarioError(f"byte 0x{data[error.start]:02x} is not UTF-8", place, remedy="save it as UTF-8") from None


# YAML 1.2 section 5.1.
_UNPRINTABLE = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The parser's words for common mistakes, the sentence to show instead, and the remedy.
_SYNTAX = (
    (re.escape(_TOO_DEEP), _TOO_DEEP, ""),
    (r"found character '\\t'", "a tab cannot indent", "use spaces"),
    (r"found character '(.)' that cannot start any token", "'{0}' cannot begin a value", "put it in quotes"),
    (
        r"mapping values are not allowed here",
        "a ':' cannot stand here",
        "check the indentation, or put the text in quotes",
    ),
    (r"expected ',' or '([]}])', but got '<stream end>'", "the '{0}' that closes this is missing", ""),
    (r"expected ',' or '([]}])'", "a ',' or '{0}' is missing before this", "put it there, or quote the text"),
    (
        r"expected <block end>, but found '<block mapping start>'",
        "this is indented differently from what it belongs to",
        "",
    ),
    (r"expected <block end>", "this does not belong here", "check the indentation"),
    (r"expected the node content", "a value is missing here", ""),
    (r"found unexpected end of stream", "a quote is not closed", ""),
    (r"could not find expected ':'", "a ':' is missing after this key", ""),
)


def _syntax_error(error: MarkedYAMLError, file: str) -> ScenarioError:
    mark = error.problem_mark or error.context_mark
    reason = error.problem or error.context or "no reason given"
    for pattern, own, what_to_do in _SYNTAX:
        if found := re.search(pattern, reason):
            sentence, remedy = own.format(*found.groups()), what_to_do
            break
    else:
        sentence, remedy = f"is not YAML: {reason}", ""
    if "close" in sentence:
        mark = error.context_mark or mark
    place = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
    return ScenarioError(sentence, place, remedy=remedy)
