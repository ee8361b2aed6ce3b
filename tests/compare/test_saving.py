"""Where ``diff --save`` can write scenarios; what it writes is as tests/batch/test_saving.py has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compare.saving import refuse
from harness.compare.sides import Side
from harness.errors import HarnessError
from harness.project import Project
from harness.scenario.case import Files


def side(*names: str, is_made: bool = False) -> Side:
    return Side("new", Files(tuple(Path(name) for name in names), Project(root=Path("/p"))), is_made)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_scenarios_of_one_file_can_be_written(project: Path) -> None:
    refuse(Path("scenarios/a.yaml"), side("/p/a.nft"))


@pytest.mark.parametrize("new", [side("/p/a.nft", "/p/b.nft"), side("/p/a.nft", is_made=True)])
def test_a_ruleset_that_no_scenario_can_name_is_refused(new: Side, project: Path) -> None:
    with pytest.raises(HarnessError, match="--save writes scenarios of a ruleset that is one file, and new is not"):
        refuse(Path("scenarios/a.yaml"), new)


def test_a_name_that_pytest_would_not_take_is_refused(project: Path) -> None:
    with pytest.raises(HarnessError, match="is not called"):
        refuse(Path("a.yaml"), side("/p/a.nft"))


def test_a_file_in_which_something_is_wrong_is_refused(project: Path) -> None:
    (project / "scenarios").mkdir()
    (project / "scenarios/a.yaml").write_text("ruleset: [a.nft\n")
    with pytest.raises(HarnessError, match="no scenario can be added to a file in which something is wrong"):
        refuse(Path("scenarios/a.yaml"), side("/p/a.nft"))
