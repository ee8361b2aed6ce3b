"""The guest's first file system: busybox, the modules that reach the host's files, three scripts.

::

    /init            init.sh of this folder
    /session.sh      of this folder too
    /command         what to run in the guest when it is up
    /bin             busybox, and the names by which the scripts call it
    /modules/NNN.ko  kernel modules in the order of loading, unpacked: that is 17 times faster here
    /usual/NNN.ko    those that scenarios need, in the same way; for a template, those too that many need
    /modules.path    where the host keeps all modules of this kernel
    /preload         files of the host that the guest will need, under their paths there
    /template        the same where the guest is to become a template: all files that it has until it is restored

It is made for each boot, in memory: that takes less time than to look whether a stored one is
still right. No root and no cpio(1) is needed, the format "newc" is a header before each file.
Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness import untrusted
from harness.bounds import VMLINUX_BYTES
from harness.errors import Unsupported
from harness.linux.modules import COMMON, USUAL, name_of
from harness.vm import compression
from harness.vm.kernel_image import Image

SCRIPTS = Path(__file__).parent

MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What init.sh needs of the kernel, as modules or built in."""

CRC32C = "crc32c_generic"
"""What libcrc32c, where nf_tables needs it, asks for by the algorithm's name; so no dependency shows it."""

TOOLS = (
    *("cat", "chmod", "chroot", "dmesg", "grep", "insmod", "ip", "ln", "mkdir", "mkfifo", "mount", "mv"),
    *("sh", "sleep", "tail", "uname", "usleep"),
)
"""What the scripts need of busybox."""

FOLDERS = ("bin", "changes", "dev", "guest", "host", "modules", "preload", "proc", "sys", "usual")
PRELOAD, TEMPLATE = "preload", "template"
MOST_LINKS = 40
"""Symbolic links on the way to a file, as in Linux (include/linux/namei.h, MAXSYMLINKS)."""


def check(image: Image) -> None:
    """Raise :class:`Unsupported` when something that the archive for ``image`` must have is missing."""
    busybox()
    _with_dependencies(image.modules / "lib/modules" / image.release, MODULES)


def initramfs(image: Image, command: str, files: Iterable[Path] = (), *, folder: str = PRELOAD) -> bytes:
    """The archive that boots ``image`` and then gives ``command``, a shell script, to busybox's sh.

    The guest will find ``files`` in its memory, and all others on the host; with ``folder`` :data:`TEMPLATE` it
    has no others.

    Raises :class:`Unsupported` when busybox or a module is missing.
    """
    modules = image.modules / "lib/modules" / image.release
    usual = (CRC32C, *USUAL, *(COMMON if folder == TEMPLATE else ()))
    return b"".join(
        [
            *(_entry(folder, stat.S_IFDIR | 0o755) for folder in FOLDERS),
            _entry("bin/busybox", stat.S_IFREG | 0o755, busybox().read_bytes()),
            *(_entry(f"bin/{tool}", stat.S_IFLNK | 0o777, b"busybox") for tool in TOOLS),
            *_unpacked("modules", needed := _with_dependencies(modules, MODULES)),
            *_unpacked(
                "usual",
                [path for path in _with_dependencies(modules, usual, optional=True) if path not in needed],
            ),
            _entry("modules.path", stat.S_IFREG | 0o644, f"{modules.resolve()}\n".encode()),
            _entry("command", stat.S_IFREG | 0o644, command.encode()),
            _entry("session.sh", stat.S_IFREG | 0o644, (SCRIPTS / "session.sh").read_bytes()),
            *([_entry(folder, stat.S_IFDIR | 0o755)] if folder not in FOLDERS else []),
            *_copies(folder, files),
            _entry("init", stat.S_IFREG | 0o755, (SCRIPTS / "init.sh").read_bytes()),
            _entry("TRAILER!!!", 0),
        ]
    )


