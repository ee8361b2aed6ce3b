"""The events of a YAML 1.2 text: what begins and ends in it, and where.

libyaml reads a text some twenty times as fast as ruamel.yaml does, but it is made for YAML 1.1, and its reasons for
refusing a text are vaguer. So libyaml comes first; where it does not read a text, ruamel.yaml does, or says why not.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import yaml

from harness.model.node import LineColumn

T = TypeVar("T")


class Kind(enum.Enum):
    """What an event is; those of the stream, and of a document's end, are left out."""

    DOCUMENT = "DocumentStartEvent"
    MAPPING = "MappingStartEvent"
    MAPPING_END = "MappingEndEvent"
    SEQUENCE = "SequenceStartEvent"
    SEQUENCE_END = "SequenceEndEvent"
    SCALAR = "ScalarEvent"
    ALIAS = "AliasEvent"


class Event(NamedTuple):
    """One event. What it does not have is empty."""

    kind: Kind
    place: LineColumn
    end: LineColumn
    """The place behind it."""
    text: str
    """A scalar's value, before it is taken for a number or a constant."""
    style: str
    """How a scalar is written: ``'``, ``"``, ``|``, ``>`` or plain; that a mapping or list is in brackets: ``flow``."""
    anchor: str
    tag: str


class YamlSyntaxError(Exception):
    """A text is not YAML. ``reason`` is the parser's; ``context`` is where that began which it was reading."""

    def __init__(self, reason: str, place: LineColumn | None, context: LineColumn | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place or context
        self.context = context or place


def walk(text: str, over: Callable[[Iterator[Event]], T]) -> T:
    """Return what ``over`` makes of the events of ``text``; it is called again where libyaml stops.

    Raises :class:`YamlSyntaxError`.
    """
    if yaml.__with_libyaml__ and not _YAML_1_1.search(text):
        try:
            return over(_events(_by_libyaml(text)))
        except yaml.YAMLError:
            pass
    from harness.scenario import yaml12  # most texts do without

    try:
        return over(_events(yaml12.events(text)))
    except yaml12.MarkedYAMLError as error:
        reason = error.problem or error.context or "no reason given"
        raise YamlSyntaxError(reason, _place(error.problem_mark), _place(error.context_mark)) from None


_YAML_1_1: Final = re.compile(r"[\x85\u2028\u2029]|[&*][^\s,\[\]{}]*:")
"""What libyaml reads otherwise than YAML 1.2 has it: line breaks (section 5.4), anchors with a colon (6.9.2)."""
_KINDS: Final = {kind.value: kind for kind in Kind}


def _by_libyaml(text: str) -> Iterator[Any]:
    from yaml.cyaml import CSafeLoader  # not there where PyYAML was built without libyaml

    parser = CSafeLoader(text)
    while parser.check_event():
        yield parser.get_event()


def _events(found: Iterator[Any]) -> Iterator[Event]:
    """Both libraries' classes have the same names and attributes."""
    for one in found:
        if kind := _KINDS.get(type(one).__name__):
            style = getattr(one, "style", "") or ("flow" if getattr(one, "flow_style", False) else "")
            start, end = one.start_mark, one.end_mark
            yield Event(
                kind,
                LineColumn(start.line + 1, start.column + 1),
                LineColumn(end.line + 1, end.column + 1),
                getattr(one, "value", ""),
                style,
                getattr(one, "anchor", "") or "",
                getattr(one, "tag", "") or "",
            )


def _place(mark: Any) -> LineColumn | None:
    return LineColumn(mark.line + 1, mark.column + 1) if mark else None
