"""The image for containers: built as Containerfile says, and used without any privilege.

No registry is asked: the Debian below it is made by mmdebstrap from this machine's apt sources, and the builder needs
neither a daemon nor namespaces. It takes some minutes, so only ``./run soak`` does it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Soak

ROOT = Path(__file__).parent.parent
HOUR_S = 3600


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout.strip()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        command = ["buildah", *self._options, *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HOUR_S, check=False
        )


def pip_paths() -> list[str]:
    """This machine's configuration of pip: its files, and the files and folders that they name."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=True
    ).stdout
    files = re.findall(r"^ +(/\S+), exists: True$", listed, re.MULTILINE)
    named = re.findall(r"(?<=[\s'])(?:file://)?(/[^\s',]+)", listed)
    # The pages of an index refer to files beside it: of a folder /a/b/c all of /a/b is needed.
    needed = {Path(*Path(path).parts[:3]) if Path(path).is_dir() else Path(path) for path in files + named}
    return sorted(str(path) for path in needed if path.exists())


@pytest.fixture
def builder(tmp_path: Path, soak: Soak, program: Callable[[str, str], str]) -> Iterator[Builder]:
    if not soak.seconds:
        pytest.skip("an image for containers takes some minutes to build; ./run soak builds one")
    for name in ("buildah", "mmdebstrap"):
        program(name, name)
    builder = Builder(tmp_path)
    try:
        yield builder
    finally:
        builder.run("rmi", "--all", "--force")
        shutil.rmtree(tmp_path / "storage", ignore_errors=True)


@pytest.mark.soak
def test_scenarios_run_in_a_container_without_any_privilege(builder: Builder, project: Path, tmp_path: Path) -> None:
    root = tmp_path / "debian.tar"
    command = ["mmdebstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)]
    sources = [str(path) for path in Path("/etc/apt").glob("sources.list.d/debian.sources")] or [
        "/etc/apt/sources.list"
    ]
    subprocess.run([*command, *sources], check=True, capture_output=True, timeout=HOUR_S)
    debian = builder("from", "scratch")
    builder("add", "--quiet", debian, str(root), "/")
    builder("commit", "--quiet", "--rm", debian, "debian:12")

    mounts = [f"--volume={path}:{path}:ro" for path in pip_paths()]
    builder("bud", "--layers=false", "--pull-never", "--tag", "nft-harness", *mounts, ".")

    container = builder("from", "--pull-never", "localhost/nft-harness")
    nobody = ("run", "--user", "65534:65534", "--cap-drop", "all", "--volume", f"{project}:/w", container)
    done = builder.run(*nobody, "pytest", "scenarios", "-p", "no:cacheprovider")
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    assert "in a microVM" in done.stdout
    assert builder.run(*nobody, "nft-harness", "check", "scenarios").returncode == 0
