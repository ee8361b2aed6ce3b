"""Templates: guests saved when everything was imported and armed, to be restored instead of booted.

::

    $XDG_CACHE_HOME/nft-harness/templates/
        6.12.107+deb13-amd64-3f6c…/     a whole template: it gets this name when nothing is missing
            ram                         the guest's memory, mapped private by each guest that is restored
            state                       its devices
            about.json                  what it was made of, and how to recognise ram and state
        .lock                           held by the one who makes or removes a template

What a template depends on is its *key*, part of its name: kernel, QEMU and its arguments, the processor, Python and the
variables that Python reads. What it holds copies of, files of the Python environment, is looked at before each use. One
that is not what it was, in any respect, is deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import site
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from harness.cache import cache_dir
from harness.errors import HarnessError
from harness.vm import machine, tsc
from harness.vm.kernel_image import Image
from harness.vm.qmp import Monitor

FORMAT = 2
"""Of the templates; raised when older ones cannot be used any more."""


NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""Set in every guest, whatever it is here: what is compiled there would be written into memory and vanish."""

HASH_SEED = "PYTHONHASHSEED"
"""Part of the key, as the interpreter of a template has a seed already."""

NO_USER_SITE = "PYTHONNOUSERSITE"
"""Part of the key by its effect only, which it has where the user has packages; ``./run`` sets it, a shell does not."""

_NO_PART = ("dont_write_bytecode", "no_user_site")
"""Options of Python that are no part of a key, as the two variables."""


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """By what a file or folder is recognised as unchanged."""

    size: int
    modified: int
    changed: int
    """The change time of a file, which cannot be set, other than by the clock. Of a folder 0: overlayfs changes it when
    something below the folder is written for the first time, as in each new container of an image."""
    inode: int

    @classmethod
    def of(cls, path: Path | str) -> Stamp | None:
        """Of the file as it is now, times in nanoseconds; None when it is not there."""
        try:
            about = Path(path).stat()
        except OSError:
            return None
        changed = 0 if stat.S_ISDIR(about.st_mode) else about.st_ctime_ns
        return cls(about.st_size, about.st_mtime_ns, changed, about.st_ino)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a template."""

    ram: Stamp
    state: Stamp
    digest: str
    """SHA-256 of both, for a template whose files were copied elsewhere."""
    used: dict[str, Stamp | None]
    """The files that it holds copies of, the folders that modules are looked for in, and libraries."""
    parts: dict[str, str] = {}
    """Those of its key."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template that can be restored."""

    folder: Path

    @property
    def name(self) -> str:
        """Its kernel's release and a digest of all else that it depends on."""
        return self.folder.name

    @property
    def ram(self) -> Path:
        """The guest's memory."""
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        """The guest's devices."""
        return self.folder / "state"

    @property
    def bytes(self) -> int:
        """What it takes of the disk."""
        return sum(file.stat().st_blocks * 512 for file in self.folder.iterdir())


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What a template depends on, beside the files that it holds copies of."""

    release: str
    """Of its kernel."""
    parts: dict[str, str]
    """A digest of each part, by what the part is."""

    @property
    def name(self) -> str:
        """The template's: the release, and a digest of all parts."""
        return f"{self.release}-{_digest(self.parts)}"


def key(image: Image, machine: Sequence[str]) -> Key:
    """What a template for ``image`` on the virtual ``machine`` (QEMU and its arguments) depends on, here and now."""
    qemu = shutil.which(machine[0]) or machine[0]
    flags = [getattr(sys.flags, name) for name in sys.flags.__match_args__ if name not in _NO_PART]
    parts: dict[str, object] = {
        "format": FORMAT,
        "kernel image": [str(image.vmlinuz), Stamp.of(image.vmlinuz)],
        "nft": [str(image.nft.folder.resolve()), Stamp.of(image.nft.folder / "about.json")] if image.nft else [],
        "QEMU": [qemu, Stamp.of(qemu), *machine[1:]],
        "processor": _processor(),
        "rate of the clock": tsc.rate_class(),
        "Python": [sys.executable, sys.version],
        "options of Python": flags,
        "user site-packages": site.getusersitepackages() in sys.path,
    }
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    parts |= {name: value for name, value in variables.items() if name not in (NO_BYTECODE, NO_USER_SITE)}
    return Key(release=image.release, parts={name: _digest(parts[name]) for name in sorted(parts)})


def _digest(of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]


class NoTemplate(HarnessError):
    """There is no template to restore; the sentence says why."""


def named(name: str) -> Template:
    """The template called ``name``, which may be out of date, damaged or missing."""
    return Template(folder=folder() / name)


