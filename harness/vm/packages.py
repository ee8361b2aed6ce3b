"""Kernels of packages that a user gives: files, or names that this machine's own apt knows.

A kernel may be split into several packages, as Ubuntu's is into linux-image and linux-modules. They are unpacked into
the cache folder together and never installed. Nothing of them is run but the kernel, in a microVM.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.errors import Unsupported
from harness.vm import debian, image_cache, kernel_image
from harness.vm.kernel_image import Image
from harness.vm.progress import Progress, silent

OWN: Final = ("linux-image-generic", "linux-image-amd64")
"""Packages that depend on the newest kernel of a distribution: Ubuntu's, and that of Debian and its derivatives."""
_PART = re.compile(r"linux-(?:image|modules|modules-extra|binary|base)-\S*\d\S*")
"""Packages that make up one kernel, of those that such a package depends on."""
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
"""Names of packages, see Debian Policy 5.6.7."""


def add(packages: Sequence[str], progress: Progress = silent) -> Image:
    """Put the kernel that ``packages`` are parts of into the cache; an image of the same release is replaced.

    Each is a file (with a slash, or ending in ``.deb``) or a name; what a name depends on comes with it where it is
    part of a kernel. Raises :class:`Unsupported` for a package that is not to be had or is none, and where they hold no
    kernel, several, or one without modules.
    """
    names = [name for name in packages if not _is_file(name)]
    files = [Path(name).expanduser().absolute() for name in packages if _is_file(name)]
    for name in names:
        if not _NAME.fullmatch(name):
            raise Unsupported(
                f"{name!r} is no name of a package", remedy="give linux-image-RELEASE, or a file NAME.deb"
            )
    for file in files:
        if not file.is_file():
            raise Unsupported(f"{file} is no file")
    with image_cache.written_to(), image_cache.lock(kernel_image.ADDED, progress):
        with image_cache.workplace(kernel_image.ADDED) as work:
            if names:
                files += debian.download_own(names, _PART, work, progress)
            tree = work / "tree"
            for file in files:
                progress(f"unpacking {file.name}", None)
                debian.unpack(file, tree)
            image = _complete(tree, files)
            (tree / kernel_image.ADDED).write_text("".join(f"{file.name}\n" for file in files))
            place = image_cache.folder() / image.release
            if place.exists():
                if not kernel_image.read(place).is_added:
                    raise Unsupported(f"Linux {image.release} is there already, as it was fetched")
                place.rename(work / "replaced")
            tree.rename(place)
        progress(f"Linux {image.release} is in {place}", None)
        return kernel_image.read(place)


def add_own(progress: Progress = silent) -> Image | None:
    """Put the newest kernel of this machine's distribution into the cache; None when its apt knows none of :data:`OWN`.

    Errors of :func:`add`.
    """
    name = own()
    return add([name], progress) if name else None


def own() -> str:
    """The package of :data:`OWN` that this machine's apt knows; "" when there is none."""
    return next((name for name in OWN if debian.is_known(name)), "")


def is_own(image: Image) -> bool:
    """Whether ``image`` is the kernel of a package of :data:`OWN`."""
    return any(file.removesuffix(".deb").partition("_")[0] in OWN for file in image.packages)


def _is_file(name: str) -> bool:
    return "/" in name or name.endswith(".deb")


def _complete(tree: Path, files: Sequence[Path]) -> Image:
    """As :func:`harness.vm.kernel_image.complete`, with sentences that name the packages."""
    given = ", ".join(file.name for file in files)
    try:
        kernels = kernel_image.kernel_files(tree)
        modules = {path.name for base in ("lib", "usr/lib") for path in (tree / base / "modules").glob("*/")}
    except OSError as error:
        raise Unsupported(f"{given} can't be read: {error.strerror}") from None
    if not kernels:
        raise Unsupported(
            f"{given}: there is no kernel in it", remedy="give the package with /boot/vmlinuz-RELEASE as well"
        )
    if len(kernels) > 1:
        releases = ", ".join(map(kernel_image.release_of, kernels))
        raise Unsupported(f"{given}: there are several kernels in it ({releases})", remedy="give the packages of one")
    release = kernel_image.release_of(kernels[0])
    if release not in modules:
        raise Unsupported(
            f"{given}: the modules of Linux {release} are not in it",
            remedy=f"give their package as well, for example linux-modules-{release}",
        )
    return kernel_image.complete(tree)
