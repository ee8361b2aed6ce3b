"""The kernel as QEMU starts it fastest: already unpacked.

A distribution's vmlinuz unpacks itself, which takes more than a second in an emulated CPU and 0.1 s
here. QEMU starts the unpacked ELF file by its PVH entry (CONFIG_PVH, in Debian's kernels).
Source: Linux Documentation/arch/x86/boot.rst, "payload_offset"; QEMU hw/i386/x86.c, load_elfboot.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from harness import untrusted
from harness.bounds import KERNEL_BYTES, VMLINUX_BYTES
from harness.cache import cache_dir, keep
from harness.errors import Unsupported
from harness.vm import compression
from harness.vm.kernel_image import Image

_PVH_NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0"
"""Head of the ELF note that holds the PVH entry: XEN_ELFNOTE_PHYS32_ENTRY, 8 bytes."""


def vmlinux(image: Image) -> Path:
    """``image`` unpacked, out of the cache or else made; the packed file where that can't be.

    That is the case for rare ways of packing, for kernels without a PVH entry and where nothing can be kept: slower,
    not wrong.
    """
    packed = _content(image.vmlinuz)
    place = cache_dir() / "vmlinux" / f"{image.release}-{hashlib.sha256(packed).hexdigest()[:16]}"
    if place.exists():
        return place
    content = unpacked(packed, image.vmlinuz)
    if content is None or _PVH_NOTE not in content:
        return image.vmlinuz
    return place if keep(place, content) else image.vmlinuz


_REMEDY = "fetch it again, or give another one"


def unpacked(packed: bytes, vmlinuz: Path) -> bytes | None:
    """The ELF file in ``packed``, which is the content of ``vmlinuz``; None when it is packed in a rare way.

    Raises :class:`~harness.errors.HarnessError` when it is not a complete bzImage.
    """
    with untrusted.boundary(f"{vmlinuz} is not a complete kernel image", remedy=_REMEDY):
        return _payload(packed)


def _content(vmlinuz: Path) -> bytes:
    try:
        return untrusted.read(vmlinuz, KERNEL_BYTES)
    except untrusted.Unreadable as error:
        raise Unsupported(f"{vmlinuz} {error.sentence}", remedy="give a bzImage (vmlinuz)") from None


def _payload(packed: bytes) -> bytes | None:
    sectors = packed[0x1F1] or 4
    offset, length = struct.unpack_from("<II", packed, 0x248)
    start = (sectors + 1) * 512 + offset
    if start + length > len(packed):
        raise EOFError("the file ends within its payload")
    payload = packed[start : start + length]
    # The kernel's build writes the unpacked size behind what zstd has packed.
    return compression.unpacked(payload, VMLINUX_BYTES, size=int.from_bytes(payload[-4:], "little"))
