"""What is known of mutants is kept by ruleset and scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.mutate import known
from harness.mutate.known import KILLED, Known
from harness.scenario.case import Case, Files
from harness.scenario.load import load

RULESET = "table inet fw {\n\tchain forward { type filter hook forward priority 0; policy drop; }\n}\n"
FILE = """\
lab: router
ruleset: fw.nft
scenarios:
  - name: one
    send: {from: client, to: server, tcp: {dport: 22}}
    expect: {verdict: drop}
  - name: two
    send: {from: client, to: server, tcp: {dport: 23}}
    expect: {verdict: drop}
"""


def cases(folder: Path, text: str = FILE) -> list[Case]:
    (folder / "pytest.ini").touch()
    (folder / "fw.nft").write_text(RULESET)
    (folder / "fw.yaml").write_text(text)
    return [one for one in load(folder / "fw.yaml") if isinstance(one, Case)]


def test_a_scenario_is_known_by_what_it_does_and_not_by_its_place(tmp_path: Path) -> None:
    one, two = (known.digest(case) for case in cases(tmp_path))
    assert one != two
    moved = FILE.replace("scenarios:\n", "scenarios:\n\n\n").replace("name: one", "name: another")
    assert [known.digest(case) for case in cases(tmp_path, moved)] == [one, two]
    expecting = FILE.replace("{verdict: drop}", "{verdict: drop, rule: policy}", 1)
    assert known.digest(cases(tmp_path, expecting)[0]) != one
    elsewhere = FILE.replace("lab: router", "lab: router\ninterfaces: {wan0: eth9}")
    assert known.digest(cases(tmp_path, elsewhere)[0]) != one


def test_a_ruleset_is_known_by_its_files_and_those_that_they_include(tmp_path: Path) -> None:
    (case, *_) = cases(tmp_path)
    files = case.rulesets[case.network.device]
    first = known.name_of(files, "6.12")
    assert first == known.name_of(files, "6.12")
    assert first != known.name_of(files, "7.2")
    assert first != known.name_of(Files(files.paths, files.project, {"port": "22"}), "6.12")
    (tmp_path / "more.nft").write_text("table ip a {}\n")
    (tmp_path / "fw.nft").write_text(RULESET + 'include "./more.nft"\n')
    second = known.name_of(files, "6.12")
    assert second != first
    (tmp_path / "more.nft").write_text("table ip b {}\n")
    assert known.name_of(files, "6.12") != second


def test_what_was_kept_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = Known()
    kept.mutant("a").verdicts["one"] = f"{KILLED}verdict"
    known.write("some.msgpack", kept)
    found = known.read("some.msgpack")
    assert found.mutant("a").killed(["two", "one"]) == "one"
    assert found.mutant("a").killed(["two"]) == ""
    assert found.mutants.keys() == {"a"}
    (tmp_path / "nft-harness/mutants/some.msgpack").write_bytes(b"\x00nothing")
    assert known.read("some.msgpack") == Known()


def test_only_so_many_rulesets_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(known, "FILES_AT_MOST", 3)
    for number in range(6):
        known.write(f"{number}.msgpack", Known())
    assert len(list((tmp_path / "nft-harness/mutants").iterdir())) == 3
    assert (tmp_path / "nft-harness/mutants/5.msgpack").exists()
