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

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from harness.cache import GUESTS, accepted_from_guest, cache_dir, store
from harness.errors import HarnessError
from harness.vm import machine
from harness.vm.images import Image
from harness.vm.initramfs import TEMPLATE, initramfs
from harness.vm.progress import Progress, silent
from harness.vm.qmp import Monitor, MonitorError
from harness.vm.vmlinux import vmlinux

MOST = 6
"""Templates that are kept; the one that was not used for the longest time goes first."""

MAKING_S = 600.0
"""Seconds within which a template must be armed; emulated it takes 12 s of one CPU."""

PROGRAM = Path(__file__).parents[1] / "warm.py"
"""What a template runs."""

FORMAT = 1
"""Of the templates; raised when older ones cannot be used any more."""


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """By what a file is recognised as unchanged. The change time cannot be set, other than by the clock."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path | str) -> Stamp | None:
        """Of the file as it is now, times in nanoseconds; None when it is not there."""
        try:
            about = Path(path).stat()
        except OSError:
            return None
        return cls(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


class _NotLearned(HarnessError):
    """A guest has to find out first what can be traced, and to compile the tracer."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a template."""

    ram: Stamp
    state: Stamp
    digest: str
    """SHA-256 of both, for a template whose files were copied elsewhere."""
    used: dict[str, Stamp | None]
    """The files that it holds copies of, the folders that modules are looked for in, and libraries."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template that can be restored."""

    folder: Path

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


def key(image: Image, machine: Sequence[str]) -> str:
    """The name of the template for ``image`` on the virtual ``machine`` (QEMU and its arguments), here and now."""
    qemu = shutil.which(machine[0]) or machine[0]
    parts = [
        FORMAT,
        [str(image.vmlinuz), Stamp.of(image.vmlinuz)],
        [qemu, Stamp.of(qemu), *machine[1:]],
        _processor(),
        [sys.executable, sys.version, sys.flags],
        sorted((name, value) for name, value in os.environ.items() if name.startswith("PYTHON")),
    ]
    return f"{image.release}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


class NoTemplate(HarnessError):
    """There is no template to restore; the sentence says why."""


def find(name: str) -> Template:
    """The template called ``name``; it counts as used now.

    Raises :class:`NoTemplate` when there is none, or when it cannot be trusted and is deleted.
    """
    template = Template(folder=_folder() / name)
    try:
        about = msgspec.json.decode((template.folder / "about.json").read_bytes(), type=About)
    except FileNotFoundError:
        raise NoTemplate("there is no template; nft-harness kernels warm makes one") from None
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


def discard(template: Template) -> None:
    """Delete ``template``; guests that are restored from it go on, as they have its files open."""
    with suppress(OSError):
        (template.folder / "about.json").unlink()  # from here on it is none
    shutil.rmtree(template.folder, ignore_errors=True)


def all_templates() -> list[Template]:
    """Those in the cache folder, the last used first."""
    found = [Template(folder=about.parent) for about in _folder().glob("[!.]*/about.json")]
    return sorted(found, key=lambda template: -template.folder.stat().st_mtime)


def _folder() -> Path:
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
        return _digest(template) == about.digest
    return False


def _digest(template: Template) -> str:
    digest = hashlib.sha256()
    for path in (template.ram, template.state):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# -- making -------------------------------------------------------------------------------------------

PORTS = ("stdin", "stdout", "stderr", "control")
SPARE = ("spare0", "spare1", "spare2")
"""Ports that a template has for the outputs of guests restored from it, whose names it cannot know."""


def make(image: Image, accelerator: str, memory: int, progress: Progress = silent) -> Template:
    """Boot ``image``, have it import and arm, and save it; or the template that another process has made meanwhile.

    Raises :class:`~harness.errors.HarnessError` when the guest cannot be saved, with the reason, :class:`OSError` when
    the cache folder cannot be written to.
    """
    name = key(image, machine.machine(accelerator, memory, 1))
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(NoTemplate):
            return find(name)
        for left in _folder().glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        for old in all_templates()[MOST - 1 :]:
            discard(old)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=_folder(), ignore_cleanup_errors=True) as work:
            new = Template(folder=Path(work, name))
            new.folder.mkdir()
            progress(f"saving a template of Linux {image.release}, from which guests start in seconds", None)
            used = _used(Path(work))
            try:
                _save(image, accelerator, memory, new, list(used))
            except _NotLearned:
                progress(f"compiling the tracer for Linux {image.release}", None)
                _learn(image, accelerator)
                _save(image, accelerator, memory, new, list(used))
            about = About(ram=_stamp(new.ram), state=_stamp(new.state), digest=_digest(new), used=used)
            (new.folder / "about.json").write_bytes(msgspec.json.encode(about))
            final = _folder() / name
            new.folder.rename(final)
    return Template(folder=final)


def _stamp(path: Path) -> Stamp:
    stamp = Stamp.of(path)
    assert stamp is not None
    return stamp


