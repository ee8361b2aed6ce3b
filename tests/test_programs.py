"""Programs that a user names: what a shell says of those that it cannot start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.programs import NotRunnable, refuse_not_runnable


@pytest.mark.parametrize(
    ("program", "status", "sentence"),
    [
        ("nowhere", 127, "nowhere: command not found"),
        ("./nowhere", 127, "./nowhere: command not found"),
        ("", 127, "the command is empty"),
        ("./data", 126, "./data: is not executable"),
        ("data", 126, "data: is not executable"),
        ("./folder", 126, "./folder: is a directory"),
    ],
)
def test_a_program_that_cannot_be_started_has_a_shells_status(
    program: str, status: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    Path("data").touch()
    Path("folder").mkdir()
    with pytest.raises(NotRunnable) as found:
        refuse_not_runnable(program)
    assert (found.value.status, str(found.value)) == (status, sentence)
    if program:
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
        assert subprocess.run(["/bin/bash", "-c", '"$0"', program], capture_output=True).returncode == status


def test_a_program_is_looked_for_where_it_is_asked_for(tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    refuse_not_runnable("mine", str(tmp_path))
    refuse_not_runnable(str(program))
    with pytest.raises(NotRunnable):
        refuse_not_runnable("mine", "/nowhere")
