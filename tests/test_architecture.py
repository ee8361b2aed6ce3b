"""The rooms of docs/architecture.md and the contracts that import-linter checks say the same; tests mirror rooms."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_of_rooms_is_the_contract_of_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (rooms,) = (one for one in settings["contracts"] if one["name"] == "rooms")
    contract = [layer.split(" | ") for layer in rooms["layers"]]
    section = (ROOT / "docs/architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.M)
    assert [re.findall(r"`([^`]+)`", cell) for cell in cells] == contract


def test_every_room_exists() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (rooms,) = (one for one in settings["contracts"] if one["name"] == "rooms")
    named = {room for layer in rooms["layers"] for room in layer.split(" | ")}
    package = ROOT / "harness"
    there = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == there - {"__init__"}


def test_the_classes_of_the_glossary_exist() -> None:
    page = (ROOT / "docs/glossary.md").read_text()
    for name in re.findall(r"`(harness(?:\.\w+)+\.[A-Z]\w+)`", page):
        module, _, found = name.rpartition(".")
        assert hasattr(importlib.import_module(module), found), name


def test_no_test_file_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                names = [part for one in node.names for part in f"{module}.{one.name}".split(".")]
                assert not [name for name in names if name.startswith("test_")], (path, node.lineno)


def test_every_folder_of_tests_is_a_room() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    folders -= {Path("truth")}  # tests all rooms at once
    assert not [folder for folder in folders if not (ROOT / "harness" / folder).is_dir()]


def test_what_mutmut_changes_and_runs_is_there() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    for name in settings["only_mutate"] + settings["pytest_add_cli_args_test_selection"] + settings["also_copy"]:
        assert list(ROOT.glob(name)), name
