"""The rooms of docs/architecture.md and the contracts that import-linter checks say the same; tests mirror rooms."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

MODELS = "a model of the language: tests/scenario/test_schema.py and the files of tests/scenario/broken/"
IN_A_LAB = "needs a kernel: "
WITHOUT_TESTS_OF_THEIR_OWN = {
    "scenario/models/actions.py": MODELS,
    "scenario/models/expect.py": MODELS,
    "scenario/models/sockets.py": MODELS,
    "packets/spec.py": MODELS,
    "topology/interfaces.py": MODELS,
    "topology/spec.py": MODELS,
    "scenario/check.py": "each refusal is a file of tests/scenario/broken/, which test_problems.py reads",
    "scenario/check_expect.py": "as check.py",
    "scenario/validate.py": "as check.py",
    "batch/messages.py": "plain values",
    "batch/stage.py": "a protocol and settings of the kernel: tests/batch/test_measure.py",
    "mutate/messages.py": "plain values",
    "recording/sample.py": "plain values",
    "cli/statuses.py": "constants",
    "cli/rulesets.py": "arguments, passed on: the commands' own tests call main()",
    "cli/twins.py": "as cli/rulesets.py: tests/twin/test_command.py",
    "linux/btf_types.py": "read through its questions: tests/linux/test_btf.py",
    "vm/debian.py": "called by images.fetch(): tests/vm/test_images.py has an archive for it",
    "lab/changes.py": IN_A_LAB + "scenarios/failover.yaml, and what is planned: tests/topology/test_changes.py",
    "lab/wireguard.py": IN_A_LAB + "scenarios/wireguard.yaml, and what is planned: tests/topology/test_tunnels.py",
    "tracer/tracer.py": IN_A_LAB + "tests/tracer/test_identity.py",
    "tracer/base.py": IN_A_LAB + "tests/tracer/test_identity.py and test_engines.py",
    "batch/effects.py": IN_A_LAB + "tests/batch/test_measure.py",
    "batch/sift.py": IN_A_LAB + "tests/batch/test_measure.py and tests/mutate/test_stage.py",
    "mutate/measure.py": IN_A_LAB + "tests/mutate/test_command.py",
    "mutate/ruleset.py": IN_A_LAB + "tests/mutate/test_command.py",
    "mutate/saving.py": IN_A_LAB + "tests/mutate/test_command.py",
    "warm/learning.py": IN_A_LAB + "tests/vm/test_making.py",
}
"""Modules of which no test file has the name, and the reason."""


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


def test_every_module_has_its_tests_beside_it_or_a_reason() -> None:
    harness = ROOT / "harness"
    modules = {path.relative_to(harness) for path in harness.rglob("*.py") if not path.name.startswith("__")}
    untested = {str(path) for path in modules if not (ROOT / "tests" / path.with_name(f"test_{path.name}")).exists()}
    assert untested == WITHOUT_TESTS_OF_THEIR_OWN.keys()


def test_the_reasons_name_what_is_there() -> None:
    for reason in WITHOUT_TESTS_OF_THEIR_OWN.values():
        for name in re.findall(r"(?:tests|scenarios)/[\w./]+\w", reason):
            assert (ROOT / name).exists(), name


def test_what_mutmut_changes_and_runs_is_there() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    for name in settings["only_mutate"] + settings["pytest_add_cli_args_test_selection"] + settings["also_copy"]:
        assert list(ROOT.glob(name)), name
