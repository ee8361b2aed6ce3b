from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.config.findpaths import determine_setup

from harness.errors import ScenarioError
from harness.project import find


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_settings_beside_the_scenarios_of_a_stranger_count_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, pytest_DOT_ini="", scenarios__evil__s_DOT_yaml="")
    for name, text in (
        ("tox.ini", "[pytest]\nnft_allow = /\n"),
        ("pytest.ini", "[pytest]\nnft_allow = /\n"),
        ("setup.cfg", "[tool:pytest]\nnft_allow = /\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\nnft_allow = ['/']\n"),
        (".pytest.ini", "[pytest]\nnft_allow = /\n"),
    ):
        file = tmp_path / "scenarios/evil" / name
        file.write_text(text)
        for here in (tmp_path, tmp_path / "scenarios", Path("/")):
            for path in (tmp_path / "scenarios/evil/s.yaml", tmp_path / "scenarios/evil", tmp_path / "scenarios"):
                found = find([path], here)
                assert found.root == tmp_path
                assert not found.allows(Path("/etc/passwd"))
        file.unlink()


def test_a_folder_that_looks_like_a_root_gives_no_more_than_itself(tmp_path: Path) -> None:
    write(tmp_path, scenarios__s_DOT_yaml="", other_DOT_nft="")
    (tmp_path / "scenarios/.git").mkdir()
    found = find([tmp_path / "scenarios/s.yaml"], tmp_path)
    assert found.root == tmp_path / "scenarios"
    assert not found.allows(tmp_path / "other.nft")


def test_without_any_settings_it_is_the_current_folder_or_that_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, a__scenarios__s_DOT_yaml="", b__x="")
    file = tmp_path / "a/scenarios/s.yaml"
    assert find([file], tmp_path / "a").root == tmp_path / "a"
    assert find([file], tmp_path / "b").root == file.parent
    assert find([], tmp_path / "b").root == tmp_path / "b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", ""),
        (".pytest.ini", "[pytest]\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\n"),
        ("pyproject.toml", "[project]\n"),
        ("tox.ini", "[pytest]\n"),
        ("tox.ini", "[tox]\n"),
        ("setup.cfg", "[tool:pytest]\n"),
        ("setup.py", ""),
    ],
)
@pytest.mark.parametrize("here", [".", "scenarios", "other"])
def test_the_root_is_that_of_pytest(tmp_path: Path, name: str, text: str, here: str) -> None:
    write(tmp_path, scenarios__deep__s_DOT_yaml="", other__x="", pytest_DOT_ini="")
    (tmp_path / "pytest.ini").unlink()
    (tmp_path / name).write_text(text)
    path = tmp_path / "scenarios/deep/s.yaml"
    root, inipath, *_ = determine_setup(
        inifile=None,
        args=[str(path)],
        rootdir_cmd_arg=None,
        invocation_dir=tmp_path / here,
        override_ini=None,
    )
    found = find([path], tmp_path / here)
    if inipath and name != "pyproject.toml":
        assert found.settings == inipath
    if (inipath or name == "setup.py") and here != "other":
        assert found.root == root


def test_a_folder_behind_a_link_is_where_it_really_is(tmp_path: Path) -> None:
    write(tmp_path, real__pytest_DOT_ini="", real__scenarios__s_DOT_yaml="")
    (tmp_path / "link").symlink_to("real")
    found = find([tmp_path / "link/scenarios/s.yaml"], tmp_path / "link")
    assert found.root == tmp_path / "real"


def test_values_are_read_as_pytest_reads_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        tox_DOT_ini="[pytest]\nnft_allow = ../a '../b c'\n  d\nnft_files = x/*.yaml fw-*.yml\n",
    )
    found = find([], tmp_path)
    assert found.allowed == (tmp_path.parent / "a", tmp_path.parent / "b c", tmp_path / "d")
    assert found.patterns == ("x/*.yaml", "fw-*.yml")


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name, text in (
        ("pyproject.toml", b"[tool.pytest\n"),
        ("pytest.ini", b"no section\n"),
        ("tox.ini", b"[pytest]\nx = \xff\n"),
        ("pyproject.toml", b"x = " + b"[" * 100_000),
    ):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(ScenarioError, match=f"{name}: cannot be read"):
            find([], tmp_path)
        (tmp_path / name).unlink()
