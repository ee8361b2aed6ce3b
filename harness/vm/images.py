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
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from harness.cache import why_not
from harness.errors import Unsupported
from harness.text import numbers_in
from harness.vm import debian, image_cache, kernel_image, nft
from harness.vm.kernel_image import Image
from harness.vm.progress import Progress, silent

SERIES = {"6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
"""Kernel series that can be fetched, and the Debian suite that has them; oldest first."""

DEFAULT_SERIES = "6.12"
"""The series that is booted by default where this machine knows a Debian archive."""

DEFAULT = "default"
"""The name of the kernel that is booted by default: of :data:`DEFAULT_SERIES`, or else the distribution's own."""

INSTALLED = "installed"
"""The name of the kernel that is installed on this machine."""

RETRY_S = 24 * 3600.0
"""Seconds after which what could not be fetched is fetched again without an explicit request."""


def images() -> tuple[Image, ...]:
    """The images in the cache, oldest release first.

    Raises :class:`Unsupported` when one of them was damaged since it was fetched, or is not to be read.
    """
    found = []
    for folder in image_cache.folder().glob("[!.]*"):
        try:
            found.append(kernel_image.read(folder))
        except OSError as error:
            raise Unsupported(f"the kernel image in {folder} can't be read: {error.strerror}") from None
        except Unsupported as error:
            sentence = f"the kernel image in {folder} is damaged: {error.sentence}"
            raise Unsupported(sentence, remedy="delete that folder, it can be fetched again") from None
    return tuple(sorted(found, key=_age))


def find(version_or_path: str) -> Image | None:
    """The image called ``6.12`` (the newest fetched of that series), ``6.12.107+deb13-amd64``, ``default``,
    ``installed`` or ``path/to/it``.

    What contains a slash is a path, see :func:`harness.vm.kernel_image.read`. None when the cache has no such version.
    Raises :class:`Unsupported` when there is no kernel image at the path, or none that can be read is installed.
    """
    if version_or_path == DEFAULT:
        return find(DEFAULT_SERIES) or _own()
    if version_or_path == INSTALLED:
        return installed()
    if "/" in version_or_path:
        return kernel_image.read(Path(version_or_path).expanduser().absolute())
    fitting = [
        image
        for image in images()
        if version_or_path == image.release or (version_or_path == image.series and not image.is_added)
    ]
    return fitting[-1] if fitting else None


def installed(root: Path = Path("/")) -> Image:
    """The kernel that is installed on the machine with the root folder ``root``: the one that runs, if it is among
    them, else the newest.

    Debian and Ubuntu have it in ``/boot/vmlinuz-<release>``, others in ``/lib/modules/<release>/vmlinuz``.
    Raises :class:`Unsupported` when there is none, or it may be read by root only, as on Ubuntu.
    """
    modules = sorted((root / "lib/modules").glob("*/"), key=lambda folder: numbers_in(folder.name))
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
    return kernel_image.read(best[-1])


def refuse_unknown(name: str, words: Sequence[str] = ()) -> None:
    """Raise :class:`Unsupported` where ``name`` is that of no image that is here or can be fetched.

    ``words`` are other names that the option takes, for the remedy.
    """
    if name not in (*SERIES, DEFAULT) and find(name) is None:
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

    It is :data:`~harness.vm.nft.IMAGE`, :data:`~harness.vm.nft.HOST`, or the name of another image as of
    :func:`find`. None is this machine's own.
    Raises :class:`Unsupported` when that image is not here or has none.
    """
    if asked == nft.HOST:
        return None
    if asked == nft.IMAGE:
        return image.nft if image else None
    other = find(asked)
    if other is None or other.nft is None:
        raise Unsupported(
            f"no nft of a kernel image {asked!r} is here", remedy=f"run nft-harness kernels fetch {asked}"
        )
    return other.nft


def fetch(series: str, progress: Progress = silent) -> Image:
    """The image of ``series`` with nft of its release, out of the cache or else from the Debian archive.

    :data:`DEFAULT` is :data:`DEFAULT_SERIES`, or, where this machine knows no Debian archive, the newest kernel that
    its own apt has. Where that nft cannot be had, ``progress`` shows why, and the image has none.
    Safe to interrupt at any moment, and to call twice at once: one fetches, the other waits.
    Raises :class:`Unsupported` when there is no such series or it can't be had, with the reason.
    """
    if series == DEFAULT:
        try:
            return fetch(DEFAULT_SERIES, progress)
        except debian.NoArchive as lacking:
            from harness.vm import packages  # rarely

            progress(f"{lacking.sentence}: its own kernel is used", None)
            if image := _own() or packages.add_own(progress):
                return image
            raise
    if series not in SERIES:
        refuse_unknown(series)
    with image_cache.written_to(), image_cache.lock(series, progress):
        if image := find(series):
            return image if image.nft else _add_nft(image, progress)
        with image_cache.workplace(series) as work:
            parts = debian.download_kernel(SERIES[series], series, work, progress)
            tree = work / "tree"
            progress(f"unpacking Linux {series}", None)
            for package in parts:
                debian.unpack(package, tree)
            image = kernel_image.complete(tree)
            place = image_cache.folder() / image.release
            tree.rename(place)
        progress(f"Linux {image.release} is in {place}", None)
        return _add_nft(kernel_image.read(place), progress)


def fetched_by_default() -> str:
    """What :func:`fetch` would fetch as :data:`DEFAULT`.

    Raises :class:`Unsupported` where it cannot be had here, as far as is known without network.
    """
    try:
        debian.archives()
    except debian.NoArchive:
        from harness.vm import packages  # rarely

        if name := packages.own():
            return f"the distribution's own kernel ({name})"
        raise
    return f"Linux {DEFAULT_SERIES}"


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
                    image = kernel_image.read(image.modules)  # another process may have fetched it
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
            files = debian.download_with_libraries(
                SERIES[image.series], nft.PACKAGE, nft.EXTENSIONS, folder=work, progress=progress
            )
            parts = [(*debian.named(file), work / f"tree-{number}") for number, file in enumerate(files)]
            for package, (_, _, tree) in zip(files, parts, strict=True):
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
    image = kernel_image.read(image.modules)
    if image.nft:
        progress(f"nft {image.nft.version} of Debian {SERIES[image.series]} is in {place}", None)
    return image


def _own() -> Image | None:
    """The newest kernel of this machine's distribution in the cache."""
    from harness.vm import packages  # rarely

    return next((image for image in reversed(images()) if packages.is_own(image)), None)


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
    return numbers_in(image.release)
