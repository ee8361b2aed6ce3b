"""Kernel images at a path: files of a few bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.vm import kernel_image
from tests.vm.archive import RELEASE, install
from tests.vm.builders import kernel


@pytest.mark.parametrize(
    ("vmlinuz", "modules"),
    [
        ("vmlinuz", "lib/modules"),
        ("vmlinuz-6.12", "usr/lib/modules"),
        (f"boot/vmlinuz-{RELEASE}", "lib/modules"),
        (f"usr/lib/modules/{RELEASE}/vmlinuz", "usr/lib/modules"),
    ],
)
def test_a_folder_with_a_kernel_and_its_modules(tmp_path: Path, vmlinuz: str, modules: str) -> None:
    folder = tmp_path / "mine"
    if RELEASE in modules + vmlinuz:
        (folder / vmlinuz).parent.mkdir(parents=True)
    (folder / modules / RELEASE).mkdir(parents=True, exist_ok=True)
    (folder / modules / RELEASE / "modules.dep").touch()
    (folder / vmlinuz).write_bytes(kernel(RELEASE))
    image = kernel_image.read(folder)
    assert (image.release, image.series, image.vmlinuz) == (RELEASE, "6.12", folder / vmlinuz)
    assert (image.modules / "lib/modules" / RELEASE / "modules.dep").exists()
    assert kernel_image.read(image.vmlinuz) == image


def test_a_file_whose_modules_are_one_folder_up(tmp_path: Path) -> None:
    install(tmp_path, vmlinuz=f"boot/vmlinuz-{RELEASE}")
    (tmp_path / f"boot/config-{RELEASE}").touch()
    image = kernel_image.read(tmp_path / f"boot/vmlinuz-{RELEASE}")
    assert image.modules == tmp_path
    assert image.config == tmp_path / f"boot/config-{RELEASE}"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(0x1000)])
def test_a_file_that_is_no_kernel(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vmlinuz").write_bytes(content)
    with pytest.raises(Unsupported, match="vmlinuz is not a kernel image; give a bzImage"):
        kernel_image.read(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="nowhere can't be read as a kernel image: No such file"):
        kernel_image.read(tmp_path / "nowhere")


def test_a_folder_without_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="it has no vmlinuz"):
        kernel_image.read(tmp_path)


def test_a_folder_with_two(tmp_path: Path) -> None:
    for name in ("vmlinuz-1", "vmlinuz-2"):
        (tmp_path / name).write_bytes(kernel(RELEASE))
    with pytest.raises(Unsupported, match=r"several kernel images; name one of .*vmlinuz-1, .*vmlinuz-2"):
        kernel_image.read(tmp_path)


def test_a_kernel_without_its_modules(tmp_path: Path) -> None:
    install(tmp_path, "6.12.1")
    (tmp_path / "vmlinuz").write_bytes(kernel(RELEASE))
    with pytest.raises(Unsupported, match=rf"lib/modules/{RELEASE.replace('+', '.')} is not beside it"):
        kernel_image.read(tmp_path)


def test_modules_without_an_index(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "lib/modules" / RELEASE / "modules.dep").unlink()
    with pytest.raises(Unsupported, match=r"has no modules\.dep; run depmod -b"):
        kernel_image.read(tmp_path)