def _copies(target: str, files: Iterable[Path]) -> Iterator[bytes]:
    """Entries for ``files``, the folders they are in and the symbolic links on the way to them.

    A file that is no longer there is left out.
    """
    made = {Path("/")}
    for file in files:
        way, real = _resolved(file)
        try:
            about = real.stat()
            content = real.read_bytes()
        except OSError:
            continue
        for link in way:
            yield from _folders(target, link, made)
            if link not in made:
                yield _entry(f"{target}{link}", stat.S_IFLNK | 0o777, bytes(link.readlink()))
        made.update(way)
        yield from _folders(target, real, made)
        if real not in made:
            made.add(real)
            # Python compiles a source again whose time is not the one it knows.
            yield _entry(
                f"{target}{real}", about.st_mode, content, owner=(about.st_uid, about.st_gid), time=int(about.st_mtime)
            )


def _folders(target: str, file: Path, made: set[Path]) -> Iterator[bytes]:
    missing = [folder for folder in reversed(file.parents) if folder not in made]
    made.update(missing)
    for folder in missing:
        yield _entry(f"{target}{folder}", (of := folder.stat()).st_mode, owner=(of.st_uid, of.st_gid))


def _resolved(path: Path) -> tuple[list[Path], Path]:
    """The symbolic links that lead to ``path``, each below real folders, and the real path."""
    links: list[Path] = []
    left = list(reversed(path.parts[1:]))
    real = Path("/")
    while left:
        here = real.parent if (name := left.pop()) == ".." else real / name
        if here.is_symlink() and len(links) < MOST_LINKS:
            links.append(here)
            target = here.readlink()
            real = Path("/") if target.is_absolute() else real
            left += [part for part in reversed(target.parts) if part != "/"]
        else:
            real = here
    return links, real


def _entry(path: str, mode: int, content: bytes = b"", *, owner: tuple[int, int] = (0, 0), time: int = 0) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device and rdev, length of the name, checksum.
    fields = (0, mode, *owner, 1, time, len(content), 0, 0, 0, 0, len(name), 0)
    return _padded(b"070701" + b"".join(b"%08x" % field for field in fields) + name) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)


def busybox() -> Path:
    """A busybox that runs without shared libraries: there are none in the initramfs. Raises :class:`Unsupported`."""
    found = shutil.which("busybox")
    if found is None:
        raise Unsupported("busybox is missing", remedy="run apt-get install busybox-static")
    # A dynamic program names its loader, ld-linux or ld-musl, near the start of the file.
    with Path(found).open("rb") as file:
        if b"/ld-" in file.read(4096):
            raise Unsupported(f"{found} needs shared libraries", remedy="run apt-get install busybox-static")
    return Path(found)


_REMEDY = "use a kernel for ordinary machines: those for clouds leave such modules out"


def _with_dependencies(modules: Path, names: Iterable[str], *, optional: bool = False) -> list[Path]:
    """The files of the modules ``names`` and of all they need, needed ones first.

    What is built into the kernel has none. Source: modules.dep(5), kernel Documentation/kbuild/kbuild.rst.
    """
    lines = (modules / "modules.dep").read_text().splitlines()
    needs = {name_of(path): (path, needed.split()) for path, _, needed in (line.partition(":") for line in lines)}
    built_in = {name_of(path) for path in (modules / "modules.builtin").read_text().splitlines()}
    order: dict[str, None] = {}
    for name in names:
        if name in needs:
            path, needed = needs[name]
            # modules.dep lists the nearest need first: the last one needs nothing.
            order |= dict.fromkeys([*reversed(needed), path])
        elif name not in built_in and not optional:
            raise Unsupported(
                f"Linux {modules.name} has no module {name}, so it can't boot in a microVM", remedy=_REMEDY
            )
    return [modules / path for path in order]


def _unpacked(folder: str, modules: Iterable[Path]) -> Iterator[bytes]:
    for number, path in enumerate(modules):
        content = path.read_bytes()
        if path.suffix != ".ko":
            with untrusted.boundary(f"{path} is no packed module"):
                plain = compression.unpacked(content, VMLINUX_BYTES)
            if plain is None:
                raise Unsupported(
                    f"{path} is packed in a way that cannot be read here", remedy="unpack it, and run depmod"
                )
            content = plain
        yield _entry(f"{folder}/{number:03}.ko", stat.S_IFREG | 0o644, content)
