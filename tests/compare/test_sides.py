"""What is compared: files, folders, revisions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.compare import sides
from harness.errors import HarnessError


def test_a_revision_is_unpacked_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, folder = tmp_path / "project", tmp_path / "unpacked"
    (project / "rulesets").mkdir(parents=True)
    folder.mkdir()
    file = project / "rulesets/fw.nft"
    file.write_text("# old\n")
    (project / "away").symlink_to("/etc/passwd")
    monkeypatch.chdir(project)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q", "."], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    file.write_text("# new\n")
    ((old, new),) = sides.at_revision("HEAD", ["rulesets/fw.nft"], folder)
    assert [one.files.paths[0].read_text() for one in (old, new)] == ["# old\n", "# new\n"]
    assert old.name == "rulesets/fw.nft at HEAD"
    assert not (folder / "away").exists()
    (project / "later.nft").touch()
    with pytest.raises(HarnessError, match=r"later.nft does not exist in HEAD"):
        sides.at_revision("HEAD", ["later.nft"], folder)
    with pytest.raises(HarnessError, match=r"git has no revision none"):
        sides.at_revision("none", ["rulesets/fw.nft"], folder)
