"""A first scenario file for the twin of a machine, and its scenarios."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.linux import features
from harness.twin import collect

MACHINES = ["bridge", "router"]
IN_LONG_FORM = ["cloud", "dial-up", "docker", "ipv6-only", "iptables", "podman", "policy-routing"]
TRACEPOINTS = ("--nft-tracer", "tracepoints")


def call(module: str, *arguments: str, folder: Path) -> str:
    """What a command prints in ``folder``."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NFT_"))},
        check=False,
    )
    return ran.stdout


@pytest.mark.parametrize("name", [*MACHINES, *(IN_LONG_FORM if "NFT_SOAK_MINUTES" in os.environ else [])])
def test_every_scenario_of_init_for_a_twin_passes(name: str, built: Callable, tmp_path: Path) -> None:
    """From what the script prints on the machine on; natively, where that is possible without functions."""
    if os.geteuid():
        pytest.skip("needs root, for network namespaces")
    if not (able := features.tracepoints()).able:
        pytest.skip(able.reason)
    machine = built(name)
    machine.load()
    (tmp_path / "fw1.txt").write_text(machine.run(["sh", "-s"], collect.script()))
    call("harness.cli", "twin", "--from", "fw1.txt", "-o", "fw1", folder=tmp_path)
    (lab,) = (tmp_path / "fw1/labs").glob("*.yaml")
    first = re.search(r"in the order of loading: (.+)", lab.read_text())
    assert first is not None
    rulesets = first[1].replace(", ", ",")
    said = call(
        "harness.cli", "init", rulesets, "--lab", f"labs/{lab.name}", "--kernel", "host", *TRACEPOINTS,
        folder=tmp_path / "fw1",
    )  # fmt: skip
    written = re.search(r"scenarios for (\d+) of (\d+) rules and policies$", said.strip())
    assert written is not None, said
    if name in MACHINES:
        assert written[1] == written[2], said
    ran = call("pytest", "--nft-kernel", "host", *TRACEPOINTS, folder=tmp_path / "fw1")
    assert re.search(r"^=+ \d+ passed in ", ran, re.M), ran
