"""What the documentation says is there: pages, links, examples, options, commands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

from harness import cli
from harness.scenario.problems import problems

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path for folder in (ROOT, *(ROOT / name for name in ("docs", "scenarios", "bench"))) for path in folder.glob("*.md")
)
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
EVERYTHING = "\n".join(text for name, text in TEXT.items() if name != "CHANGELOG.md")


def tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_somewhere(page: str) -> None:
    for token in tokens(TEXT[page]):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not target or re.match(r"[a-z]+:", target):
            continue
        # Headings within docs/ are Sphinx's to look for, below.
        assert ((ROOT / page).parent / target.partition("#")[0]).exists(), f"{page}: {target} does not exist"


@pytest.mark.parametrize("page", [name for name in TEXT if name != "CHANGELOG.md"])
def test_files_of_the_project_that_a_page_names_are_there(page: str) -> None:
    for named in re.findall(r"`((?:harness|tests|bpf|bench|docs|ci)/[\w./-]+)", TEXT[page]):
        assert (ROOT / named).exists(), f"{page}: {named} does not exist"


def examples() -> Iterator[tuple[str, str]]:
    """Everything in YAML, with its place."""
    for page, text in TEXT.items():
        for token in tokens(text):
            if token.type == "fence" and token.info == "yaml" and token.map:
                yield f"{page}:{token.map[0] + 1}", token.content


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=place) for place, text in examples() if re.search("^scenarios:", text, re.M)]
)
def test_examples_of_scenario_files_are_right(text: str, tmp_path: Path) -> None:
    (tmp_path / ".git").touch()
    for name in re.findall(r"[\w./-]+\.nft\b", text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (file := tmp_path / "example.yaml").write_text(text)
    assert problems(file) == ()


def test_examples_in_yaml_are_yaml() -> None:
    for place, text in examples():
        assert YAML(typ="safe").load(text) is not None, place


def test_options_are_those_of_pytest() -> None:
    helped = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True
    ).stdout
    there = set(re.findall(r"--nft-[a-z-]*[a-z]", helped))
    reported = set(re.findall(r"--nft-[a-z-]*[a-z]", EVERYTHING))
    assert reported - there == set(), "the documentation names options that are not there"
    assert there - reported == set(), "there are options that the documentation does not name"


def test_commands_are_those_of_the_program() -> None:
    there = {command.__name__ for command in cli.COMMANDS}
    # What podman is given first is the name of an image, which is nft-harness as well.
    text = re.sub(r"\bpodman run (?:\S+ )*?nft-harness ", "", "\n".join(code(EVERYTHING)))
    reported = set(re.findall(r"\bnft-harness ([a-z]+)", text))
    assert reported - there == set(), "the documentation names commands that are not there"
    assert there - reported == set(), "there are commands that the documentation does not name"


def code(text: str) -> Iterator[str]:
    return (token.content for token in tokens(text) if token.type in ("fence", "code_inline", "code_block"))


def test_the_site_can_be_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-n", "docs", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "scenarios.html").exists()


def test_the_guide_to_the_scenarios_names_each_file() -> None:
    files = {path.name for path in (ROOT / "scenarios").glob("*.yaml")}
    assert files == set(re.findall(r"\]\(([\w-]+\.yaml)\)", TEXT["scenarios/README.md"]))
