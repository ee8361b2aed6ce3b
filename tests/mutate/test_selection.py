"""The scenarios that pytest would run with the same arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.mutate.selection import select

SEND = "send: {from: client, to: server, tcp: {dport: 22}}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/edge.nft").touch()
    (tmp_path / "scenarios/edge.yaml").write_text(
        "ruleset: edge.nft\nscenarios:\n"
        f"- {{name: one, {SEND}, expect: {{verdict: drop}}}}\n"
        f"- {{name: two, {SEND}, expect: {{verdict: drop}}}}\n"
        "- {name: wrong, send: {from: clint, to: server, icmp: {}}, expect: {verdict: drop}}\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cases_broken_scenarios_and_other_tests_are_told_apart(project: Path) -> None:
    (project / "test_other.py").write_text("def test_other(): pass\n")
    found = select(["--nft-kernel", "host"])
    assert [case.name for case in found.cases] == ["one", "two"]
    assert len(found.broken) == 1
    assert "'clint' is not a host of the lab" in found.broken[0]
    assert (found.others, list(found.kernels)) == (1, ["host"])


def test_pytests_options_select(project: Path) -> None:
    found = select(["scenarios", "-k", "two", "--nft-kernel", "host"])
    assert ([case.name for case in found.cases], found.broken, found.others) == (["two"], [], 0)
    assert select(["-k", "nothing_at_all", "--nft-kernel", "host"]).cases == []


def test_what_pytest_refuses_is_a_sentence(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HarnessError, match=r"pytest could not collect the scenarios: .*unrecognized arguments"):
        select(["--no-such-option"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("edge.nft", "edge.nft is not a scenario file; name scenario files, folders of them, or FILE::NAME"),
        ("nowhere", "nowhere does not exist; name scenario files, folders of them, or FILE::NAME"),
        ("../nowhere.yaml", "../nowhere.yaml does not exist; "),
        ("scenarios/edge.yaml::three", "scenarios/edge.yaml has no scenario 'three'; "),
    ],
)
def test_a_path_that_names_no_scenario_is_a_sentence(path: str, sentence: str, project: Path) -> None:
    (project / "edge.nft").touch()
    with pytest.raises(HarnessError) as found:
        select([path])
    assert str(found.value).startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-k", "nothing_at_all"], "-k and -m leave out 3 scenarios, and none is left; give other words: "),
        (["-m", "nothing_at_all"], "-k and -m leave out 3 scenarios, and none is left; "),
        (["-k", "wrong"], "none of the selected scenarios can be run: scenarios/edge.yaml:5:30: send.from: "),
        (["empty"], "the selection has no scenarios; name scenario files, or folders in which they are called "),
        (["only.py"], "the selection has no scenarios, only 1 test in Python; name scenario files, "),
    ],
)
def test_a_selection_without_scenarios_is_refused_with_the_reason(
    arguments: list[str], sentence: str, project: Path
) -> None:
    (project / "empty").mkdir()
    (project / "only.py").write_text("def test_other(): pass\n")
    with pytest.raises(HarnessError) as found:
        select(arguments).refuse_none()
    assert str(found.value).startswith(sentence)
    select(["-k", "one"]).refuse_none()


def test_a_test_in_python_that_cannot_be_imported_leaves_the_scenarios(project: Path) -> None:
    (project / "test_lacking.py").write_text("import no_such_module\n")
    (project / "test_wrong.py").write_text("def test(:\n")
    found = select([])
    assert [case.name for case in found.cases] == ["one", "two"]
    assert sorted(found.unread) == [
        "test_lacking.py: ModuleNotFoundError: No module named 'no_such_module'",
        "test_wrong.py: SyntaxError: invalid syntax",
    ]


@pytest.mark.parametrize(
    ("conftest", "sentence"),
    [
        ("raise RuntimeError('no database')", r"ImportError while loading conftest '.*'\. RuntimeError: no database$"),
        ("def pytest_configure(config): raise KeyError('oops')", "the scenarios: KeyError: 'oops'$"),
    ],
)
def test_a_conftest_that_raises_is_said_with_what_it_raised(conftest: str, sentence: str, project: Path) -> None:
    (project / "conftest.py").write_text(f"{conftest}\n")
    with pytest.raises(HarnessError, match=sentence):
        select([])
