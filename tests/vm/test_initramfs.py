"""The initial file system of a guest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.vm.initramfs import initramfs
from harness.vm.kernel_image import Image


class TestMissing:
    @pytest.fixture(autouse=True)
    def bare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_busybox(self, image: Image) -> None:
        with pytest.raises(Unsupported, match="busybox is missing; run apt-get install busybox-static"):
            initramfs(image, "")

    def test_a_busybox_that_needs_libraries(self, image: Image, tmp_path: Path) -> None:
        shutil.copy("/bin/true", tmp_path / "busybox")
        with pytest.raises(Unsupported, match="needs shared libraries; run apt-get install busybox-static"):
            initramfs(image, "")


def test_a_kernel_without_a_needed_module_is_refused(image: Image, tmp_path: Path) -> None:
    modules = tmp_path / "lib/modules/6.6.6"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("")
    (modules / "modules.builtin").write_text(
        "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/char/virtio_console.ko\n"
    )
    bare = Image(release="6.6.6", vmlinuz=image.vmlinuz, modules=tmp_path, config=None)
    with pytest.raises(Unsupported, match=r"Linux 6\.6\.6 has no module 9pnet_virtio"):
        initramfs(bare, "")
