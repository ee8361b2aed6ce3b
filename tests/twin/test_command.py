"""The command, from the output of the script to files and differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli
from harness.twin import machine

NFT = """\
table inet filter { # handle 1
	set seen { # handle 2
		type ipv4_addr
		flags dynamic,timeout
		timeout 1h
		elements = { 192.0.2.66 expires 59m3s128ms,
				192.0.2.67 expires 1s }
	}

	chain input { # handle 3
		type filter hook input priority filter; policy drop;
		tcp dport 22 accept # handle 4
	}
}
"""


def output(nft: str = NFT, own: str = "192.0.2.10") -> str:
    links = json.dumps([{"ifname": "eth0", "flags": ["UP"]}])
    addresses = json.dumps([{"ifname": "eth0", "addr_info": [{"local": own, "prefixlen": 24}]}])
    lines = [machine.FORMAT]
    for name, text in (("host", "fw1 6.1"), ("links", links), ("addresses", addresses), ("nft", nft)):
        lines += [f"[{name}]", *(f"|{line}" for line in text.splitlines()), "|", "|=0"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fw1.txt").write_text(output())
    return tmp_path


def test_the_script_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["twin", "--script"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/sh\n")


def test_a_twin_is_compared_with_its_machine(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["twin", "--from", "fw1.txt"]) == 0
    assert "nft-harness ask --lab fw1/labs/fw1.yaml fw1/rulesets/fw1.nft 'near-eth0 > device" in capsys.readouterr().err
    assert cli.main(["twin", "--from", "fw1.txt", "--check", "fw1"]) == 0
    assert capsys.readouterr().out == ""
    moved = output(NFT.replace("handle 4", "handle 9").replace("192.0.2.67 expires 1s", "192.0.2.68 expires 2s"))
    (here / "fw1.txt").write_text(moved)
    assert cli.main(["twin", "--from", "fw1.txt", "--check", "fw1"]) == 0  # handles and such elements come and go
    (here / "fw1.txt").write_text(output(NFT.replace("tcp dport 22", "tcp dport { 22, 23 }"), own="192.0.2.11"))
    capsys.readouterr()
    assert cli.main(["twin", "--from", "fw1.txt", "--check", "fw1"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "interfaces.eth0: [192.0.2.10/24] → [192.0.2.11/24]" in said
    assert "+        tcp dport { 22, 23 } accept" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from", "none.txt"], "none.txt cannot be read"),
        (["--from", "/dev/null"], "/dev/null cannot be read: is a character device"),
        (["admin@fw1", "--from", "fw1.txt"], "--from and a machine exclude each other"),
        (["--from", "fw1.txt", "--check", "other"], "other/labs/fw1.yaml cannot be read"),
    ],
)
def test_what_is_refused(arguments: list[str], sentence: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["twin", *arguments]) == 2
    assert f"nft-harness: error: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["labs/fw1.yaml", "rulesets/fw1.nft"])
def test_a_stored_twin_shows_no_file_from_elsewhere(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["twin", "--from", "fw1.txt"]) == 0
    (here / "secret").write_text("hosts: TOPSECRET\n")
    (here / "fw1" / name).unlink()
    (here / "fw1" / name).symlink_to(here / "secret")
    capsys.readouterr()
    assert cli.main(["twin", "--from", "fw1.txt", "--check", "fw1"]) == 2
    said = capsys.readouterr()
    assert "TOPSECRET" not in said.out + said.err
    assert f"fw1/{name}" in said.err
