"""nft as the release that a kernel image comes from has it, in a folder beside the kernel.

::

    nft/about.json     its version, and that of its C library
    nft/lib/           libnftables and the libraries that it needs
    nft/libc/          the C library, with its loader
    nft/xtables/       iptables' extensions, by which libnftables lists rules that iptables has made
    nft/program        nft itself
    nft/bin/nft        a script that runs it, for a shell in a lab

It is unpacked, never installed. libnftables is loaded by the processes that read rulesets
(:mod:`harness.ruleset.process`), which are this machine's Python. A C library runs what was built for an older one, not
the reverse: that Python runs on the image's C library, by its loader, where that is newer than the machine's. See
ld.so(8).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from harness.errors import Unsupported
from harness.text import numbers_in

IMAGE, HOST = "image", "host"
"""Which nft reads rulesets: that of the kernel image, where there is one, or this machine's own."""

FOLDER = "nft"
"""Beside the kernel."""
VARIABLE = "NFT_HARNESS_NFT"
"""Environment variable: the folder of the nft that reads rulesets in a guest."""
LOADER = "libc/ld-linux-x86-64.so.2"
PACKAGE = "nftables"
"""Debian's package; libraries are those that it depends on."""
EXTENSIONS = "iptables"
"""The package of the extensions. They are built for one version of libxtables."""

_LIBC = re.compile(r"(?:ld-linux-x86-64|lib(?:c|m|dl|pthread|rt|util|resolv))\.so\.\d+")
_LIBRARY = re.compile(r"lib[\w+-]+\.so\.\d+")
_SCRIPT = """#!/bin/sh
here=${0%/bin/nft}
export XTABLES_LIBDIR="$here/xtables"
exec "$here/libc/ld-linux-x86-64.so.2" --library-path "$here/libc:$here/lib" "$here/program" "$@"
"""


class _About(msgspec.Struct, frozen=True):
    version: str
    libc: str


class ImageNft(msgspec.Struct, frozen=True, kw_only=True):
    """An nft beside a kernel image."""

    folder: Path
    version: str
    """For example ``1.1.3``."""
    libc: str
    """Version of its C library, for example ``2.41``."""

    @property
    def described(self) -> str:
        """For example ``nft 1.1.3 of kernel image 6.12.117+deb13-amd64``."""
        return f"nft {self.version} of kernel image {self.folder.parent.name}"

    @property
    def files(self) -> list[Path]:
        """What a process opens that loads its libnftables."""
        return [self.folder / "about.json", *sorted(self.folder.glob("lib*/*"))]

    @property
    def programs(self) -> Path:
        """The folder of the script ``nft``."""
        return self.folder / "bin"

    def python(self, executable: str) -> tuple[list[str], dict[str, str]]:
        """How Python is called so that it loads this libnftables: the first words of the command, and variables."""
        lib, libc = self.folder / "lib", self.folder / "libc"
        variables = {"XTABLES_LIBDIR": str(self.folder / "xtables")}
        if _numbers(self.libc) > _numbers(os.confstr("CS_GNU_LIBC_VERSION") or ""):
            return [str(self.folder / LOADER), "--library-path", f"{libc}:{lib}", executable], variables
        return [executable], {"LD_LIBRARY_PATH": str(lib), **variables}


def read(folder: Path) -> ImageNft | None:
    """The nft in ``folder``; None where there is none."""
    try:
        about = msgspec.json.decode((folder / "about.json").read_bytes(), type=_About)
    except (OSError, msgspec.DecodeError):
        return None
    return ImageNft(folder=folder, version=about.version, libc=about.libc)


def use(nft: ImageNft | None) -> None:
    """Have rulesets read by ``nft``, or by this machine's own if None, in this process and those that it starts."""
    os.environ[VARIABLE] = str(nft.folder) if nft else ""


def current() -> ImageNft | None:
    """The nft that reads rulesets in this process; None is this machine's own."""
    given = os.environ.get(VARIABLE)
    return _read(given) if given else None


@functools.cache
def _read(folder: str) -> ImageNft | None:
    return read(Path(folder))


def put_together(packages: Iterable[tuple[str, str, Path]], folder: Path) -> None:
    """Make ``folder`` of unpacked Debian packages, given by name, version and the folder of their files.

    Raises :class:`~harness.errors.Unsupported` when something is missing in them.
    """
    versions = {}
    for name, version, files in packages:
        versions[name] = re.sub(r"^\d+:|-[^-]*$", "", version)
        if name == EXTENSIONS:
            (folder / "xtables").mkdir(parents=True)
            for file in files.glob("usr/lib/*/xtables/*.so"):
                shutil.copyfile(file, folder / "xtables" / file.name)
            continue
        of_libc = name == "libc6"
        target = folder / ("libc" if of_libc else "lib")
        target.mkdir(parents=True, exist_ok=True)
        for file in files.rglob("*.so.*"):
            if (_LIBC if of_libc else _LIBRARY).fullmatch(file.name) and file.parent.name == "x86_64-linux-gnu":
                shutil.copyfile(file, target / file.name)  # what a link leads to
        if (program := files / "usr/sbin/nft").exists():
            shutil.copy(program, folder / "program")
    needed = ("program", LOADER, "lib/libnftables.so.1")
    if missing := [name for name in needed if not (folder / name).exists()]:
        raise Unsupported(f"its packages lack {', '.join(missing)}")
    (folder / LOADER).chmod(0o755)
    (folder / "bin").mkdir()
    (folder / "bin/nft").write_text(_SCRIPT)
    (folder / "bin/nft").chmod(0o755)
    about = _About(version=versions[PACKAGE], libc=versions["libc6"])
    (folder / "about.json").write_bytes(msgspec.json.encode(about))


def _numbers(version: str) -> list[int]:
    return numbers_in(version)[:2]
