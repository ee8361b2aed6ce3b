"""Values that know their place."""

from __future__ import annotations

from harness.model.node import LineColumn, Node

HERE, THERE = LineColumn(1, 1), LineColumn(7, 3)


def text(value: str, place: LineColumn, *, block: bool = False) -> Node:
    node = Node(value, place)
    node.text, node.is_block = place, block
    return node


def test_a_value_that_stands_in_no_document() -> None:
    node = Node.of({"a": [1, None, {"b": "x"}], "c": None}, HERE)
    assert node.value == {"a": [1, {"b": "x"}]}
    assert "c" not in node.children
    assert node.count == 5
    assert node.nearest("a", 2, "b").value == "x"


def test_the_nearest_value_around_one_that_does_not_exist() -> None:
    node = Node.of({"send": {"to": "server"}}, HERE)
    assert node.nearest("send", "tcp", "dport") is node.children["send"]
    assert node.nearest("expect") is node
    assert node.nearest() is node


def test_a_place_in_a_text() -> None:
    assert text("1.2.3", THERE).within(2) == (7, 5)
    assert text("1.2.3", THERE, block=True).within(2) == THERE
    assert Node("1.2.3", THERE).within(2) == THERE  # its characters are not those of the file


def test_a_line_and_column_of_a_text() -> None:
    block, line = text("a\nb\n", THERE, block=True), text("a b", THERE)
    assert block.at(2, 4) == (8, 6)
    assert line.at(1, 3) == (7, 5)
    assert line.at(2, 1) == THERE  # the text goes on in a way that its lines do not tell
    assert Node("a", THERE).at(1, 3) == THERE


def test_where_an_alias_stands_is_its_own_place() -> None:
    anchored = Node.of({"a": 1}, HERE)
    alias = anchored.used_at(THERE)
    assert (alias.value, alias.place, alias.nearest("a").value) == ({"a": 1}, THERE, 1)
    assert anchored.place == HERE


def test_without_a_value_the_others_stay_where_they_are() -> None:
    node = Node.of({"a": [1, 2, 3], "b": 1}, HERE)
    left = node.without("a", 1)
    assert left.value == {"a": [1, 3], "b": 1}
    assert left.nearest("a", 2).value == 3
    assert node.value == {"a": [1, 2, 3], "b": 1}
    assert node.without("a").value == {"b": 1}
