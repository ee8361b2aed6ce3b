from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from harness.recording.edit import KeptEntry, Text, UneditableError, Value, flow, scalar
from harness.scenario.document import parse

SCENARIOS = Path(__file__).parents[2] / "scenarios"

FILE = """\
# head
scenarios:
  - name: first   # one
    send: {from: client, to: server} # two

  # about the second
  - {name: second, send: {from: client}, marks: [slow]}
  - name: third
    send:
      from: client # here
    expect: {}   # to be filled
  - name: fourth
    expect:
      verdict: "accept" # why
      delivered:
        to: server
      path:
        - ip_rcv
        - ip_forward # gone
        - ip_output
      never: [a, b, c]
"""
SEEN: Value = {
    "verdict": "drop",
    "rule": "tcp dport { 80 } accept",
    "path": ["ip_rcv", {"nft_do_chain": {"hook": "x"}}],
}


def changed(text: Text, original: str) -> list[str]:
    """The lines that differ, as diff(1) marks them."""
    new = text.changed(text.changes())
    parse(new, "")
    lines = difflib.unified_diff(original.splitlines(), new.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def test_an_expectation_is_added_behind_the_packet() -> None:
    text = Text(FILE)
    text.insert(("scenarios", 0, "expect"), SEEN, after="send")
    assert changed(text, FILE) == [
        "+    expect:",
        "+      verdict: drop",
        "+      rule: tcp dport { 80 } accept",
        "+      path:",
        "+        - ip_rcv",
        "+        - nft_do_chain: {hook: x}",
    ]


def test_in_braces_it_stays_in_its_line() -> None:
    text = Text(FILE)
    text.insert(("scenarios", 1, "expect"), {"verdict": "drop", "rule": "a { b }"}, after="send")
    new = '  - {name: second, send: {from: client}, expect: {verdict: drop, rule: "a { b }"}, marks: [slow]}'
    assert changed(text, FILE)[1] == f"+{new}"


def test_an_empty_one_is_filled_in_and_keeps_its_comment() -> None:
    text = Text(FILE)
    text.replace(("scenarios", 2, "expect"), {"verdict": "drop"})
    assert changed(text, FILE) == [
        "-    expect: {}   # to be filled",
        "+    expect:   # to be filled",
        "+      verdict: drop",
    ]


def test_values_change_in_their_place() -> None:
    text = Text(FILE)
    text.replace(("scenarios", 3, "expect", "verdict"), "drop")
    text.replace(("scenarios", 3, "expect", "delivered"), "nowhere")
    assert changed(text, FILE) == [
        '-      verdict: "accept" # why',
        "-      delivered:",
        "-        to: server",
        "+      verdict: drop # why",
        "+      delivered: nowhere",
    ]


@pytest.mark.parametrize("end", ["", "\n", "  # the last\n"])
def test_an_entry_is_added_behind_the_last(end: str) -> None:
    before = f"scenarios:\n- name: a\n  send: {{x: 1}}{end}"
    text = Text(before)
    text.append(("scenarios",), ["  - name: b", "    send: {}"])
    assert text.changed(text.changes()) == before.rstrip("\n") + "\n\n- name: b\n  send: {}" + "\n" * end.endswith("\n")
    for other in ("scenarios: [{name: a}]\n", "scenarios: 1\n"):
        with pytest.raises(UneditableError):
            Text(other).append(("scenarios",), ["  - name: b"])


def test_of_a_list_only_what_differs_changes() -> None:
    text = Text(FILE)
    path = ("scenarios", 3, "expect", "path")
    text.relist(path, [KeptEntry(0), {"nft_do_chain": {"verdict": "drop"}}, KeptEntry(2), "end"])
    text.relist(("scenarios", 3, "expect", "never"), ["first", KeptEntry(1)])
    assert (
        changed(text, FILE)
        == [
            "-        - ip_forward # gone",
            "+        - nft_do_chain: {verdict: drop}",
            "+        - end",
            "-      never: [a, b, c]",
            "+      never: [first, b]",
        ]
        or changed(text, FILE) == []
    )


def test_keys_are_taken_out() -> None:
    text = Text(FILE)
    text.remove(("scenarios", 3, "expect", "delivered"))
    text.remove(("scenarios", 1, "marks"))
    assert changed(text, FILE) == [
        "-  - {name: second, send: {from: client}, marks: [slow]}",
        "+  - {name: second, send: {from: client}}",
        "-      delivered:",
        "-        to: server",
    ]


def test_line_breaks_and_byte_order_mark_stay() -> None:
    original = "\ufeff" + FILE.replace("\n", "\r\n")
    text = Text(original)
    text.insert(("scenarios", 0, "expect"), {"verdict": "drop"}, after="send")
    new = text.changed(text.changes())
    assert new.startswith("\ufeff#")
    assert "# two\r\n    expect:\r\n      verdict: drop\r\n\r\n" in new
    assert "\n" not in new.replace("\r\n", "")


def test_what_an_alias_shares_is_not_changed() -> None:
    text = Text("a: &x {verdict: drop}\nb: *x\n")
    with pytest.raises(UneditableError):
        text.replace(("b", "verdict"), "accept")


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_without_changes_every_byte_stays(path: Path) -> None:
    text = path.read_text()
    assert Text(text).changed([]) == text


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a: b",
        "a #b",
        "[a",
        "{ a, b }",
        "- a",
        "true",
        "12",
        "1:2",
        "'",
        '"x" y',
        "a\nb",
        "@x",
        "ü",
        "",
        "~",
        "::",
        "::1",
        ":a",
        "a:",
    ],
)
@pytest.mark.parametrize("in_flow", [True, False])
def test_any_text_is_read_back(text: str, in_flow: bool) -> None:
    assert parse(f"a: {scalar(text, in_flow=in_flow)}", "").value == {"a": text}
    assert parse(f"a: {flow({text: [text, {'k': text}]})}", "").value == {"a": {text: [text, {"k": text}]}}
    nested: Value = {"k": {"k": text}, "more": {"k": text, "last": text}}
    assert parse(f"a:\n  - b: {flow(nested)}", "").value == {"a": [{"b": nested}]}
