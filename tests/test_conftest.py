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

from tests import leftovers

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


def test_what_is_left_in_the_cache_is_found(tmp_path: Path) -> None:
    assert leftovers.of(tmp_path) == set()
    for name in (
        "mine/a.msgpack",
        "mine/.b.part",
        "mutants/a.msgpack",
        "templates/c/ram",
        "kernels/6.1/vmlinuz",
        "d",
        "host/e",
        ".f.part",
    ):
        (one := tmp_path / "nft-harness" / name).parent.mkdir(parents=True, exist_ok=True)
        one.touch()
    assert leftovers.of(tmp_path) == {"mine", "mine/a.msgpack", "d"}


def test_a_run_that_leaves_something_in_the_cache_is_in_error(tmp_path: Path) -> None:
    """A run that has the conftest.py of these tests, and a cache folder of its own."""
    (folder := tmp_path / "tests").mkdir()
    for name in ("conftest.py", "leftovers.py"):
        (folder / name).symlink_to(ROOT / "tests" / name)
    (folder / "test_it.py").write_text(
        "from tests.conftest import CACHE\n\n\ndef test_it():\n    (CACHE / 'nft-harness/mine').mkdir(parents=True)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "tests"],
        cwd=tmp_path,
        env={**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "tests have left in the user's cache folder: ['mine']" in done.stdout, done.stdout + done.stderr
    assert "1 passed, 1 error" in done.stdout
