from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from harness.cli import COMMANDS, main, parser
from harness.cli.examples import EXAMPLES


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_help_describes_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.__name__ in text
        assert command.__doc__


def test_a_wrong_command_line_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["kernel"], ["kernels"], ["kernels", "remove"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "usage: nft-harness" in capsys.readouterr().err


def test_an_error_is_one_sentence_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "fetch", "5.0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nft-harness: error: there is no kernel image '5.0'; use one of 6.1, 6.12, 7.2")
    assert err.count("\n") == 1


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.vm.images.images", interrupted)
    assert main(["kernels", "list"]) == 130


def test_the_list_shows_what_can_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["6.1", "6.12", "7.2"]
    assert "default" in lines[1]
    assert all(line.endswith(f"nft-harness kernels fetch {line.split()[0]}") for line in lines)


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


def test_each_command_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            main([command.__name__, "--help"])
        assert f"examples:\n  nft-harness {command.__name__}" in capsys.readouterr().out


def test_examples_are_command_lines_that_can_be_read() -> None:
    for command, text in EXAMPLES.items():
        for line in text.splitlines():
            words = shlex.split(re.sub(r"  +# .*", "", line))
            words = words[: next((place for place, word in enumerate(words) if word in (">", "|")), len(words))]
            assert words[:2] == ["nft-harness", command]
            known, rest = parser().parse_known_args(words[1:])
            assert callable(known.run)
            assert not [word for word in rest if word.startswith("-") and word != "--"], line
