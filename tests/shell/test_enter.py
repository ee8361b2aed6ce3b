from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import HarnessError, ScenarioError
from harness.shell import enter
from harness.shell.enter import ShellRequest

EDGE = Path(__file__).parents[2] / "scenarios/edge.yaml"
KEEP = (
    "from harness.shell import enter; from pathlib import Path; "
    f"enter.keep(enter.ShellRequest(file=Path({str(EDGE)!r})))"
)
"""A program that leaves the lab of the first scenario."""


def test_a_scenario_is_found_by_name_and_by_id() -> None:
    first = enter.find(EDGE, "")
    assert first.name == "HTTPS from the Internet reaches the web server"
    assert enter.find(EDGE, first.id).id == enter.find(EDGE, first.name).id == first.id


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="has no scenario 'nope'; it has HTTPS-from"):
        enter.find(EDGE, "nope")
    with pytest.raises(HarnessError, match="the lab has no host pc; it has client, device, server"):
        enter.enter(ShellRequest(file=EDGE, host="pc"))
    with pytest.raises(ScenarioError, match="cannot be read"):
        enter.find(tmp_path / "none.yaml", "")


@pytest.mark.parametrize(
    ("arguments", "variable", "asked"),
    [([], "", "image"), ([], "host", "host"), (["--nft-program", "6.12"], "host", "6.12")],
)
def test_the_nft_on_the_host_is_the_one_asked_for(
    arguments: list[str], variable: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    monkeypatch.setenv("NFT_PROGRAM", variable)
    monkeypatch.setattr("harness.vm.placement.use_nft", used.append)
    monkeypatch.setattr(enter, "_here", lambda *_: 7)
    assert main(["lab", "enter", str(EDGE), "--kernel", "host", *arguments]) == 7
    assert used == [asked]


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "lab",
        "enter",
        f"{EDGE}::SSH-from-the-Internet-is-dropped-by-the-policy",
    ]
    return subprocess.run([*command, "--kernel", "host", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.kernel
def test_a_command_runs_in_a_host() -> None:
    done = lab("--", "sh", "-c", "ip -o link; nft list chain inet edge forward; exit 3")
    assert done.returncode == 3
    assert "wan0" in done.stdout
    assert "policy drop" in done.stdout
    assert "eth0" in lab("--host", "client", "--", "ip", "-o", "link").stdout


@pytest.mark.kernel
def test_a_shell_reads_commands_and_nothing_is_left() -> None:
    before = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    command = [sys.executable, "-m", "harness.cli", "lab", "enter", str(EDGE), "--kernel", "host"]
    done = subprocess.run(command, input="ip netns; exit 4\n", capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "You are in device" in done.stdout
    assert {"client", "device", "server"} <= {line.split()[0] for line in done.stdout.splitlines() if line}
    assert subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout == before
