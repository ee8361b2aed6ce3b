"""What a comparison looks like, in each form."""

from __future__ import annotations

import json

import msgspec

from harness.compare import output
from harness.compare.changes import Change
from harness.compare.output import Comparison
from tests.compare.builders import DROPPED, POLICY, change, effect, sure


def comparison(*changes: Change) -> Comparison:
    return Comparison(
        old="old.nft",
        new="new.nft",
        kernels=("6.12",),
        lab="client — wan0 device",
        seed=7,
        packets=1412,
        changes=list(changes),
        met=((1, 2), (2, 2)),
        unmet=("old.nft:9: drop: no packet was found",),
        beyond=("meta cgroup",),
        broken=(),
        by_chance=1,
    )


def test_the_text_says_what_changed_and_what_is_not_known() -> None:
    shown = output.text(comparison(sure(change(0, DROPPED, effect()))))
    assert shown.startswith("1 change in 1,412 packets (old.nft: 1 of 2 rules and policies met")
    assert "drop → accept" in shown
    assert "client > server tcp dport 80" in shown
    assert "no packet is made for: meta cgroup" in shown
    assert "not met: old.nft:9: drop: no packet was found" in shown
    assert output.text(comparison()).startswith("no change was found in 1,412 packets")


def test_each_row_has_its_label_apart_from_its_value() -> None:
    others = effect(verdict="drop", decided=(POLICY,), met=(POLICY,), connections=("a connection",), ended="by nobody")
    shown = output.text(comparison(sure(change(0, others, effect()))))
    rows = [line for line in shown.splitlines() if line.startswith("      ")]
    labels = [row.strip().split("  ")[0] for row in rows]
    assert labels == ["packet", "ask", "old", "new", "given up", "connection"]


def test_the_text_names_who_sifted_and_what_was_not_confirmed() -> None:
    sifted = msgspec.structs.replace(
        comparison(), kernels=(), sifted=("6.18",), disagreements=("drop → accept: tcp 80",)
    )
    shown = output.text(sifted)
    assert "; sifted on kernel 6.18; seed 7)" in shown
    assert "not confirmed with functions: drop → accept: tcp 80" in shown
    confirmed = msgspec.structs.replace(sifted, kernels=("6.12",))
    assert "sifted on kernel 6.18, confirmed with functions on kernel 6.12;" in output.text(confirmed)
    by_tracepoints = msgspec.structs.replace(confirmed, watched="tracepoints")
    assert "confirmed with tracepoints on kernel 6.12;" in output.text(by_tracepoints)
    found = json.loads(output.as_json([confirmed]))["comparisons"][0]
    assert (found["sifted"], found["disagreements"]) == (["6.18"], ["drop → accept: tcp 80"])


def test_each_form_says_what_could_not_be_measured_again() -> None:
    one = msgspec.structs.replace(sure(change(0, DROPPED, effect())), unconfirmed="events were lost")
    found = comparison(one)
    assert "not confirmed with functions: events were lost" in output.text(found)
    for form in (output.as_markdown, output.as_html):
        assert "(not confirmed)" in form([found])
    assert json.loads(output.as_json([found]))["comparisons"][0]["changes"][0]["unconfirmed"] == "events were lost"


def test_other_forms_escape_what_a_ruleset_says() -> None:
    nasty = msgspec.structs.replace(sure(change(0, DROPPED, effect())))
    nasty.new = msgspec.structs.replace(nasty.new, text='log prefix "<script>|\x1b[2J" accept')
    page, table = output.as_html([comparison(nasty)]), output.as_markdown([comparison(nasty)])
    assert "<script>" not in page
    assert "\x1b" not in page + table
    assert "\\|" in table
    (warning,) = output.warnings([comparison(nasty)])
    assert warning.startswith("::warning file=new.nft,line=7,")
    found = json.loads(output.as_json([comparison(nasty)]))["comparisons"][0]["changes"][0]
    assert (found["change"], found["witness"]["new"]["verdict"]) == ("drop → accept", "accept")
