from __future__ import annotations

import itertools

import pytest

from harness.errors import ScenarioError
from harness.scenario.document import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("12:34:56:12:34:56", "12:34:56:12:34:56"),
        ("22:30", "22:30"),
        ("0x12", 18),
        ("0o17", 15),
        ("017", 17),
        ("-5", -5),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        (".", "."),
        (".inf", ".inf"),
        ("'5'", "5"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("2026-11-22", "2026-11-22"),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse(f"a: {text}", "f.yaml").value == {"a": value}


def test_yaml_1_1_changes_no_value() -> None:
    assert parse("%YAML 1.1\n---\na: yes", "f.yaml").value == {"a": "yes"}


def test_a_byte_order_mark_is_no_character() -> None:
    assert parse("\ufeffa: 1", "f.yaml").children["a"].key == (1, 1)


def test_an_alias_repeats_a_value_at_its_own_place() -> None:
    root = parse("a: &web {b: 1}\nc: *web\n", "f.yaml")
    assert root.value == {"a": {"b": 1}, "c": {"b": 1}}
    assert root.nearest("c").place == (2, 4)
    assert root.nearest("c", "b").place == (1, 13)


def test_places_of_keys_values_and_entries() -> None:
    root = parse("a:\n  - b\n  - c: {d: 1}\n", "f.yaml")
    assert root.nearest("a", 0).place == (2, 5)
    assert root.nearest("a", 1, "c", "d").place == (3, 12)
    assert root.nearest("a", 1, "c", "d").key == (3, 9)
    assert root.nearest("a", 7, "c").place == (2, 3), "the nearest that exists"


def test_what_is_left_out_keeps_the_indices_of_the_rest() -> None:
    root = parse("a: [{b: 1}, {b: 2, c: 3}, {b: 4}]", "f.yaml")
    assert root.without("a", 0).value == {"a": [{"b": 2, "c": 3}, {"b": 4}]}
    assert root.without("a", 0).without("a", 1, "c").value == {"a": [{"b": 2}, {"b": 4}]}
    assert root.value == {"a": [{"b": 1}, {"b": 2, "c": 3}, {"b": 4}]}


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = ["a: &a [x, x]", *(f"{b}: &{b} [*{a}, *{a}]" for a, b in itertools.pairwise(names))]
    with pytest.raises(ScenarioError, match="the file has more than 100,000 values"):
        parse("\n".join(lines), "f.yaml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nft: add rule\n", (1, 10)),
        ("nft: 'add rule'\n", (1, 11)),
        ('nft: "add\\trule"\n', (1, 6)),
        ("nft: |\n  add rule\n", (2, 7)),
        ("nft: |\n  first\n\n    add rule\n", (4, 7)),
        ("nft: |-  # a comment\n    first\n    second\n", (3, 9)),
        ("nft: >\n  folded\n  text\n", (1, 6)),
        ("nft: |\n\n  first\n", (1, 6)),
        ("- nft: |2\n     first\n", (2, 9)),
    ],
)
def test_the_place_of_a_line_and_column_in_a_text(text: str, place: tuple[int, int]) -> None:
    """Of the last line but empty ones, the fifth column; the text as a whole where that is not known."""
    root = parse(text, "a.yaml")
    node = root.children["nft"] if "nft" in root.children else root.children[0].children["nft"]
    line = len(node.value.rstrip("\n").split("\n"))
    assert node.at(line, 5) == place
