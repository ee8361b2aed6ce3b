from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import COMMANDS, main


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
