"""The action for GitHub and the job for GitLab: they are what their readers take, and their commands work.

The commands run as they stand in the files, in a repository that has nothing but a ruleset and its scenarios.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from harness import cache
from harness.vm import images

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", "action.yml"),
        ("vendor.gitlab-ci", "ci/gitlab.yml"),
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/idea.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_the_files_have_the_form_that_is_read(schema: str, file: str) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(ROOT / file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def load(file: str) -> Any:
    return YAML(typ="safe").load((ROOT / file).read_text())


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    """This repository as others get it, with what is not yet committed."""
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("needs git and a checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (place := tmp_path / "harness" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path / "harness")]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    return tmp_path / "harness"


def bash(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``script`` as the runners do: what fails ends it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GITHUB_", "NFT_"))}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**kept, "XDG_CACHE_HOME": str(cache.cache_dir().parent), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_action_runs_the_scenarios_of_another_repository(harness: Path, project: Path, tmp_path: Path) -> None:
    if not (shutil.which("qemu-system-x86_64") and images.find(images.DEFAULT)):
        pytest.skip("needs QEMU and a kernel image; ./run exec nft-harness doctor has the details")
    action = load("action.yml")
    inputs = {name: one["default"] for name, one in action["inputs"].items()}
    (tmp_path / "temp").mkdir()
    github = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION_PATH": str(harness),
        "GITHUB_WORKSPACE": str(project),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "RUNNER_TEMP": str(tmp_path / "temp"),
    }
    said = []
    for step in (one for one in action["runs"]["steps"] if "run" in one):
        own = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) }}", lambda found: inputs[found[1]], value)
            for name, value in step.get("env", {}).items()
        }
        said.append(bash(step["run"], project, {**github, **own}))
    install, run = said
    assert install.returncode == 0, install.stderr
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed, 1 passed" in run.stdout
    assert re.search(r"^::error file=scenarios/edge.yaml,line=8,col=23,title=HTTPS is refused::", run.stdout, re.M)
    assert re.search(r"^::warning file=scenarios/edge.nft,line=4,", run.stdout, re.M)
    assert "1 failed, 1 passed" in (tmp_path / "summary.md").read_text()
    reports = {file.name for file in (project / inputs["reports"]).iterdir()}
    assert reports == {"junit.xml", "report.html", "nft.sarif", "cobertura.xml"}


def test_the_job_sets_up_and_finds_the_scenarios_of_another_repository(
    harness: Path, project: Path, tmp_path: Path
) -> None:
    job = load("ci/gitlab.yml")["nft-harness"]
    (tmp_path / "home").mkdir()
    gitlab = {
        **{name: value for name, value in job["variables"].items() if name != "XDG_CACHE_HOME"},
        "NFT_HARNESS_REPOSITORY": f"file://{harness}",
        "NFT_HARNESS_ARGUMENTS": "scenarios --collect-only",
        "CI_PROJECT_DIR": str(project),
        "HOME": str(tmp_path / "home"),
    }
    done = bash("\n".join([*job["before_script"], *job["script"]]), project, gitlab)
    assert done.returncode == 0, done.stderr
    assert "2 tests collected" in done.stdout
    written = set(re.findall(r"nft-reports/[\w.-]+", " ".join(job["script"])))
    kinds = job["artifacts"]["reports"]
    assert {kinds["junit"], kinds["codequality"], kinds["coverage_report"]["path"]} < written

    unset = bash("\n".join(job["before_script"]), project, {**gitlab, "NFT_HARNESS_REPOSITORY": ""})
    assert "NFT_HARNESS_REPOSITORY: set it to the address of nft-harness" in unset.stderr


def test_the_hook_for_pre_commit_is_a_command(project: Path) -> None:
    (hook,) = YAML(typ="safe").load(ROOT / ".pre-commit-hooks.yaml")
    assert {"id", "name", "entry", "language"} <= hook.keys()
    names = ("scenarios/edge.yaml", "scenarios/rulesets/edge.nft", "fw/scenarios/a.yml", "other/edge.yaml")
    assert [bool(re.search(hook["files"], name)) for name in names] == [True, True, True, False]
    program, *arguments = hook["entry"].split()
    command = [str(Path(sys.executable).parent / program), *arguments, *hook["args"]]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "1 file, 2 scenarios OK\n")
