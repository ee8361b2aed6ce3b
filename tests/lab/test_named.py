"""Names of hosts, and which of them are removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EDGE = Path(__file__).parents[2] / "scenarios/edge.yaml"


KEEP = (
    "from harness.shell import enter; from pathlib import Path; "
    f"enter.keep(enter.ShellRequest(file=Path({str(EDGE)!r})))"
)
"""A program that leaves the lab of the first scenario."""


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
