"""What a program that reads rulesets can open, and see of the machine."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.lab.lab import Host
from harness.project import Project
from harness.ruleset import sandbox
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import Nft, NftError
from harness.ruleset.process import PROGRAMS, Child, Reach
from harness.vm import nft as nft_of_images

pytestmark = pytest.mark.kernel

ITSELF = "/proc/self"
ROOT = f"{ITSELF}/root"
"""What this process sees as its root folder."""


@pytest.mark.parametrize(
    "name",
    [
        "{out}/secret/plain",
        "{out}//secret/./plain",
        "../secret/plain",
        "./../secret/plain",
        "{out}/[^x]ecret/plain",
        "{out}/[!x]ecret/plain",
        "{out}/?ecret/*",
        "{out}/{{secret,x}}/plain",
        "../[[:alpha:]]*/plain",
        "./file",
        "./fil?",
        "./folder/plain",
        "./folder/*",
        "/proc/1/root{out}/secret/plain",
        f"{ITSELF}/cwd/../secret/plain",
        f"{ROOT}/etc/hostname",
        "/etc/hostname",
        "/dev/zero",
        "/home/*",
    ],
)
def test_nothing_outside_of_the_project_is_opened(device: Host, project: Path, name: str) -> None:
    """Also where the check that says so beforehand would find nothing to refuse."""
    nft = Nft(device.namespace, Reach((project,)))
    try:
        nft.run(f'include "{name.format(out=project.parent)}"\n', folder=project)
    except NftError as refused:
        assert "TOPSECRET" not in str(refused)  # noqa: PT017 - a pattern that matches nothing is no error
    assert nft.run("list tables") == ""


@pytest.mark.parametrize("name", ["inside.nft", "./inside.nft", "./link.nft", "{here}/in*.nft", "../p/inside.nft"])
def test_what_lies_in_the_project_is_read(device: Host, project: Path, name: str) -> None:
    nft = Nft(device.namespace, Reach((project,)))
    nft.run(f'include "{name.format(here=project)}"\n', folder=project)
    assert nft.run("list tables") == "table ip inside\n"


def test_a_project_that_lies_where_the_new_root_is_mounted_is_read(device: Host) -> None:
    folder = Path(sandbox.BASE)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".nft") as file:
        file.write("table ip inside\n")
        file.flush()
        nft = Nft(device.namespace, Reach((folder,)))
        nft.run(f'include "./{Path(file.name).name}"\n', folder=folder)
    assert nft.run("list tables") == "table ip inside\n"


def test_a_folder_outside_is_read_where_that_is_allowed(device: Host, project: Path) -> None:
    nft = Nft(device.namespace, Reach((project, project.parent / "secret", Path("/not/there"))))
    with pytest.raises(NftError, match="TOPSECRET"):
        nft.run('include "./folder/plain"\n', folder=project)


def test_names_of_services_users_and_times_are_known(device: Host) -> None:
    nft = Nft(device.namespace)
    nft.run('add table ip t; add chain ip t c; add rule ip t c tcp dport ssh meta skuid root meta hour "10:00"-"11:00"')
    assert "tcp dport 22 meta skuid 0 meta hour" in nft.ruleset()


def test_a_program_has_no_user_files_or_processes_of_the_machine(device: Host) -> None:
    def reported(*argv: str) -> str:
        with Child(device.namespace.fd, PROGRAMS, list(argv)) as child:
            return child.wait()[1]

    assert reported("/usr/bin/id", "-u") == "65534\n"
    # The nft of a kernel image may lie in a home folder: nothing else of that is there.
    image = nft_of_images.current()
    way = [*reversed(image.folder.parents), image.folder] if image else []
    root = set(reported("/usr/bin/ls", "/").split())
    assert {"home", "root", "proc", "sys", "dev", "tmp"} & root <= {one.name for one in way[1:2]}
    for above, below in itertools.pairwise(way[1:]):
        assert reported("/usr/bin/ls", "-A", str(above)) == f"{below.name}\n"
    assert "Read-only file system" in reported("/usr/bin/touch", "/etc/x") + reported("/usr/bin/touch", "/usr/lib/x")
    assert "Operation not permitted" in reported("/usr/bin/unshare", "--user", "/usr/bin/id")


def test_extensions_of_xtables_that_lie_where_the_new_root_is_mounted_are_there() -> None:
    # As with a cache folder in /tmp, whose kernel image has an nft with extensions of its own.
    program = (
        "import os, sys; from harness.ruleset import sandbox; sandbox.confine([], executable=False, cgroups=False)"
    )
    with tempfile.TemporaryDirectory(dir=sandbox.BASE) as folder:
        Path(folder, "libxt_x.so").touch()
        command = [sys.executable, "-c", f"{program}; print(os.listdir({folder!r}))"]
        environment = os.environ | {"XTABLES_LIBDIR": folder}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "['libxt_x.so']\n", done.stderr


def test_only_regular_files_are_read(device: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "other")
    (file := tmp_path / "a.nft").write_text('table ip t {\n  include "./other"\n}\n')
    with pytest.raises(ScenarioError, match=r"a\.nft:2:3: .*other .*is a FIFO"):
        Ruleset.load(device, file, home=Project(root=tmp_path))