def find(key: Key) -> Template:
    """The template of ``key``; it counts as used now.

    Raises :class:`NoTemplate` when there is none, or when it cannot be trusted and is deleted.
    """
    template = named(key.name)
    try:
        about = _about(template)
    except FileNotFoundError:
        raise NoTemplate(_why_none(key)) from None
    except (OSError, msgspec.DecodeError):
        about = None
    if about is None or not _is_whole(template, about):
        discard(template)
        raise NoTemplate("the template was damaged; nft-harness kernels warm makes another")
    for path, stamp in about.used.items():
        if stamp and Stamp.of(path) != stamp:
            discard(template)
            raise NoTemplate(f"{path} has changed since the template was made; nft-harness kernels warm makes another")
    with suppress(OSError):
        os.utime(template.folder)
    return template


def _about(template: Template) -> About:
    return msgspec.json.decode((template.folder / "about.json").read_bytes(), type=About)


def _why_none(key: Key) -> str:
    """Why there is none of ``key``: in what the template of the same kernel that is most like it differs."""
    differing: list[list[str]] = []
    for other in all_templates():
        with suppress(OSError, msgspec.DecodeError):
            if other.name.rpartition("-")[0] == key.release:
                parts = _about(other).parts
                names = sorted(parts.keys() | key.parts.keys())
                differing.append([name for name in names if parts.get(name) != key.parts.get(name)])
    why, remedy = "there is no template", "nft-harness kernels warm makes one"
    if least := min(differing, key=len, default=[]):
        why = f"no template of this kernel was made with the same {' and '.join(least)}"
    if HASH_SEED in least:
        remedy = "unset it, under tox by --hashseed notset"
    return f"{why}; {remedy}"


def discard(template: Template) -> None:
    """Delete ``template``; guests that are restored from it go on, as they have its files open."""
    with suppress(OSError):
        (template.folder / "about.json").unlink()  # from here on it is none
    shutil.rmtree(template.folder, ignore_errors=True)


def all_templates() -> list[Template]:
    """Those in the cache folder, the last used first."""
    found = [Template(folder=about.parent) for about in folder().glob("[!.]*/about.json")]
    return sorted(found, key=lambda template: -template.folder.stat().st_mtime)


def folder() -> Path:
    """Where templates are; it may not exist yet."""
    return cache_dir() / "templates"


def _processor() -> str:
    """Of the host; by KVM it is the guest's as well."""
    text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    return "\n".join(re.findall(r"^(?:model name|microcode|flags)\s*:.*$", text, re.MULTILINE))


def _is_whole(template: Template, about: About) -> bool:
    if (Stamp.of(template.ram), Stamp.of(template.state)) == (about.ram, about.state):
        return True
    # Not the files that were written: a copy of them, as CI caches make, or something else.
    with suppress(OSError):
        return digest_of(template) == about.digest
    return False


def digest_of(template: Template) -> str:
    """SHA-256 of the template's memory and devices, in hexadecimal. Raises :class:`OSError`."""
    digest = hashlib.sha256()
    for path in (template.ram, template.state):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


PORTS = ("stdin", "stdout", "stderr", "control")
SPARE = ("spare0", "spare1", "spare2")
"""Ports that a template has for the outputs of guests restored from it, whose names it cannot know."""


def command(template: Template, accelerator: str, memory: int) -> list[str]:
    """QEMU's arguments for a guest restored from ``template``, without its devices."""
    return [
        *machine.machine(accelerator, memory, 1, ram=template.ram),
        # The one piece of memory that is not the guest's RAM: what QEMU has for starting a kernel by its PVH entry.
        *("-option-rom", "pvh.bin", "-incoming", "defer"),
    ]


def restore(monitor: Monitor, state: int) -> None:
    """Have QEMU restore the devices' state from the descriptor ``state`` and continue. Raises :class:`MonitorError`."""
    monitor.ignore_shared()
    monitor.execute("migrate-incoming", uri=f"fd:{state}")


def task(argv: Sequence[str], environment: Mapping[str, str], modules: Path, ports: Sequence[str]) -> bytes:
    """The line that a restored guest is sent: what it is to run, and all in which it differs from the others.

    ``modules`` is the host's folder of the kernel's modules; ``ports`` are the names for the spare ports, in order.
    """
    return (
        json.dumps(
            {
                "argv": list(argv),
                "environment": dict(environment),
                "folder": str(Path.cwd()),
                "modules": str(modules),
                "ports": list(ports),
                "seed": os.urandom(64).hex(),
                "time": time.time(),
            }
        ).encode()
        + b"\n"
    )
