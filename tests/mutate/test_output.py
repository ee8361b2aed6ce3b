"""What a run of mutants looks like, in each form."""

from __future__ import annotations

import pytest

from harness.errors import Position
from harness.mutate import output
from tests.mutate.builders import EVERY, WITNESS, mutant, result


def test_the_terminal_shows_each_survivor_with_its_packet_and_those_that_are_probably_equivalent() -> None:
    text = output.text([result(*EVERY)])
    assert "fw.nft:3: port off by one: tcp dport 22 → 23\n  - tcp dport 22 accept\n  + tcp dport 23 accept" in text
    assert "ask     client > device tcp dport 23" in text
    assert "probably equivalent: no packet that was tried" in text
    assert "(40 packets tried)" in text
    assert "mutation score 33 %: 1 of 3 mutants" in text


@pytest.mark.parametrize(
    ("killed", "survived", "score"), [(299, 1, "99 %"), (3, 0, "100 %"), (0, 1, "0 %"), (0, 0, "none")]
)
def test_only_a_score_of_all_is_shown_as_100_percent(killed: int, survived: int, score: str) -> None:
    one = result(*[mutant("killed")] * killed, *[mutant("survived", witness=WITNESS)] * survived)
    assert f"mutation score {score}:" in output.text([one])
    assert f"<h1>Mutation score {score}</h1>" in output.as_html([one])


def test_pages_and_annotations_escape_what_strangers_wrote() -> None:
    odd = mutant("survived", witness=WITNESS, texts=(("<script>", "::error::"),), what="a\nb %")
    page = output.as_html([result(odd)])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    (line,) = output.warnings([result(odd)])
    assert line.startswith("::warning file=fw.nft,line=3,")
    assert "\n" not in line


def test_survivors_of_one_line_are_one_annotation() -> None:
    there = mutant("survived", witness=WITNESS, position=Position("fw.nft", 9, 1))
    first, second = output.warnings([result(*EVERY, mutant("survived"), there)])
    assert first.startswith("::warning file=fw.nft,line=3,title=no scenario guards this rule::port off by one: ")
    assert first.count("drop → accept") == 2
    assert "drop → accept%0Aport off by one: " in first
    assert second.startswith("::warning file=fw.nft,line=9,")


def test_the_page_also_lists_mutants_that_were_not_run_and_the_question_for_each_survivor() -> None:
    page = output.as_html([result(*EVERY)])
    for title in ("Survived: 2", "No scenario could be run under these: 1", "Not run: 1", "Killed: 1"):
        assert title in page
    assert "client &gt; device tcp dport 23" in page
    assert "no scenario&#x27;s packet comes here" in page
    assert "Not run" not in output.as_html([result(mutant("equivalent"))])


def test_a_survivor_that_no_packet_was_found_for_is_said_once() -> None:
    missing = result(mutant("survived"), mutant("survived", witness=WITNESS))
    text = output.text([missing])
    assert text.count("packet  not found yet: the search was interrupted") == 1
    assert text.count("no packet was found yet for 1 of those that survived: they count in the score") == 1
    assert output.as_html([missing]).count("not found yet: the search was interrupted") == 1
    assert "not found yet" not in output.text([result(mutant("survived", witness=WITNESS), mutant("equivalent"))])
