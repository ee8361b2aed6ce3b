"""Commands about this machine and its kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_list_shows_what_can_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["6.1", "6.12", "7.2"]
    assert "default" in lines[1]
    assert all(line.endswith(f"nft-harness kernels fetch {line.split()[0]}") for line in lines)
