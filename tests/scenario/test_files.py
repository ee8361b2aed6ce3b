from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.project import PATTERNS, Project
from harness.scenario.files import choose, elsewhere, is_called_so

SCENARIO = "ruleset: edge.nft\nscenarios: []\n"
MANIFEST = "kind: ConfigMap\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in (
        ("scenarios/a.yaml", SCENARIO),
        ("scenarios/deep/b.yml", SCENARIO),
        ("scenarios/labs/office.yaml", "hosts: {}\nlinks: []\n"),
        ("scenarios/notes.txt", SCENARIO),
        ("scenarios/manifest.yaml", MANIFEST),
        ("scenarios/node_modules/x.yaml", SCENARIO),
        ("tests/c.yaml", SCENARIO),
        ("tests/manifest.yaml", MANIFEST),
    ):
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "project"


def names(root: Path, *arguments: str, patterns: tuple[str, ...] = PATTERNS) -> tuple[list[str], list[str]]:
    chosen = choose([f"{root}/{one}" for one in arguments], Project(root=root, patterns=patterns))
    return [str(one.relative_to(root)) for one in chosen.files], [
        str(one.relative_to(root)) for one in chosen.left_alone
    ]


def test_of_a_folder_those_are_taken_that_are_called_so(root: Path) -> None:
    assert names(root, ".") == (["scenarios/a.yaml", "scenarios/deep/b.yml"], ["scenarios/manifest.yaml"])
    assert names(root, "tests") == ([], [])


def test_what_looks_like_one_elsewhere_is_reported_unless_the_setting_is_set(root: Path) -> None:
    (root / "tests/c.yaml").write_text(
        "ruleset: edge.nft\nscenarios:\n  - {send: {from: client}, expect: {verdict: drop}}\n"
    )
    (root / "tests/cases.json.yaml").write_text("cases: []\nexpect: none\n")

    def found(argument: Path, project: Project) -> tuple[Path, ...]:
        return elsewhere(choose([str(argument)], project), project)

    assert found(root, Project(root=root)) == (root / "tests/c.yaml",)
    assert found(root, Project(root=root, patterns=("scenarios/*.yaml",))) == ()
    assert found(root / "tests/c.yaml", Project(root=root)) == ()


def test_a_named_file_is_taken_anywhere(root: Path) -> None:
    assert names(root, "tests/c.yaml") == (["tests/c.yaml"], [])
    assert names(root, "tests/c.yaml::a-scenario") == (["tests/c.yaml"], [])
    assert names(root, "tests/manifest.yaml") == ([], ["tests/manifest.yaml"])
    assert names(root, "scenarios/notes.txt") == ([], [])


def test_a_file_that_is_named_and_called_so_is_taken_whatever_it_is(root: Path) -> None:
    assert names(root, "scenarios/manifest.yaml") == (["scenarios/manifest.yaml"], [])


def test_the_setting_says_how_scenario_files_are_called(root: Path) -> None:
    assert names(root, ".", patterns=("tests/*.yaml",)) == (["tests/c.yaml"], ["tests/manifest.yaml"])
    assert names(root, ".", patterns=("b.*",)) == (["scenarios/deep/b.yml"], [])
    assert names(root, ".", patterns=("scenarios/**/a.yaml",)) == (["scenarios/a.yaml"], [])


def test_folders_above_the_project_say_nothing(tmp_path: Path) -> None:
    root = tmp_path / "scenarios/project"
    assert not is_called_so(root / "compose.yaml", Project(root=root))
    assert is_called_so(tmp_path / "scenarios/edge.yaml", Project(root=tmp_path / "scenarios"))


def test_what_cannot_be_read_is_left_to_who_reads_it(root: Path) -> None:
    os.mkfifo(root / "scenarios/fifo.yaml")
    (root / "scenarios/binary.yaml").write_bytes(b"\xff\0")
    (root / "scenarios/link.yaml").symlink_to("/etc/passwd")
    taken, _ = names(root, "scenarios")
    assert {"scenarios/fifo.yaml", "scenarios/binary.yaml", "scenarios/link.yaml"} <= set(taken)
