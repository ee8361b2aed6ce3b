"""Examples of each command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.cli import COMMANDS, main, parser
from harness.cli.examples import EXAMPLES


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


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
