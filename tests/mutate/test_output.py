"""What a run of mutants looks like, in each form."""

from __future__ import annotations

from harness.mutate import output
from tests.mutate.builders import EVERY, WITNESS, mutant, result


def test_the_terminal_shows_each_survivor_with_its_packet_and_those_that_are_probably_equivalent() -> None:
    text = output.text([result(*EVERY)])
    assert "fw.nft:3: port off by one: tcp dport 22 → 23\n  - tcp dport 22 accept\n  + tcp dport 23 accept" in text
    assert "ask     client > device tcp dport 23" in text
    assert "probably equivalent: no packet that was tried" in text
    assert "(40 packets tried)" in text
    assert "mutation score 33 %: 1 of 3 mutants" in text


def test_pages_and_annotations_escape_what_strangers_wrote() -> None:
    odd = mutant("survived", witness=WITNESS, texts=(("<script>", "::error::"),), what="a\nb %")
    page = output.as_html([result(odd)])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    (line,) = output.warnings([result(odd)])
    assert line.startswith("::warning file=fw.nft,line=3,")
    assert "\n" not in line


def test_a_survivor_that_no_packet_was_found_for_is_said_once() -> None:
    missing = result(mutant("survived"), mutant("survived", witness=WITNESS))
    text = output.text([missing])
    assert text.count("packet  not found yet: the search was interrupted") == 1
    assert text.count("no packet was found yet for 1 of those that survived: they count in the score") == 1
    assert output.as_html([missing]).count("not found yet: the search was interrupted") == 1
    assert "not found yet" not in output.text([result(mutant("survived", witness=WITNESS), mutant("equivalent"))])
