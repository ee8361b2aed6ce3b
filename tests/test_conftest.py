"""The conftest.py of the checkout: scenarios are found where nft-harness is not installed, and once where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("autoload", [True, False], ids=["installed", "not-installed"])
def test_scenarios_are_collected_once(autoload: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    if not autoload:  # entry points are not looked at, as if there were none
        environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "scenarios/edge.yaml"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert found
    assert len(found) == len(set(found))
