"""Cgroups of a microVM: made for a lab, removed with it, and those that sockets are in."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness.errors import HarnessError, Unsupported
from harness.lab import cgroups
from harness.lab.cgroups import ROOT, Cgroups
from harness.lab.namespace import Namespace
from harness.vm.port import in_guest


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the kernel's."""
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "in_guest", lambda: True)
    return tmp_path


def test_those_of_a_machine_are_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "in_guest", lambda: False)
    with Cgroups() as made, pytest.raises(Unsupported, match="cgroups of this machine are not changed"):
        made.make(["system.slice"])
    assert not list(tmp_path.iterdir())


def test_those_that_were_made_are_removed_and_no_others(root: Path) -> None:
    (root / "system.slice").mkdir()
    with Cgroups() as made:
        made.make(["system.slice/a.service", "user.slice/user-1.slice/b.scope", "user.slice/user-1.slice"])
        assert (root / "user.slice/user-1.slice/b.scope").is_dir()
        assert (root / "system.slice/a.service").is_dir()
    assert [one.name for one in root.rglob("*")] == ["system.slice"]


def test_a_file_of_the_kernel_is_no_cgroup(root: Path) -> None:
    (root / "cgroup.procs").touch()
    with Cgroups() as made, pytest.raises(HarnessError, match=r"'cgroup.procs/a' cannot be a cgroup"):
        made.make(["cgroup.procs/a"])


def test_a_kernel_without_cgroups_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "ROOT", str(root / "none"))
    with Cgroups() as made, pytest.raises(Unsupported, match="made no cgroup 'a': No such file"):
        made.make(["a"])


@pytest.mark.kernel
def test_a_socket_stays_in_the_cgroup_that_it_was_made_in(tmp_path: Path) -> None:
    if not in_guest():
        pytest.skip("only a microVM has cgroups to make")
    before = Path("/proc/self/cgroup").read_text()
    with Namespace("host") as namespace, Cgroups() as made:
        with made.within("a.slice/b.service"):
            assert Path("/proc/self/cgroup").read_text() == "0::/a.slice/b.service\n"
            opened = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert Path("/proc/self/cgroup").read_text() == before
        assert Path(ROOT, "a.slice/b.service").is_dir()
        opened.close()
    assert not Path(ROOT, "a.slice").exists()
