"""Kernels to boot: Debian's, kept in the user's cache folder, or any other one given by its path.

::

    $XDG_CACHE_HOME/nft-harness/kernels/
        6.12.107+deb13-amd64/     a whole image: it gets this name when nothing is missing
            nft/                  nft of the same release, see harness.vm.nft
        .6.12.107+deb13-amd64.nft why that could not be fetched
        .6.12.lock                held by the one who fetches or removes a 6.12
        .6.12.x7k2m1/             unfinished work, deleted by the next who holds the lock

Packages are unpacked, never installed: that would build an initramfs and change the boot menu.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from harness import untrusted
from harness.bounds import KERNEL_BYTES
from harness.cache import REMEDY, cache_dir, why_not
from harness.errors import Unsupported
from harness.vm import debian, nft
from harness.vm.progress import Progress, silent

SERIES = {"6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
"""Kernel series that can be fetched, and the Debian suite that has them; oldest first."""

IMAGE, HOST = "image", "host"
"""Which nft reads rulesets: that of the kernel image, where there is one, or this machine's own."""

DEFAULT = "6.12"
"""The series that is booted by default."""

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
    def series(self) -> str:
        """The first two numbers of the release, e.g. ``6.12``."""
        return ".".join(re.findall(r"\d+", self.release)[:2])


def images() -> tuple[Image, ...]:
    """The images in the cache, oldest release first.

    Raises :class:`Unsupported` when one of them was damaged since it was fetched, or is not to be read.
    """
    found = []
    for folder in _kernels().glob("[!.]*"):
        try:
            found.append(read(folder))
        except OSError as error:
            raise Unsupported(f"the kernel image in {folder} can't be read: {error.strerror}") from None
        except Unsupported as error:
            sentence = f"the kernel image in {folder} is damaged: {error.sentence}"
            raise Unsupported(sentence, remedy="delete that folder, it can be fetched again") from None
    return tuple(sorted(found, key=_age))


def find(version_or_path: str) -> Image | None:
    """The image called ``6.12`` (the newest of that series), ``6.12.107+deb13-amd64`` or ``path/to/it``.

    What contains a slash is a path, see :func:`read`. None when the cache has no such version.
    Raises :class:`Unsupported` when there is no kernel image at the path.
    """
    if "/" in version_or_path:
        return read(Path(version_or_path).expanduser().absolute())
    fitting = [image for image in images() if version_or_path in (image.series, image.release)]
    return fitting[-1] if fitting else None


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
        raise Unsupported(
            f"there is no kernel image {series!r}",
            remedy=f"use one of {', '.join(SERIES)}, or the path of a kernel of your own (with a slash in it)",
        )
    with _written_to(), _lock(series, progress):
        if image := find(series):
            return image if image.nft else _add_nft(image, progress)
        with _workplace(series) as work:
            packages = debian.download_kernel(SERIES[series], series, work, progress)
            tree = work / "tree"
            progress(f"unpacking Linux {series}", None)
            for package in packages:
                debian.unpack(package, tree)
            image = _complete(tree)
            place = _kernels() / image.release
            tree.rename(place)
        progress(f"Linux {image.release} is in {place}", None)
        return _add_nft(read(place), progress)


def with_nft(image: Image, progress: Progress = silent) -> tuple[Image, str]:
    """``image`` with nft of its release, fetched if it is not there; if it has none, also the reason."""
    if image.nft:
        return image, ""
    if image.modules.parent != _kernels() or image.series not in SERIES:
        return image, "the image has none"
    try:
        with _written_to():
            note = _note(image)
            if not note.exists() or note.stat().st_mtime < time.time() - RETRY_S:
                with _lock(image.series, progress):
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
        with _workplace(image.series) as work:
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
    return _kernels() / f".{image.release}.nft"


def remove(version: str) -> Image:
    """Take the image ``version`` (a series or a release) out of the cache; what was removed.

    Raises :class:`Unsupported` when the cache has no such image.
    """
    image = None if "/" in version else find(version)
    if image is None:
        have = ", ".join(image.release for image in images()) or "none"
        raise Unsupported(f"no kernel image {version!r} is in the cache", remedy=f"there are: {have}")
    with _written_to(), _lock(image.series, silent), _workplace(image.series) as work:
        (_kernels() / image.release).rename(work / "removed")
    return image


def _kernels() -> Path:
    return cache_dir() / "kernels"


def _age(image: Image) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", image.release)]


def _kernel_file(folder: Path) -> Path:
    """The one kernel file in a folder that looks like an unpacked kernel package, or is flat."""
    places = ("vmlinuz*", "boot/vmlinuz*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
    files = sorted({file.resolve() for place in places for file in folder.glob(place)})
    if not files:
        raise Unsupported(f"{folder} holds no kernel image: it has no vmlinuz")
    if len(files) > 1:
        names = ", ".join(str(file) for file in files)
        raise Unsupported(f"{folder} holds several kernel images", remedy=f"name one of {names}")
    return files[0]


def _complete(tree: Path) -> Image:
    """Make unpacked kernel packages bootable: modules in one place, and their index."""
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


@contextmanager
def _written_to() -> Iterator[None]:
    """Say in a sentence that the cache folder, the only place for an image, can't be written to."""
    try:
        yield
    except OSError as error:
        raise Unsupported(why_not(error), remedy=REMEDY) from None


@contextmanager
def _lock(series: str, progress: Progress) -> Iterator[None]:
    """Be the only one who changes the images of ``series``; the kernel frees the lock of a dead process."""
    _kernels().mkdir(parents=True, exist_ok=True)
    with (_kernels() / f".{series}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that fetches Linux {series}", None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _workplace(series: str) -> Iterator[Path]:
    """A fresh folder on the cache's file system, gone at the end; also what a killed process left."""
    prefix = f".{series}."
    for left in _kernels().glob(f"{prefix}*"):
        if left.is_dir():
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_kernels(), ignore_cleanup_errors=True) as work:
        yield Path(work)
