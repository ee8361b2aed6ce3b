"""Effects of two rulesets on the same packets, compared, grouped, approved and shown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.batch.messages import Effect, Effects, Loaded
from harness.compare import accepted, output, sides
from harness.compare.changes import Book, Change, compared, difference, grouped
from harness.compare.output import Comparison
from harness.errors import HarnessError, Position
from harness.model.observation import Rule
from harness.model.result import Policy

FORWARD = ("inet", "t", "forward")
RULE, POLICY = (*FORWARD, 4), (*FORWARD, 0)


def book(file: str, text: str = "tcp dport 80 accept") -> Book:
    names = {"family": "inet", "table": "t", "chain": "forward"}
    rule = Rule(**names, handle=4, text=text, position=Position(file, 7, 3))
    policy = Policy(**names, hook="forward", verdict="drop", position=Position(file, 3, 3))
    return Book(Loaded(kernel="6.12", rules=(rule,), policies=(policy,)))


def effect(**values: Any) -> Effect:
    return Effect(**{"verdict": "accept", "decided": (RULE,), "met": (RULE,), **values})


DROPPED = effect(verdict="drop", decided=(POLICY,), met=(POLICY,))
BOOKS = book("old.nft"), book("new.nft")


def change(number: int, old: Effect, new: Effect, *, rules: bool = False, port: int = 80) -> Change | None:
    sends = ({"from": "client", "to": "server", "tcp": {"dport": port}},)
    about = number, sends, f"client → server tcp {port}"
    return compared(about, Effects(seen=(old,)), Effects(seen=(new,)), BOOKS, rules=rules)


def sure(found: Change | None) -> Change:
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({}, {}, ""),
        ({"verdict": "drop"}, {}, "drop → accept"),
        ({}, {"verdict": "reject with tcp reset"}, "accept → reject with tcp reset"),
        ({"arrived": ("server eth0: a",)}, {"arrived": ("server eth0: b",)}, "accept, arrives differently"),
        ({}, {"answers": ("client eth0: icmp",)}, "accept, is answered differently"),
        ({"mark": 1}, {"mark": 2}, "accept, mark differently"),
        ({}, {"logs": ('log prefix "x"',)}, "accept, logs differently"),
        ({}, {"elements": {"inet t s": ("1.2.3.4",)}}, "accept, sets differently"),
        ({}, {"connections": ("protocol 6",)}, "accept, connection differently"),
        ({"met": ()}, {}, ""),
        ({"hooks": ("input drop",)}, {}, ""),
    ],
)
def test_what_differs_is_the_verdict_or_else_what_follows(old: Any, new: Any, words: str) -> None:
    assert difference(effect(**old), effect(**new)) == words


def test_another_rule_counts_only_when_asked_for() -> None:
    by_policy = effect(decided=(POLICY,))
    assert change(0, effect(), by_policy) is None
    assert sure(change(0, effect(), by_policy, rules=True)).kind == "accept, by another rule"


def test_chance_decides_about_no_change() -> None:
    assert change(0, DROPPED, effect(by_chance="numgen random")) is None


def test_groups_have_the_simplest_packet() -> None:
    found = [sure(change(n, DROPPED, effect(), port=port)) for n, port in enumerate((8080, 80, 443))]
    found.append(sure(change(3, effect(), DROPPED)))
    one, other = grouped(found, lambda witness: len(repr(witness.sends)))
    assert (one.kind, one.packets, one.witness.sends[0]["tcp"]["dport"]) == ("drop → accept", 3, 80)
    assert str(one.old) == "old.nft:3: policy drop"
    assert str(one.new) == "new.nft:7: tcp dport 80 accept"
    assert other.kind == "accept → drop"


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


def test_what_was_met_counts_only_for_the_same_rules() -> None:
    one, same, other = book("a.nft"), book("a.nft"), book("a.nft", "tcp dport 81 accept")
    same.met = {RULE}
    other.met = {POLICY}
    one.add(same)
    one.add(other)
    assert one.met == {RULE}


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


def test_approved_changes_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "accepted.yaml"
    assert accepted.read(file) == []
    one = sure(change(0, DROPPED, effect()))
    accepted.write(file, [one])
    accepted.write(file, [one])
    assert accepted.read(file) == [one.key]
    assert one.key == ("drop → accept", "inet t forward: policy drop", "inet t forward: tcp dport 80 accept")
    file.write_text("accepted:\n  - {change: x}\n")
    with pytest.raises(HarnessError, match=r"accepted.yaml:2:5: is not a change"):
        accepted.read(file)


def test_a_revision_is_unpacked_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, folder = tmp_path / "project", tmp_path / "unpacked"
    (project / "rulesets").mkdir(parents=True)
    folder.mkdir()
    file = project / "rulesets/fw.nft"
    file.write_text("# old\n")
    (project / "away").symlink_to("/etc/passwd")
    monkeypatch.chdir(project)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q", "."], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    file.write_text("# new\n")
    ((old, new),) = sides.at_revision("HEAD", ["rulesets/fw.nft"], folder)
    assert [one.files.paths[0].read_text() for one in (old, new)] == ["# old\n", "# new\n"]
    assert old.name == "rulesets/fw.nft at HEAD"
    assert not (folder / "away").exists()
    (project / "later.nft").touch()
    with pytest.raises(HarnessError, match=r"later.nft does not exist in HEAD"):
        sides.at_revision("HEAD", ["later.nft"], folder)
    with pytest.raises(HarnessError, match=r"git has no revision none"):
        sides.at_revision("none", ["rulesets/fw.nft"], folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.nft"], "two rulesets are compared, and 1 is named"),
        (["a.nft", "none.nft"], "none.nft is neither a file nor a folder"),
        (["a.nft", "empty"], "empty has no file NAME.nft"),
        (["a.nft", "--permute"], "--permute is about several files"),
        (["a.nft", "--optimize", "--permute"], "--base, --optimize, --permute and --kernels are about different sides"),
        (["a.nft", "--approve"], "--approve needs a file"),
        (["a.nft", "--base", "main"], "git rev-parse: not a git repository"),
        (["a.nft", "a.nft", "--accept", "a.yaml"], "a.yaml:1:1: has no list accepted:"),
        (["a.nft", "a.nft", "--save", "a.yaml"], "a.yaml is not called scenarios/*.yaml"),
        (
            ["a.nft", "--optimize", "--save", "scenarios/a.yaml"],
            "--save writes scenarios of a ruleset that is one file",
        ),
        (
            ["a.nft", "--kernels", "6.1", "7.2", "--sift", "host"],
            "--kernels compares two kernels, and this machine has",
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Callable[[Sequence[str], str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "a.nft").touch()
    (tmp_path / "a.yaml").write_text("x: 1\n")
    (tmp_path / "empty").mkdir()
    refuses(["diff", *arguments], words)
