"""A problem's sentence, its place once that is known, and its remedy."""

from __future__ import annotations

import pytest

from harness.errors import Position, together
from harness.model.problem import Problem, Problems, did_you_mean, nearest, nowhere, one_of, unknown

HOSTS = ("client", "device", "server")


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (Problem("is wrong", "steps", 0, "send", "to"), "steps[0].send.to: is wrong"),
        (Problem("is wrong", "send", "ether", about_key=True), "send: is wrong"),
        (Problem("is wrong"), "is wrong"),
        (Problem("is wrong", "to", remedy="name a host").below("send"), "send.to: is wrong; name a host"),
        (Problem("is wrong", "steps", 0, "send").inside(2), "send: is wrong"),
    ],
)
def test_the_keys_stand_before_the_sentence(problem: Problem, sentence: str) -> None:
    assert str(problem.at(Position("a.yaml", 3, 7))) == f"a.yaml:3:7: {sentence}"


def test_from_further_out_all_else_stays() -> None:
    problem = Problem("is wrong", "to", remedy="name a host", about_key=True, offset=4).below("send")
    assert (problem.keys, problem.remedy, problem.about_key, problem.offset) == (("send", "to"), "name a host", True, 4)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("clint", "'clint' is not an interface; did you mean 'client'?"),
        ("CLIENT", "'CLIENT' is not an interface; did you mean 'client'?"),
        ("xyz", "'xyz' is not an interface; it can be client, device or server"),
    ],
)
def test_a_word_that_names_nothing(word: str, sentence: str) -> None:
    assert str(unknown(word, HOSTS, "interface")) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.256", "'10.0.0.256' is not a valid IPv4 address"),
        ("10.0.2.1/24", "'10.0.2.1/24' is not a valid IPv4 address"),
        ("2001:db8::x1", "'2001:db8::x1' is not a valid IPv6 address"),
        ("servr", "'servr' is neither a host of the lab nor an address; did you mean 'server'?"),
    ],
)
def test_what_looks_like_an_address_was_meant_as_one(text: str, sentence: str) -> None:
    assert str(nowhere(text, HOSTS)) == sentence


def test_where_there_are_no_names_there_is_no_remedy() -> None:
    assert did_you_mean("a", ()) == ""
    assert nearest("zzzz", HOSTS) == ""


def test_names_in_a_row() -> None:
    assert one_of(["a"]) == "a"
    assert one_of(["a", "b", "c"]) == "a, b or c"
    assert one_of(["a", "b"], "and") == "a and b"


def test_problems_of_independent_parts_are_raised_together() -> None:
    problems = Problems()
    problems.refuse()
    with problems.collected():
        raise together([Problem("is wrong", "a"), Problem("is worse", "b")])
    with problems.collected():
        raise Problem("is late", "c")
    with pytest.raises(Problem, match="is wrong") as found:
        problems.refuse()
    outer = found.value.below("lab")
    assert [(one.sentence, one.keys) for one in outer.each] == [
        ("is wrong", ("lab", "a")),
        ("is worse", ("lab", "b")),
        ("is late", ("lab", "c")),
    ]
