"""A file is written as a whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.save import save


def test_text_and_bytes_are_written_and_folders_made(tmp_path: Path) -> None:
    save(tmp_path / "new" / "a.txt", "größer \ud800")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "größer \\ud800".encode()
    save(tmp_path / "new" / "a.txt", b"\x00")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_keeps_its_mode(tmp_path: Path, durable: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)
    save(tmp_path / "file", "x", durable=durable)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "file").read_text() == "x"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    save(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"


def test_a_link_does_not_lead_out_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "foreign").write_text("before")
    Path("file").symlink_to(tmp_path / "foreign")
    Path("folder").symlink_to("..")
    Path("new").symlink_to("../not-yet")
    for name in ("file", "folder/foreign", "new", str(tmp_path / "project/file")):
        with pytest.raises(OSError, match="outside of the current folder"):
            save(Path(name), "x")
    save(Path("../asked"), "x")  # the user's own words
    assert (tmp_path / "foreign").read_text() == "before"
    assert {one.name for one in tmp_path.iterdir()} == {"project", "foreign", "asked"}


def test_a_full_device_is_said() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        save(Path("/dev/full"), "x" * 10000)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: it needs no root."""
    (tmp_path / "report").write_text("before")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from harness.save import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "save(Path(sys.argv[1]), 'x' * 100000)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "report"], capture_output=True, text=True, check=False)
    assert "OSError" in run.stderr
    assert (tmp_path / "report").read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["report"]
