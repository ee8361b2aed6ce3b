from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.kernel
def test_a_lab_that_is_kept_can_be_removed() -> None:
    for _ in range(2):  # the second time the names are taken
        done = subprocess.run([sys.executable, "-c", KEEP], capture_output=True, text=True, check=False)
    assert "network namespace nft-client exists already; nft-harness lab remove" in done.stderr
    links = subprocess.run(["ip", "-n", "nft-device", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "lan0" in links
    removed = subprocess.run(
        [sys.executable, "-m", "harness.cli", "lab", "remove"], capture_output=True, text=True, check=True
    )
    assert removed.stdout == "removed nft-client\nremoved nft-device\nremoved nft-server\n"


@pytest.mark.kernel
@pytest.mark.parametrize("alias", ["", "nft-harness lab nft-other", "of somebody else"])
def test_a_namespace_that_no_lab_left_is_not_removed(alias: str) -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", "nft-mine")
    try:
        if alias:
            ip("-n", "nft-mine", "link", "set", "lo", "alias", alias)
        file = Path("/run/netns/nft-file")
        file.touch()
        command = [sys.executable, "-m", "harness.cli", "lab", "remove"]
        removed = subprocess.run(command, capture_output=True, text=True, check=True)
        assert removed.stdout == ""
        assert file.exists()
        file.unlink()
        ip("netns", "exec", "nft-mine", "true")
    finally:
        ip("netns", "delete", "nft-mine")


@pytest.mark.kernel
def test_only_the_lab_goes_where_another_namespace_lies_over_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KEEP], check=True)
    subprocess.run(["ip", "netns", "add", "another"], check=True)
    try:
        subprocess.run(["mount", "--bind", "/run/netns/another", "/run/netns/nft-client"], check=True)
        command = [sys.executable, "-m", "harness.cli", "lab", "remove"]
        removed = subprocess.run(command, capture_output=True, text=True, check=True)
        assert removed.stdout == "removed nft-device\nremoved nft-server\n"
        subprocess.run(["umount", "/run/netns/nft-client"], check=True)
        removed = subprocess.run(command, capture_output=True, text=True, check=True)
        assert removed.stdout == "removed nft-client\n"
    finally:
        subprocess.run(["ip", "netns", "delete", "another"], check=True)