def _used(work: Path) -> dict[str, Stamp | None]:
    listing = subprocess.run(
        [sys.executable, "-m", "harness.warm", "files"],
        # On Ctrl-C it is killed: its temporary files are in a folder that is deleted all the same.
        env={**os.environ, "TMPDIR": str(work)},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    names = listing.stdout.splitlines()
    names += [folder for folder in sys.path if folder.endswith("-packages")]  # changed when a package comes or goes
    # What Python has compiled is made again from its source, without being any other.
    return {name: None if name.endswith(".pyc") else Stamp.of(name) for name in names}


def _learned(image: Image) -> list[Path]:
    """What is known of the kernel: the template needs it to arm, and is not out of date when more becomes known."""
    return list((cache_dir() / GUESTS / image.release).glob("*"))


def _learn(image: Image, accelerator: str) -> None:
    """Have a guest find out what can be traced, and compile the program for it."""
    command = [sys.executable, "-m", "harness.vm.microvm", "--parent", str(os.getpid()), "--start", "cold"]
    command += ["--kernel", str(image.vmlinuz), "--accelerator", accelerator]
    learned = machine.memory_file("learned")
    try:
        command += ["--output", f"learned:{learned}", "-m", "harness.warm", "learn"]
        process = subprocess.run(command, pass_fds=[learned], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if process.returncode:
            last = process.stderr.strip().splitlines() or ["it said nothing"]
            raise HarnessError(f"the guest could not be prepared: {last[-1]}")
        with open(learned, "rb", closefd=False) as file:
            file.seek(0)
            news = msgspec.msgpack.decode(file.read(), type=dict[str, bytes])
    finally:
        os.close(learned)
    store(cache_dir(), accepted_from_guest(image.release, news))


def _save(image: Image, accelerator: str, memory: int, template: Template, files: Sequence[str]) -> None:
    template.ram.unlink(missing_ok=True)
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    variables |= {name: os.environ[name] for name in ("HOME", "PATH", "XDG_CACHE_HOME", "LANG") if name in os.environ}
    variables["COLUMNS"] = "400"  # what pytest says in a line may be the reason that there is no template
    script = "\n".join(
        [
            *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
            # Not as a module of the package: that is to be imported by pytest, which has an import hook for plugins.
            shlex.join(
                [
                    "exec",
                    "chroot",
                    f"/{TEMPLATE}",
                    sys.executable,
                    "-c",
                    f"import runpy; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')",
                ]
            ),
        ]
    )
    archive = machine.memory_file(
        "initramfs", initramfs(image, script, [*map(Path, files), *_learned(image)], folder=TEMPLATE)
    )
    console = machine.memory_file("console")
    ends = {name: socket.socketpair() for name in (*PORTS, "monitor")}
    theirs = {name: there.fileno() for name, (_, there) in ends.items()}
    monitor = theirs.pop("monitor")
    command = [
        *machine.machine(accelerator, memory, 1, ram=template.ram, share=True),
        *("-kernel", str(vmlinux(image)), "-initrd", f"/dev/fd/{archive}", "-append", machine.KERNEL_COMMAND_LINE),
        *machine.devices(console, {**theirs, **dict.fromkeys(SPARE)}, monitor),
    ]
    try:
        with machine.running(command, inherit=[archive, monitor, *theirs.values()], output=console):
            for _, there in ends.values():
                there.close()
            control = ends["control"][0]
            control.settimeout(MAKING_S)
            word = control.makefile().readline()
            if word == "not learned\n":
                raise _NotLearned(f"the tracer is not compiled for Linux {image.release}")
            if word != "ready\n":
                raise HarnessError(
                    f"the guest could not be prepared: {_said((ends['stderr'][0], ends['stdout'][0]), console)}"
                )
            _migrate(Monitor(ends["monitor"][0]), template.state)
    except TimeoutError:
        raise HarnessError(f"timed out after {MAKING_S:g} s waiting for the guest to be prepared") from None
    finally:
        os.close(archive)
        os.close(console)
        for here, _ in ends.values():
            here.close()
    subprocess.run(["fallocate", "--dig-holes", str(template.ram)], check=False)


def _migrate(monitor: Monitor, state: Path) -> None:
    monitor.ignore_shared()
    with state.open("wb") as file:
        monitor.execute("getfd", descriptor=file.fileno(), fdname="state")
    # The guest is not stopped before: it would be restored stopped.
    monitor.execute("migrate", uri="fd:state")
    deadline = time.monotonic() + MAKING_S
    while (status := monitor.execute("query-migrate"))["status"] != "completed":
        if status["status"] == "failed" or time.monotonic() > deadline:
            raise HarnessError(f"QEMU could not save the guest: {status.get('error-desc', status['status'])}")
        time.sleep(0.02)  # QEMU 7.2 sends no event without a capability that is a part of the saved state
    with suppress(MonitorError):
        monitor.execute("quit")


def _said(ports: Iterable[socket.socket], console: int) -> str:
    """The last line of what the guest's program, or else its kernel, has printed."""
    texts = []
    for port in ports:
        port.settimeout(1)
        with suppress(OSError):
            texts.append(port.recv(1 << 16).decode(errors="replace"))
    lines = [line for text in (*texts, machine.text(console)) for line in reversed(text.splitlines()) if line.strip()]
    return next(iter(lines), "it said nothing")


# -- restoring ----------------------------------------------------------------------------------------


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
