"""Kernels to boot: Debian's, kept in the user's cache folder, this machine's own, or any other one given by its path.

::

    $XDG_CACHE_HOME/nft-harness/kernels/
        6.12.107+deb13-amd64/     a whole image: it gets this name when nothing is missing
            nft/                  nft of the same release, see harness.vm.nft
            added                 the packages that a user gave for it, see harness.vm.packages
        .6.12.107+deb13-amd64.nft why its nft could not be fetched

Packages are unpacked, never installed: that would build an initramfs and change the boot menu.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness import untrusted
from harness.bounds import KERNEL_BYTES
from harness.cache import why_not
from harness.errors import Unsupported
from harness.vm import debian, image_cache, nft
from harness.vm.progress import Progress, silent

SERIES = {"6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
"""Kernel series that can be fetched, and the Debian suite that has them; oldest first."""

IMAGE, HOST = "image", "host"
"""Which nft reads rulesets: that of the kernel image, where there is one, or this machine's own."""

DEFAULT = "6.12"
"""The series that is booted by default."""

INSTALLED = "installed"
"""The name of the kernel that is installed on this machine."""

ADDED = "added"
"""File of an image that was not fetched: the packages that it is of."""

RETRY_S = 24 * 3600.0
"""Seconds after which what could not be fetched is fetched again without an explicit request."""


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
        return str(self.nft.folder) if self.nft else HOST

    @property
    def is_added(self) -> bool:
        """Whether it is of packages that a user gave, and not the project's choice for its series."""
        return (self.modules / ADDED).exists()

    @property
    def series(self) -> str:
        """The first two numbers of the release, e.g. ``6.12``."""
        return ".".join(re.findall(r"\d+", self.release)[:2])


def images() -> tuple[Image, ...]:
    """The images in the cache, oldest release first.

    Raises :class:`Unsupported` when one of them was damaged since it was fetched, or is not to be read.
    """
    found = []
    for folder in image_cache.folder().glob("[!.]*"):
        try:
            found.append(read(folder))
        except OSError as error:
            raise Unsupported(f"the kernel image in {folder} can't be read: {error.strerror}") from None
        except Unsupported as error:
            sentence = f"the kernel image in {folder} is damaged: {error.sentence}"
            raise Unsupported(sentence, remedy="delete that folder, it can be fetched again") from None
    return tuple(sorted(found, key=_age))


def find(version_or_path: str) -> Image | None:
    """The image called ``6.12`` (the newest fetched of that series), ``6.12.107+deb13-amd64``, ``installed`` or
    ``path/to/it``.

    What contains a slash is a path, see :func:`read`. None when the cache has no such version.
    Raises :class:`Unsupported` when there is no kernel image at the path, or none that can be read is installed.
    """
    if version_or_path == INSTALLED:
        return installed()
    if "/" in version_or_path:
        return read(Path(version_or_path).expanduser().absolute())
    fitting = [
        image
        for image in images()
        if version_or_path == image.release or (version_or_path == image.series and not image.is_added)
    ]
    return fitting[-1] if fitting else None


def refuse_unknown(name: str, words: Sequence[str] = ()) -> None:
    """Raise :class:`Unsupported` where ``name`` is that of no image that is here or can be fetched.

    ``words`` are other names that the option takes, for the remedy.
    """
    if name not in SERIES and find(name) is None:
        raise Unsupported(
            f"there is no kernel image {name!r}",
            remedy=f"use one of {', '.join((*words, *SERIES, INSTALLED))}, or the path of a kernel of your own (with a "
            "slash in it)",
        )


def get(version_or_path: str, progress: Progress = silent) -> Image:
    """The image of that name, fetched if it is not there; errors of :func:`find` and :func:`fetch`."""
    return find(version_or_path) or fetch(version_or_path, progress)


def nft_called(asked: str, image: Image | None) -> nft.ImageNft | None:
    """The nft called ``asked`` for scenarios that run on ``image`` (None: on the machine's own kernel).

    It is :data:`IMAGE`, :data:`HOST`, or the name of another image as of :func:`find`. None is this machine's own.
    Raises :class:`Unsupported` when that image is not here or has none.
    """
    if asked == HOST:
        return None
    if asked == IMAGE:
        return image.nft if image else None
    other = find(asked)
    if other is None or other.nft is None:
        raise Unsupported(
            f"no nft of a kernel image {asked!r} is here", remedy=f"run nft-harness kernels fetch {asked}"
        )
    return other.nft


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


