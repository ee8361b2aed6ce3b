"""Completion for shells, and the manual page."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.cli import COMMANDS, main


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_each_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(command.__name__ in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["nft-harness", "dis"], ["discover"]),
        (["nft-harness", "check", "--form"], ["--format"]),
        (["nft-harness", "check", "--format", "sa"], ["sarif"]),
        (["nft-harness", "lab", "en"], ["enter"]),
        (["nft-harness", "check", "edg"], ["edge.yaml"]),
    ],
)
def test_what_bash_completes(
    words: list[str], completed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("shtab")
    main(["completion", "bash"])
    (tmp_path / "edge.yaml").touch()
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""{capsys.readouterr().out}
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
$(complete -p nft-harness | sed 's/.*-F \\(\\S*\\).*/\\1/') nft-harness '{words[-1]}' '{words[-2]}'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert [line.strip() for line in ran.stdout.splitlines()] == completed


def test_the_manual_has_each_command_with_its_examples(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("argparse_manpage")
    assert main(["manual"]) == 0
    text = capsys.readouterr().out.replace("\\-", "-")
    assert text.startswith('.TH NFT-HARNESS "1"')
    for command in COMMANDS:
        assert f"nft-harness {command.__name__}" in text
    assert "nft-harness check --format github scenarios/" in text
