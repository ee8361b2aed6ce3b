"""The conftest.py of the checkout: scenarios are found where nft-harness is not installed, and once where it is.

And that of tests/: what a property that did not hold reports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_a_failure_of_a_property_that_does_not_repeat_is_shown_whole(soak: Any) -> None:
    from hypothesis import strategies

    def holds_but_once(number: int) -> None:
        tried.append(number)
        if len(tried) == 5:
            error = AssertionError("the reference has accept, observed was drop")
            error.add_note(f"the ruleset of example {number}")
            raise error

    tried: list[int] = []
    with pytest.raises(BaseException) as caught:
        soak.holds(strategies.integers(), holds_but_once, 20)
    said = "\n".join(caught.value.__notes__)
    assert "NFT_SOAK_SEED=" in said
    assert "the reference has accept, observed was drop" in said
    assert f"the ruleset of example {tried[4]}" in said
