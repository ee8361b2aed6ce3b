"""A kernel as QEMU boots it fastest: unpacked."""

from __future__ import annotations

from pathlib import Path

from harness.vm.kernel_image import Image
from harness.vm.vmlinux import vmlinux


def test_a_kernel_packed_in_an_unknown_way_unpacks_itself(image: Image, tmp_path: Path) -> None:
    packed = bytearray(image.vmlinuz.read_bytes())
    at = (packed[0x1F1] + 1) * 512 + int.from_bytes(packed[0x248:0x24C], "little")
    packed[at : at + 4] = b"what"
    other = tmp_path / "vmlinuz"
    other.write_bytes(packed)
    assert vmlinux(Image(release="1", vmlinuz=other, modules=image.modules, config=None)) == other