def installed(root: Path = Path("/")) -> Image:
    """The kernel that is installed on the machine with the root folder ``root``: the one that runs, if it is among
    them, else the newest.

    Debian and Ubuntu have it in ``/boot/vmlinuz-<release>``, others in ``/lib/modules/<release>/vmlinuz``.
    Raises :class:`Unsupported` when there is none, or it may be read by root only, as on Ubuntu.
    """
    modules = sorted((root / "lib/modules").glob("*/"), key=lambda folder: _numbers(folder.name))
    places = [file for folder in modules for file in (root / f"boot/vmlinuz-{folder.name}", folder / "vmlinuz")]
    found = [file for file in places if file.exists()]
    running = os.uname().release
    best = [file for file in found if running in (file.name.removeprefix("vmlinuz-"), file.parent.name)] or found
    if not best:
        raise Unsupported(
            "no kernel is installed here: no /boot/vmlinuz-RELEASE has its modules in /lib/modules/RELEASE",
            remedy=f"use one of {', '.join(SERIES)}, or nft-harness kernels add linux-image-RELEASE",
        )
    if not os.access(best[-1], os.R_OK):
        release = best[-1].name.removeprefix("vmlinuz-")
        raise Unsupported(
            f"{best[-1]} may be read by root only",
            remedy=f"run nft-harness kernels add linux-image-{release}, then use --nft-kernel {release}",
        )
    return read(best[-1])


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


def fetch(series: str, progress: Progress = silent) -> Image:
    """The image of ``series`` with nft of its release, out of the cache or else from the Debian archive.

    Where that nft cannot be had, ``progress`` shows why, and the image has none.
    Safe to interrupt at any moment, and to call twice at once: one fetches, the other waits.
    Raises :class:`Unsupported` when there is no such series or it can't be had, with the reason.
    """
    if series not in SERIES:
        refuse_unknown(series)
    with image_cache.written_to(), image_cache.lock(series, progress):
        if image := find(series):
            return image if image.nft else _add_nft(image, progress)
        with image_cache.workplace(series) as work:
            packages = debian.download_kernel(SERIES[series], series, work, progress)
            tree = work / "tree"
            progress(f"unpacking Linux {series}", None)
            for package in packages:
                debian.unpack(package, tree)
            image = complete(tree)
            place = image_cache.folder() / image.release
            tree.rename(place)
        progress(f"Linux {image.release} is in {place}", None)
        return _add_nft(read(place), progress)


def with_nft(image: Image, progress: Progress = silent) -> tuple[Image, str]:
    """``image`` with nft of its release, fetched if it is not there; if it has none, also the reason."""
    if image.nft:
        return image, ""
    if image.modules.parent != image_cache.folder() or image.series not in SERIES or image.is_added:
        return image, "the image has none"
    try:
        with image_cache.written_to():
            note = _note(image)
            if not note.exists() or note.stat().st_mtime < time.time() - RETRY_S:
                with image_cache.lock(image.series, progress):
                    image = read(image.modules)  # another process may have fetched it
                    image = image if image.nft else _add_nft(image, progress)
            return image, "" if image.nft else note.read_text().strip()
    except Unsupported as error:
        return image, str(error)


def _add_nft(image: Image, progress: Progress) -> Image:
    """Fetch nft of the release that ``image`` is from; the caller holds the lock.

    If it cannot be had, a note says why.
    """
    place = image.modules / nft.FOLDER
    try:
        with image_cache.workplace(image.series) as work:
            packages = debian.download_with_libraries(
                SERIES[image.series], nft.PACKAGE, nft.EXTENSIONS, folder=work, progress=progress
            )
            parts = [(*debian.named(package), work / f"tree-{number}") for number, package in enumerate(packages)]
            for package, (_, _, tree) in zip(packages, parts, strict=True):
                debian.unpack(package, tree)
            nft.put_together(parts, work / nft.FOLDER)
            shutil.rmtree(place, ignore_errors=True)
            (work / nft.FOLDER).rename(place)
        _note(image).unlink(missing_ok=True)
    except (Unsupported, OSError) as error:
        reason = error.sentence if isinstance(error, Unsupported) else why_not(error)
        sentence = f"that of Debian {SERIES[image.series]} cannot be fetched: {reason}"
        _note(image).write_text(f"{sentence}; nft-harness kernels fetch {image.series} tries again\n")
        progress(f"the machine's own nft will be used: {sentence}", None)
        return image
    image = read(image.modules)
    if image.nft:
        progress(f"nft {image.nft.version} of Debian {SERIES[image.series]} is in {place}", None)
    return image


def _note(image: Image) -> Path:
    return image_cache.folder() / f".{image.release}.nft"


def remove(version: str) -> Image:
    """Take the image ``version`` (a series or a release) out of the cache; what was removed.

    Raises :class:`Unsupported` when the cache has no such image.
    """
    image = None if "/" in version else find(version)
    if image is None:
        have = ", ".join(image.release for image in images()) or "none"
        raise Unsupported(f"no kernel image {version!r} is in the cache", remedy=f"there are: {have}")
    with image_cache.written_to(), image_cache.lock(image.series, silent), image_cache.workplace(image.series) as work:
        (image_cache.folder() / image.release).rename(work / "removed")
    return image


def _age(image: Image) -> list[int]:
    return _numbers(image.release)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


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
