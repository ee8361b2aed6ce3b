"""Results survive being stored, or are refused with a sentence."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.cli import main
from harness.errors import HarnessError, Position
from harness.model import result, stored_results
from harness.model.result import Result

Make = Callable[..., Result]


def test_a_result_is_read_as_it_was_stored(tmp_path: Path, make_result: Make) -> None:
    stored = [make_result("one"), make_result("two", accepted=False, outcome="failed", line=9)]
    result.store(stored, tmp_path / "new" / "folder")
    assert list(stored_results.load([tmp_path / "new" / "folder"])) == stored


def test_every_scenario_and_kernel_has_a_file_of_its_own(tmp_path: Path, make_result: Make) -> None:
    names = ["a b", "a/b", "a" * 300, "a" * 300 + "b", "ünïcödé " * 40]
    stored = [make_result(name, kernel=kernel) for name in names for kernel in ("6.1", "6.12")]
    result.store(stored, tmp_path)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_second_run_replaces_what_the_first_stored(tmp_path: Path, make_result: Make) -> None:
    result.store([make_result()], tmp_path)
    result.store([make_result(outcome="failed")], tmp_path)
    assert [one.outcome for one in stored_results.load([tmp_path])] == ["failed"]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[1]", b'{"version": 1}', b'{"version": 1, "id": 3}', b"\xff", b"{" * 99]
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(text)
    with pytest.raises(HarnessError, match=r"broken\.json is not a stored result: .*; run the scenarios again"):
        stored_results.load([file])


def test_another_version_is_refused(make_result: Make) -> None:
    text = result.encode(msgspec.structs.replace(make_result(), version=99))
    with pytest.raises(HarnessError, match="version 99, and this nft-harness reads version 1"):
        result.decode(text)


def sent(**changes: Any) -> Callable[[Result], Result]:
    """The result with a first step that is changed so."""
    return lambda one: msgspec.structs.replace(one, sent=(msgspec.structs.replace(one.sent[0], **changes),))


def packets(*changes: dict[str, Any]) -> Callable[[Result], Result]:
    """The result with packets in its first step that are changed so."""

    def change(one: Result) -> Result:
        seen = one.sent[0].observation
        made = tuple(msgspec.structs.replace(seen.packets[0], **each) for each in changes)
        return sent(observation=msgspec.structs.replace(seen, packets=made))(one)

    return change


def lab(**changes: Any) -> Callable[[Result], Result]:
    def change(one: Result) -> Result:
        assert one.lab is not None
        return msgspec.structs.replace(one, lab=msgspec.structs.replace(one.lab, **changes))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (sent(packet=7), "step 1 is about packet 7, which it does not have"),
        (sent(action=-1), "step 1 has the number -1"),
        (packets({}, {}), "step 1 has two packets with the same number"),
        (packets({"born": -1}), "packet 0 of step 1 has an impossible time"),
        (packets({"born": 1 << 62}), "packet 0 of step 1 has an impossible time"),
        (lab(device="nobody"), "the lab has no host 'nobody', which is the device under test"),
        (lab(hosts=("client", "device", "server", "server")), "the lab has two hosts with the same name"),
        (lab(hosts=("device", "server")), "an interface of the lab leads from 'client' to 'device'"),
        (
            lambda one: msgspec.structs.replace(one, position=Position("a.yaml", -1)),
            "a position has an impossible line",
        ),
        (
            lambda one: msgspec.structs.replace(one, where=Position("a.nft", 1 << 31)),
            "a position has an impossible line",
        ),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(
    make_result: Make, change: Callable[[Result], Result], words: str
) -> None:
    text = result.encode(change(make_result()))
    with pytest.raises(HarnessError, match=re.escape(f"a.json is not a stored result: {words}")):
        result.decode(text, "a.json")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="holds no stored results"):
        stored_results.load([tmp_path])
    with pytest.raises(HarnessError, match="cannot be read: no such file or directory"):
        stored_results.load([tmp_path / "missing"])


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="results can't be stored in"):
        result.store([make_result()], tmp_path / "file" / "folder")


def test_the_rulesets_text_is_kept_as_it_was_in_the_run(tmp_path: Path, make_result: Make) -> None:
    made = make_result()
    bare = msgspec.structs.replace(made, ruleset=msgspec.structs.replace(made.ruleset, texts={}))
    (tmp_path / "rulesets").mkdir()
    (tmp_path / "rulesets/edge.nft").write_text("as it was")
    known: dict[str, str | None] = {}
    first = result.with_texts(bare, tmp_path, known)
    (tmp_path / "rulesets/edge.nft").write_text("changed since")
    second = result.with_texts(bare, tmp_path, known)
    assert first.ruleset is not None
    assert second.ruleset is not None
    assert first.ruleset.texts == second.ruleset.texts == {"rulesets/edge.nft": "as it was"}


class TestOfAStranger:
    @pytest.mark.parametrize("name", ["/dev/zero", "/etc/passwd", "../secret", "link", "fifo", "a\0b"])
    def test_no_file_outside_of_the_project_is_opened(
        self, tmp_path: Path, make_result: Make, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (project := tmp_path / "project").mkdir()
        (project / "pytest.ini").touch()
        (tmp_path / "secret").write_text("secret")
        (project / "link").symlink_to(tmp_path / "secret")
        os.mkfifo(project / "fifo")
        made = make_result()
        for guess in ("secret", "no secret"):
            named = msgspec.structs.replace(made.ruleset, file=name, texts={name: guess})
            guessed = result.changed([msgspec.structs.replace(made, ruleset=named)], project)
            assert guessed == ([name] if name == "fifo" else [])
        filled = result.with_texts(msgspec.structs.replace(made, ruleset=named), project, {})
        assert filled.ruleset is not None
        assert not filled.ruleset.texts

    def test_every_report_ends_in_a_report_or_a_sentence(
        self, tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        whole = msgspec.json.decode(result.encode(make_result(accepted=False, outcome="failed")))
        kinds = [
            f"--{kind}=out-{kind}" for kind in ("html", "jsonl", "summary", "gitlab", "sarif", "pcapng", "cov-lcov")
        ]
        for change in list(_changes(whole))[::23]:
            Path("one.json").write_bytes(msgspec.json.encode(change))
            status = main(["report", "one.json", *kinds])
            said = capsys.readouterr().err
            assert status == 0 or (status == 2 and "nft-harness: error: " in said)


def _changes(whole: Any) -> Iterator[Any]:
    """A stored result with something taken away or exchanged, at each of its places."""

    def at(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield place
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from at(inner, (*place, key))
        elif isinstance(value, list) and value:
            yield from at(value[0], (*place, 0))

    for place in list(at(whole, ()))[1:]:
        *before, last = place
        for new in (None, [], {}, "", "\0", -1, 1 << 70, "x"):
            changed = copy.deepcopy(whole)
            around = changed
            for key in before:
                around = around[key]
            if type(around[last]) is type(new):
                around[last] = new
                yield changed


def test_the_ruleset_of_a_packet_is_stored_where_a_step_has_changed_it(make_result: Callable[..., Result]) -> None:
    first = make_result()
    assert first.ruleset is not None
    other = msgspec.structs.replace(first.ruleset, rules=first.ruleset.rules[1:])
    changed = msgspec.structs.replace(first.sent[0], action=2, ruleset=other)
    again = result.decode(result.encode(msgspec.structs.replace(first, sent=(*first.sent, changed))))
    assert [(len(plan.rules), [one.action for one in sent]) for plan, sent in again.by_ruleset()] == [
        (len(first.ruleset.rules), [0]),
        (len(other.rules), [2]),
    ]
    assert b'"action":2' in result.encode(again)


def test_rulesets_that_are_equal_are_one(make_result: Callable[..., Result]) -> None:
    first = make_result()
    assert first.ruleset is not None
    other = msgspec.structs.replace(first.ruleset, rules=first.ruleset.rules[1:])
    rulesets = (None, other, msgspec.structs.replace(other), msgspec.structs.replace(first.ruleset, texts={"a": "b"}))
    sent = tuple(
        msgspec.structs.replace(first.sent[0], action=number, ruleset=one) for number, one in enumerate(rulesets)
    )
    again = result.decode(result.encode(msgspec.structs.replace(first, sent=sent)))
    assert [[one.action for one in sent] for _, sent in again.by_ruleset()] == [[0, 3], [1, 2]]
