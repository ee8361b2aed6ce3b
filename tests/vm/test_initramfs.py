"""The initial file system of a guest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.vm.initramfs import MODULES, PRELOAD, TEMPLATE, initramfs
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


def content(archive: bytes, folder: str) -> list[str]:
    """The content of the files in ``folder`` of the archive, in the order in which a shell's ``*`` names them."""
    found = {}
    while True:
        fields = [int(archive[6 + 8 * number : 14 + 8 * number], 16) for number in range(13)]
        size, length = fields[6], fields[11]
        name = archive[110 : 110 + length - 1].decode()
        archive = archive[110 + length + -(110 + length) % 4 :]
        if name == "TRAILER!!!":
            return [found[name] for name in sorted(found)]
        if name.startswith(f"{folder}/"):
            found[name] = archive[:size].decode()
        archive = archive[size + -size % 4 :]


def test_a_template_loads_modules_that_many_scenarios_need_and_those_they_need_before_them(
    image: Image, tmp_path: Path
) -> None:
    modules = tmp_path / "lib/modules/6.6.6"
    modules.mkdir(parents=True)
    needed = [f"needed_{number}" for number in range(120)]
    """More than have two digits."""
    for name in ("veth", "bridge", "br_netfilter", *needed):
        (modules / f"{name}.ko").write_text(name)
    (modules / "modules.dep").write_text(
        f"veth.ko:\nbridge.ko: {' '.join(f'{name}.ko' for name in reversed(needed))}\nbr_netfilter.ko: bridge.ko\n"
        + "".join(f"{name}.ko:\n" for name in needed)
    )
    (modules / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in MODULES))
    bare = Image(release="6.6.6", vmlinuz=image.vmlinuz, modules=tmp_path, config=None)
    assert content(initramfs(bare, "", folder=PRELOAD), "usual") == ["veth"]
    assert content(initramfs(bare, "", folder=TEMPLATE), "usual") == ["veth", *needed, "bridge"]
