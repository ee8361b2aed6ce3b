from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies

from harness.model.node import LineColumn
from harness.scenario.events import Event, Kind, YamlSyntaxError, walk

START = LineColumn(1, 1)
SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
LINES = [line for path in SHIPPED for line in path.read_text("utf-8").splitlines(keepends=True)]


def values(text: str) -> list[str]:
    return [event.text for event in walk(text, list) if event.kind is Kind.SCALAR]


def places(text: str) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    return [(event.text, event.place, event.end) for event in walk(text, list) if event.kind is Kind.SCALAR]


def test_places_are_counted_in_characters_from_one() -> None:
    assert places('é: "ü"\nb:   ccc\n') == [
        ("é", (1, 1), (1, 2)),
        ("ü", (1, 4), (1, 7)),
        ("b", (2, 1), (2, 2)),
        ("ccc", (2, 6), (2, 9)),
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a: b\u2028c\n", ["a", "b\u2028c"]),  # no line break in YAML 1.2 (section 5.4)
        ("a: &b:c d\n", ["a", "d"]),  # an anchor may have a colon (6.9.2)
        ("a: {b:c: d}\n", ["a", "b:c", "d"]),
        ("a: yes\n", ["a", "yes"]),
        ('{"a":b}\n', ["a", "b"]),
    ],
)
def test_a_text_is_read_as_yaml_1_2(text: str, read: list[str]) -> None:
    assert values(text) == read


def test_the_walk_begins_anew_where_only_the_second_parser_reads_the_text() -> None:
    calls = []

    def over(found: Iterator[Event]) -> int:
        calls.append(0)
        return sum(1 for _ in found)

    assert walk('a: b\nc: "\\ud800"\n', over) == 7  # libyaml refuses half a character
    assert len(calls) == 2


def test_an_error_has_the_reason_and_both_places() -> None:
    with pytest.raises(YamlSyntaxError) as refused:
        walk('a: b\nc: "d\n', list)
    assert "unexpected end of stream" in refused.value.reason
    assert (refused.value.place, refused.value.context) == ((3, 1), (2, 4))


def test_without_libyaml_the_same_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(LINES[:200])
    before = walk(text, list)
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert walk(text, list) == before


@strategies.composite
def changed(draw: Any) -> str:
    """Some lines of the shipped scenarios, with a few characters put in, taken out and repeated."""
    first = draw(strategies.integers(0, len(LINES) - 1))
    text = "".join(LINES[first : first + draw(strategies.integers(1, 8))])
    for _ in range(draw(strategies.integers(0, 4))):
        at = draw(strategies.integers(0, len(text)))
        end = at + draw(strategies.integers(0, 4))
        put = draw(strategies.sampled_from(["", text[at:end] * 2, *"[]{},:-?!&*#|>'\"%@`~ \nab01\\="]))
        text = text[:at] + put + text[end:]
    return text


@pytest.mark.soak
@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml here")
def test_both_parsers_read_the_same(soak: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both read a text; but for the places of what is not written, and where there are tags (with commas)."""

    def holds(text: str) -> None:
        with soak.example(), monkeypatch.context() as patched:
            by_libyaml = outcome(text)
            patched.setattr(yaml, "__with_libyaml__", False)
            by_ruamel = outcome(text)
            if by_libyaml is not None and by_ruamel is not None and not any(event.tag for event in by_ruamel):
                assert list(map(content, by_libyaml)) == list(map(content, by_ruamel))

    soak.holds(changed(), holds, 100)


def outcome(text: str) -> list[Event] | None:
    try:
        return walk(text, list)
    except YamlSyntaxError:
        return None


def content(event: Event) -> Event:
    is_empty = event.kind is Kind.SCALAR and not event.text and not event.style
    if is_empty or event.kind in (Kind.MAPPING_END, Kind.SEQUENCE_END, Kind.DOCUMENT):
        return event._replace(place=START, end=START)
    return event
