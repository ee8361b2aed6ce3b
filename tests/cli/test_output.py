"""Files that options name, and standard output."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.output import write
from harness.errors import HarnessError


def test_a_file_or_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "new" / "a.json", "[]")
    assert (tmp_path / "new/a.json").read_text() == "[]"
    for text in ("[]", "[]\n"):
        write(Path("-"), text)
        assert capsys.readouterr().out == "[]\n"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="can't be written: Is a directory"):
        write(tmp_path, "[]")
