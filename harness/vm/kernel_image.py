"""One kernel that can be booted: its file, its modules, and what else lies beside them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec

from harness import untrusted
from harness.bounds import KERNEL_BYTES
from harness.errors import Unsupported
from harness.vm import nft

ADDED = "added"
"""File of an image that was not fetched: the packages that it is of."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that can be booted."""

    release: str
    """As ``uname -r`` says it, e.g. ``6.12.107+deb13-amd64``."""
    vmlinuz: Path
    modules: Path
    """Folder that has ``lib/modules/<release>`` with its ``modules.dep``: the base of depmod(8) and modprobe(8)."""
    config: Path | None
    nft: nft.ImageNft | None = None
    """What reads rulesets in its guests; None is the machine's own."""

    @property
    def nft_argument(self) -> str:
        """For the option --nft of :mod:`harness.vm.microvm`."""
        return str(self.nft.folder) if self.nft else nft.HOST

    @property
    def is_added(self) -> bool:
        """Whether it is of packages that a user gave, or of the distribution, and not fetched for its series."""
        return (self.modules / ADDED).exists()

    @property
    def packages(self) -> list[str]:
        """The files of the packages that it was added of."""
        return (self.modules / ADDED).read_text().splitlines() if self.is_added else []

    @property
    def series(self) -> str:
        """The first two numbers of the release, e.g. ``6.12``."""
        return ".".join(re.findall(r"\d+", self.release)[:2])


def read(path: Path) -> Image:
    """The image at ``path``: a kernel file, or a folder that holds one.

    Modules are looked for beside the file and in the folders above it, so that a kernel is found in
    ``boot/vmlinuz-<release>``, ``lib/modules/<release>/vmlinuz`` and in a flat folder.
    Raises :class:`Unsupported` with what is missing.
    """
    vmlinuz = _kernel_file(path) if path.is_dir() else path
    release = release_of(vmlinuz)
    folders = [path] if path.is_dir() else list(vmlinuz.absolute().parents[:4])
    for base in [base for folder in folders for base in (folder, folder / "usr")]:
        modules = base / "lib/modules" / release
        if not modules.is_dir():
            continue
        if not (modules / "modules.dep").exists():
            raise Unsupported(f"{modules} has no modules.dep", remedy=f"run depmod -b {base} {release}")
        configs = [modules / "config", vmlinuz.parent / f"config-{release}", vmlinuz.parent / "config"]
        config = next((config for config in configs if config.exists()), None)
        return Image(release=release, vmlinuz=vmlinuz, modules=base, config=config, nft=nft.read(base / nft.FOLDER))
    raise Unsupported(
        f"{vmlinuz} is Linux {release}, and lib/modules/{release} is not beside it",
        remedy=f"put the modules of that kernel into {folders[0] / 'lib/modules' / release}",
    )


def release_of(vmlinuz: Path) -> str:
    """The release that a kernel file carries in its header, as ``uname -r`` prints it.

    Raises :class:`Unsupported` when the file can't be read or is not an x86 kernel image.
    Source: Linux Documentation/arch/x86/boot.rst, "boot_flag", "header" and "kernel_version".
    """
    try:
        with untrusted.opened(vmlinuz, KERNEL_BYTES) as file:
            header = file.read(0x8000)
    except untrusted.Unreadable as error:
        reason = error.sentence.removeprefix("cannot be read: ")
        raise Unsupported(f"{vmlinuz} can't be read as a kernel image: {reason[0].upper()}{reason[1:]}") from None
    except OSError as error:
        raise Unsupported(f"{vmlinuz} can't be read as a kernel image: {error.strerror}") from None
    if header[0x1FE:0x200] != b"\x55\xaa" or header[0x202:0x206] != b"HdrS":
        raise Unsupported(
            f"{vmlinuz} is not a kernel image",
            remedy="give a bzImage (vmlinuz, not vmlinux), or a folder with one and its lib/modules",
        )
    start = 0x200 + int.from_bytes(header[0x20E:0x210], "little")
    release = header[start : start + 256].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")
    if not re.fullmatch(r"[0-9][\w.+~-]*", release, re.ASCII):
        raise Unsupported(f"{vmlinuz} is not a kernel image: its header names no release", remedy="give another one")
    return release


def _kernel_file(folder: Path) -> Path:
    """The one kernel file in a folder that looks like an unpacked kernel package, or is flat."""
    files = kernel_files(folder)
    if not files:
        raise Unsupported(f"{folder} holds no kernel image: it has no vmlinuz")
    if len(files) > 1:
        names = ", ".join(str(file) for file in files)
        raise Unsupported(f"{folder} holds several kernel images", remedy=f"name one of {names}")
    return files[0]


def kernel_files(folder: Path) -> list[Path]:
    """The kernel files in such a folder."""
    places = ("vmlinuz*", "boot/vmlinuz*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
    return sorted({file.resolve() for place in places for file in folder.glob(place)})


def complete(tree: Path) -> Image:
    """Make unpacked kernel packages bootable: modules in one place, and their index.

    Raises :class:`Unsupported` where the kernel file or its modules are missing.
    """
    # Packages from 6.16 on have usr/lib/modules. depmod looks in lib/modules or in usr/lib/modules,
    # as it was built: after this they are the same.
    if (tree / "usr/lib/modules").is_dir():
        (tree / "lib").mkdir(exist_ok=True)
        (tree / "usr/lib/modules").rename(tree / "lib/modules")
    shutil.rmtree(tree / "usr", ignore_errors=True)
    (tree / "usr").symlink_to(".")
    release = release_of(_kernel_file(tree))
    depmod = shutil.which("depmod", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if depmod is None:
        raise Unsupported("depmod is missing", remedy="run apt-get install kmod")
    done = subprocess.run([depmod, "-b", str(tree), release], check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
        raise Unsupported(f"depmod failed: {said}", remedy="is the disk full? then make room and run the command again")
    return read(tree)
