"""KVM where a trial boot works, else emulation."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.vm import accelerator
from harness.vm.kernel_image import Image


class TestAccelerator:
    IMAGE = Image(release="6.12.107+deb13-amd64", vmlinuz=Path("/x y//vmlinuz"), modules=Path("/x"), config=None)

    @pytest.fixture(autouse=True)
    def with_qemu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accelerator, "qemu", lambda: "/usr/bin/qemu-system-x86_64")

    def test_without_kvm_it_is_emulated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accelerator, "_KVM", tmp_path / "kvm")
        assert accelerator.accelerator(self.IMAGE) == ("tcg", f"there is no {tmp_path}/kvm")

    @pytest.mark.parametrize(("status", "name"), [(0, "kvm"), (125, "tcg")])
    def test_kvm_is_tried_once(self, status: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "kvm").touch()
        monkeypatch.setattr(accelerator, "_KVM", tmp_path / "kvm")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        trials = []

        def trial(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[bytes]:
            trials.append(command)
            return subprocess.CompletedProcess(command, status)

        monkeypatch.setattr(subprocess, "run", trial)
        first = accelerator.accelerator(self.IMAGE)
        assert first.name == name
        assert accelerator.accelerator(self.IMAGE) == first
        assert len(trials) == 1
