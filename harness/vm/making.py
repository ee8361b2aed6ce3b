"""Making a template: a guest is booted, imports and arms, and is saved.

It is made in a folder of its own beside the others, and renamed when nothing is missing, by one process at a time.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import mmap
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from harness.cache import GUESTS, REMEDY, cache_dir, why_not
from harness.errors import HarnessError
from harness.text import last_sentence
from harness.vm import learned, machine, microvm, nft, template
from harness.vm.initramfs import TEMPLATE, initramfs
from harness.vm.kernel_image import Image
from harness.vm.progress import Progress, silent
from harness.vm.qmp import Monitor, MonitorError
from harness.vm.template import About, Key, Stamp, Template
from harness.vm.vmlinux import vmlinux

MOST = 6
"""Templates that are kept; the one that was not used for the longest time goes first."""

MAKING_S = 600.0
"""Seconds within which a template must be armed; emulated it takes 12 s of one CPU."""

PROGRAM = Path(__file__).parents[1] / "warm/program.py"
"""What a template runs."""

_UNFINISHED = ".new-"
"""How the folder of a template begins while that is made."""

_NOT_WRITABLE = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)


class _NotLearned(HarnessError):
    """A guest has to find out first what can be traced, and to compile the tracer."""


def make(image: Image, accelerator: str, memory: int, progress: Progress = silent) -> Template:
    """Boot ``image``, have it import and arm, and save it; or the template that another process has made meanwhile.

    Raises :class:`~harness.errors.HarnessError` when the guest cannot be saved, with the reason.
    """
    key = template.key(image, machine.machine(accelerator, memory, 1))
    try:
        with _only_one(progress):
            _remove_remains()
            with suppress(template.NoTemplate):
                return template.find(key)
            for old in template.all_templates()[MOST - 1 :]:
                template.discard(old)
            with tempfile.TemporaryDirectory(
                prefix=_UNFINISHED, dir=template.folder(), ignore_cleanup_errors=True
            ) as work:
                new = Template(folder=Path(work, key.name))
                new.folder.mkdir()
                progress(f"saving a template of Linux {image.release}, from which guests start in seconds", None)
                _fill(new, key, image, accelerator, memory, progress)
                new.folder.rename(template.folder() / key.name)
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise HarnessError(why_not(error), remedy=REMEDY) from None
        raise HarnessError(f"{error.filename or 'the system'}: {error.strerror}") from None
    return template.named(key.name)


@contextmanager
def _only_one(progress: Progress) -> Iterator[None]:
    """Within, no other process makes a template; the lock goes with the process that holds it."""
    template.folder().mkdir(parents=True, exist_ok=True)
    with (template.folder() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that saves a template", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_remains() -> None:
    """Delete what processes have left that were killed while they made or deleted a template."""
    for folder in template.folder().iterdir():
        if folder.is_dir() and (folder.name.startswith(_UNFINISHED) or not (folder / "about.json").exists()):
            shutil.rmtree(folder, ignore_errors=True)


def _fill(new: Template, key: Key, image: Image, accelerator: str, memory: int, progress: Progress) -> None:
    """Write the files of the template ``new``, on the disk before ``about.json``, which vouches for the others."""
    used = _used(new.folder.parent) | {str(file): Stamp.of(file) for file in (image.nft.files if image.nft else ())}
    try:
        _save(image, accelerator, memory, new, list(used))
    except _NotLearned:
        progress(f"finding out what can be traced on Linux {image.release}, and compiling the tracer", None)
        _learn(image, accelerator)
        _save(image, accelerator, memory, new, list(used), learned.DONE)
    about = About(
        ram=_synced(new.ram), state=_synced(new.state), digest=template.digest_of(new), used=used, parts=key.parts
    )
    (new.folder / "about.json").write_bytes(msgspec.json.encode(about))


def _synced(path: Path) -> Stamp:
    with path.open("rb+") as file:
        os.fsync(file)
    stamp = Stamp.of(path)
    assert stamp is not None
    return stamp


def _used(work: Path) -> dict[str, Stamp | None]:
    listing = subprocess.run(
        [sys.executable, "-m", "harness.warm.listing"],
        # On Ctrl-C it is killed: its temporary files are in a folder that is deleted all the same.
        env={**os.environ, "TMPDIR": str(work)},
        capture_output=True,
        text=True,
        cwd="/",
        preexec_fn=functools.partial(machine.die_with, os.getpid()),
    )
    if listing.returncode:
        last = last_sentence(listing.stderr, f"exit status {listing.returncode}")
        raise HarnessError(f"the files of this Python environment could not be listed: {last}")
    names = listing.stdout.splitlines()
    names += [folder for folder in sys.path if folder.endswith("-packages")]  # changed when a package comes or goes
    # What Python has compiled is made again from its source, without being any other.
    return {name: None if name.endswith(".pyc") else Stamp.of(name) for name in names}


def _learned(image: Image) -> list[Path]:
    """What is known of the kernel: the template needs it to arm, and is not out of date when more becomes known."""
    return list((cache_dir() / GUESTS / image.release).glob("*"))


def _learn(image: Image, accelerator: str) -> None:
    """Have a guest find out what can be traced, and compile the program for it."""
    command = [
        *microvm.wrapper(),
        "--start",
        microvm.COLD,
        "--kernel",
        str(image.vmlinuz),
        "--accelerator",
        accelerator,
    ]
    sent = machine.memory_file(learned.PORT)
    try:
        command += ["--output", f"{learned.PORT}:{sent}", "-m", "harness.warm.learning"]
        process = subprocess.run(command, pass_fds=[sent], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if process.returncode:
            raise HarnessError(f"the guest could not be prepared: {microvm.complaint(process.stderr)}")
        learned.keep(sent, image.release)
    finally:
        os.close(sent)


def _save(image: Image, accelerator: str, memory: int, saved: Template, files: Sequence[str], *arguments: str) -> None:
    saved.ram.unlink(missing_ok=True)
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    variables |= {name: os.environ[name] for name in ("HOME", "PATH", "XDG_CACHE_HOME", "LANG") if name in os.environ}
    variables[template.NO_BYTECODE] = "1"
    variables[nft.VARIABLE] = str(image.nft.folder) if image.nft else ""
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
                    *arguments,
                ]
            ),
        ]
    )
    archive = machine.memory_file(
        "initramfs", initramfs(image, script, [*map(Path, files), *_learned(image)], folder=TEMPLATE)
    )
    console = machine.memory_file("console")
    ends = {name: socket.socketpair() for name in (*template.PORTS, "monitor")}
    theirs = {name: there.fileno() for name, (_, there) in ends.items()}
    monitor = theirs.pop("monitor")
    command = [
        *machine.machine(accelerator, memory, 1, ram=saved.ram, share=True),
        *("-kernel", str(vmlinux(image)), "-initrd", f"/dev/fd/{archive}"),
        # Else it would be filled with 0xCC and freed (init/initramfs.c), and could not be told from what is in use.
        *("-append", f"{machine.kernel_command_line(accelerator)} retain_initrd"),
        *machine.devices(console, {**theirs, **dict.fromkeys(template.SPARE)}, monitor),
    ]
    try:
        with machine.running(command, inherit=[archive, monitor, *theirs.values()], output=console) as qemu:
            for _, there in ends.values():
                there.close()
            control = ends["control"][0]
            control.settimeout(MAKING_S)
            word = ""
            with suppress(ConnectionError):
                word = control.makefile().readline()
            if word == "not learned\n":
                raise _NotLearned(f"the tracer is not compiled for Linux {image.release}")
            if not word.startswith("ready "):
                said = _said((ends["stderr"][0], ends["stdout"][0]), console)
                raise _why(qemu, HarnessError(f"the guest could not be prepared: {said}"))
            try:
                _migrate(Monitor(ends["monitor"][0]), saved.state)
            except MonitorError as error:
                raise _why(qemu, error) from None
        _clear_archive(saved.ram, archive, *map(int, word.split()[1:]))
    except TimeoutError:
        raise HarnessError(f"timed out after {MAKING_S:g} s waiting for the guest to be prepared") from None
    finally:
        os.close(archive)
        os.close(console)
        for here, _ in ends.values():
            here.close()
    dig_holes(saved.ram)


def _clear_archive(ram: Path, archive: int, place: int, size: int) -> None:
    """Zero the initramfs in the memory of a saved guest, which has unpacked it and does not read it again.

    Nothing is zeroed unless it is what the file ``archive`` holds: the guest only says where it is.
    """
    with ram.open("rb+") as file, mmap.mmap(file.fileno(), 0) as memory, mmap.mmap(archive, 0) as given:
        if len(given) == size and memory[place : place + size] == given[:]:
            memory[place : place + size] = bytes(size)


def dig_holes(file: Path) -> None:
    """Have zeros in ``file`` take no disk space.

    fallocate(1) of util-linux 2.38 overlooks zeros before a hole where others came before: it runs until it finds none.
    """
    before = None
    while (blocks := file.stat().st_blocks) != before:
        before = blocks
        subprocess.run(["fallocate", "--dig-holes", str(file)], check=False)


def _why(qemu: subprocess.Popen[bytes], error: HarnessError) -> HarnessError:
    """``error``, or the reason that it has when QEMU was killed as the guest's memory could not be written."""
    with suppress(subprocess.TimeoutExpired):
        if qemu.wait(1) == -signal.SIGBUS:
            return HarnessError(why_not(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), remedy=REMEDY)
    return error


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
    """The last sentence of what the guest's program, or else its kernel, has printed."""
    texts = []
    for port in ports:
        port.settimeout(1)
        with suppress(OSError):
            texts.append(port.recv(1 << 16).decode(errors="replace"))
    sentences = (*(last_sentence(text, "") for text in texts), machine.panic(console))
    return next(filter(None, sentences), "") or last_sentence(machine.text(console))
