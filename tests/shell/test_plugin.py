from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest, without a terminal."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True
    )


@pytest.mark.parametrize("option", ["--nft-shell", "--nft-lab-only"])
def test_a_shell_needs_a_terminal(option: str) -> None:
    done = run(option, str(SCENARIOS / "edge.yaml"), "-k", "nothing")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    remedy = "nft-harness lab enter FILE -- COMMAND runs a command without one"
    assert f"nft-harness: {option} needs a terminal; {remedy}" in done.stderr


def test_there_is_no_lab_without_scenarios(tmp_path: Path) -> None:
    done = run("--nft-lab-only", str(tmp_path))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--nft-lab-only needs a scenario file" in done.stderr
