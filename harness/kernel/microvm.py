"""The VM is a Python: run the interpreter, or any program, in a kernel of one's choice.

::

    python -m harness.kernel.microvm --kernel 6.12 -u -c 'print("hello")'
    python -m harness.kernel.microvm --kernel 6.12 --exec uname -a

The program sees the host's files (its own changes vanish with it), has the same working directory
and the variables of :data:`CARRIED`, and is root there. Its stdin, stdout, stderr and exit status are
the caller's, so execnet and pytest-xdist take the guest for an ordinary Python:
``pytest -d --tx 'popen//python=python -m harness.kernel.microvm --kernel 6.12'``.

::

    caller ──stdin──> this process ──sockets──> QEMU ──virtio-serial──> the guest's program
           <─stdout,      │     <──"up", "exit 0"── control ────────── session.sh
              stderr──    └── a memory file <── the guest's console, QEMU's complaints

Nothing outlives the caller, however that ends: the kernel kills QEMU when this process ends, and this
process when its parent does. No file with a name is made for a guest.
"""

from __future__ import annotations

import argparse
import compileall
import ctypes
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import ending
from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.kernel import images, modules, preload
from harness.kernel.accelerator import accelerator, qemu
from harness.kernel.images import Image
from harness.kernel.initramfs import initramfs
from harness.kernel.vmlinux import vmlinux
from harness.text import escape

CARRIED = re.compile(
    r"(PYTHON|PYTEST|NFT_|LC_|XDG_)\w*|PATH|HOME|USER|LANG|TZ|TERM|COLUMNS|VIRTUAL_ENV|CI|NO_COLOR|FORCE_COLOR"
)
"""Names of the environment variables that go into the guest."""

BOOT_DEADLINE = 180.0
"""Seconds for the guest to come up; emulated it takes 3 s of one CPU, of which a busy machine gives it a twentieth."""

SILENCE = 60.0
"""Seconds without a word from the guest after which its kernel hangs; session.sh says one every 2 s."""

NO_STATUS = 125
"""Our exit status when the guest's program has none, as with env(1)."""

MEMORY = 2048
"""MiB; the host gives what is touched, about 400 MiB for a scenario run."""

CPUS = 1
"""Emulated, a second CPU sees the kernel patch its own text half-done: "Oops: int3" (QEMU 7.2)."""

KERNEL_COMMAND_LINE = " ".join(
    [
        # What the kernel prints is for one who looks for the cause of a failure: little, and at once.
        "console=ttyS0 quiet panic=-1 oops=panic reboot=t",
        # Nobody attacks this guest. Emulated, every guard costs time (boot: 4.8 s of CPU without this line, 3.4 with).
        "mitigations=off lsm= audit=0 init_on_alloc=0 nokaslr norandmaps cryptomgr.notests",
        # The test of the timer gives up, and panics, when the host is busy for its 10 ticks.
        "no_timer_check",
        # It is the host's TSC; a busy host makes the kernel doubt it, and any other clock is an exit to QEMU.
        "tsc=reliable",
        # Removing a namespace or detaching a probe waits for several grace periods.
        "rcupdate.rcu_expedited=1",
    ]
)
"""Source: Linux Documentation/admin-guide/kernel-parameters.txt."""

# Not the smaller "microvm": its only clock is a TSC that Linux has to calibrate by the timer interrupt, and on
# a busy host it hangs there. Both take the same time to boot.
MACHINE = "q35,sata=off,smbus=off,usb=off,vmport=off"

# Emulated, a string instruction works byte by byte, and each level of the page tables is walked in software.
CPU = {"kvm": "host", "tcg": "max,la57=off,erms=off,fsrm=off"}

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--parent": {"type": int},
    "--kernel": {"default": images.DEFAULT},
    "--accelerator": {"choices": list(CPU)},
    "--console": {"type": Path},
    "--memory": {"type": int, "default": MEMORY},
    "--cpus": {"type": int, "default": CPUS},
    "--deadline": {"type": float, "default": BOOT_DEADLINE},
    "--silence": {"type": float, "default": SILENCE},
    "--until": {"choices": ["exit", "eof"], "default": "exit"},
    "--output": {"action": "append", "default": [], "metavar": "NAME:DESCRIPTOR"},
}
"""Of the command line: what :func:`run` takes, where the console's text shall go, and with which process we end."""

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Guest:
    """A microVM that is planned as a worker of pytest-xdist; it boots when xdist starts the worker."""

    def __init__(self, image: Image, accelerator: str) -> None:
        self.image = image
        self.accelerator = accelerator
        self._console = _memory_file("console")

    @classmethod
    def plan(cls, image: Image) -> Guest:
        """A guest that will boot ``image`` as fast as this machine can.

        Raises :class:`Unsupported` when QEMU, busybox or a kernel module is missing.
        """
        chosen = accelerator(image).name
        initramfs(image, "")  # complain now, not from a worker
        return cls(image, chosen)

    @property
    def name(self) -> str:
        """Its kernel's release without what all of Debian's have: ``6.12.107``, ``6.1.0-50``."""
        return re.sub(r"(\+deb\d+)?(-amd64)?$", "", self.image.release)

    def worker(self, copy: int = 0) -> str:
        """What a worker in the guest is called: as the guest; further copies of the guest have a number behind it."""
        return f"{self.name}-{copy}" if copy else self.name

    def spec(self, copy: int = 0) -> str:
        """What ``pytest --tx`` takes: an execnet specification of a worker whose Python is this guest."""
        # In a session of its own: Ctrl-C in the terminal is for pytest, which ends its workers.
        command = ["setsid", *wrapper(), "--kernel", str(self.image.vmlinuz)]
        # When execnet has closed its end, everything of the worker's has arrived.
        command += ["--until", "eof", "--accelerator", self.accelerator]
        command += ["--console", f"/proc/{os.getpid()}/fd/{self._console}"]
        # "//" ends a value of execnet's specifications.
        return f"popen//id={self.worker(copy)}//python={re.sub('/+', '/', shlex.join(command))}"

    def console(self) -> str:
        """What the kernel of the guest and its copies, its init script and QEMU have said until now."""
        return _text(self._console)

    def describe(self) -> str:
        """For example ``kernel 6.12.107 in a microVM (TCG)``."""
        return f"kernel {self.name} in a microVM ({self.accelerator.upper()})"


def wrapper() -> list[str]:
    """The command that is :func:`main` in a process of its own, which ends when this one does; options follow."""
    return [sys.executable, "-m", "harness.kernel.microvm", "--parent", str(os.getpid())]


def run(
    image: Image,
    argv: Sequence[str],
    *,
    accelerator: str,
    console: int,
    memory: int = MEMORY,
    cpus: int = CPUS,
    deadline: float = BOOT_DEADLINE,
    silence: float = SILENCE,
    until: str = "exit",
    outputs: Mapping[str, int] | None = None,
) -> int:
    """Boot ``image``, run ``argv`` in it on our stdin, stdout and stderr, and return its exit status.

    The file descriptor ``console`` gets what the guest's kernel and QEMU have to say; ``memory`` is
    in MiB; ``deadline`` are the seconds until the guest must be up, ``silence`` those after which it hangs
    when nothing is heard of it. With ``until="eof"`` the end of our stdin ends the guest as well, with
    status 0: a program in the guest takes a second to detach its probes and to go. To the descriptors
    in ``outputs`` goes what the guest writes into the ports of these names (see :mod:`harness.kernel.port`).

    Raises :class:`Unsupported` when something is missing or the guest does not come up,
    :class:`BrokenMeasurement` when it hangs or ends before its program did.
    """
    ports = {name: socket.socketpair() for name in ("stdin", "stdout", "stderr", *(outputs or {}), "control")}
    ours = {name: here for name, (here, _) in ports.items()}
    theirs = {name: there.fileno() for name, (_, there) in ports.items()}
    archive = _memory_file("initramfs", initramfs(image, _command(argv), preload.files()))
    command = [
        *_machine(accelerator, memory, cpus),
        *("-kernel", str(vmlinux(image)), "-initrd", f"/dev/fd/{archive}", "-append", KERNEL_COMMAND_LINE),
        *("-chardev", f"file,id=console,append=on,path=/dev/fd/{console}", "-serial", "chardev:console"),
        *_virtio(theirs),
    ]
    unwanted = threading.Event()

    def at_eof() -> None:
        if until == "exit":
            ours["stdin"].shutdown(socket.SHUT_WR)
        else:
            unwanted.set()
            ours["control"].shutdown(socket.SHUT_RD)  # _wait() returns

    with _running(command, inherit=[archive, *theirs.values()], output=console):
        # What is not compiled here the guest compiles at each boot anew: the whole package in 3 s, emulated.
        compileall.compile_dir(Path(__file__).parents[1], quiet=2)
        os.close(archive)
        for _, there in ports.values():
            there.close()
        threading.Thread(target=_send, args=(0, ours["stdin"], at_eof), daemon=True).start()
        receivers = [
            threading.Thread(target=_receive, args=(ours[name], target))
            for name, target in {"stdout": 1, "stderr": 2, **(outputs or {})}.items()
        ]
        for thread in receivers:
            thread.start()
        ending.check()
        status = _wait(ours["control"], deadline, silence)
    # A write to a port returns when QEMU has it: all of the program's output is in our sockets.
    for thread in receivers:
        thread.join()
    if unwanted.is_set():
        return 0
    if isinstance(status, HarnessError):
        if panic := re.search(r"Kernel panic - not syncing: (.*)", _text(console)):
            status.sentence += f": kernel panic, {panic[1]}"
        raise status
    return status


def _command(argv: Sequence[str]) -> str:
    """The script that session.sh runs."""
    variables = {name: value for name, value in os.environ.items() if CARRIED.fullmatch(name)}
    variables["PYTHONDONTWRITEBYTECODE"] = "1"  # it would be written into memory and vanish
    # By its whole path: busybox's sh takes its own "ip" for any other.
    program = shutil.which(argv[0]) or argv[0]
    return "\n".join(
        [
            *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
            f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join([program, *argv[1:]])}",
        ]
    )


def _machine(accelerator: str, memory: int, cpus: int) -> list[str]:
    return [
        *(qemu(), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", MACHINE, "-accel", accelerator, "-cpu", CPU[accelerator], "-smp", str(cpus), "-m", str(memory)),
    ]


def _virtio(ports: Mapping[str, int]) -> list[str]:
    """The host's files, and ports with their names; each port is a connected socket that QEMU inherits."""
    share = "local,id=host,path=/,readonly=on,security_model=none,multidevs=remap"
    devices = ["-fsdev", share, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "virtio-serial-pci"]
    for name, fd in ports.items():
        devices += ["-chardev", f"socket,id={name},fd={fd}", "-device", f"virtserialport,chardev={name},name={name}"]
    return devices


@contextmanager
def _running(command: Sequence[str], *, inherit: Sequence[int], output: int) -> Iterator[None]:
    """A process that ends with the block, or with us."""
    process = subprocess.Popen(
        command,
        pass_fds=[output, *inherit],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # the terminal's Ctrl-C is for us
        preexec_fn=functools.partial(_die_with, os.getpid()),
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _wait(control: socket.socket, deadline: float, silence: float) -> int | HarnessError:
    """Listen to what the guest says of itself: "up", "alive" again and again, then "exit STATUS"."""
    words = control.makefile()
    control.settimeout(deadline)
    try:
        if not words.readline():
            return Unsupported("the guest ended before it was up")
    except TimeoutError:
        return Unsupported(f"the guest was not up within {deadline:g} s")
    control.settimeout(silence)
    try:
        while word := words.readline():
            if word.startswith("exit "):
                return int(word.split()[1])
    except TimeoutError:
        return BrokenMeasurement(f"the guest hangs: nothing was heard of it for {silence:g} s")
    return BrokenMeasurement("the guest ended before its program did")


def _send(source: int, port: socket.socket, at_eof: Callable[[], None]) -> None:
    try:
        while data := os.read(source, 1 << 16):
            port.sendall(data, socket.MSG_NOSIGNAL)
        at_eof()
    except OSError:
        pass  # the guest has ended and reads no more


def _receive(port: socket.socket, target: int) -> None:
    with open(target, "wb", buffering=0, closefd=False) as file:
        while data := port.recv(1 << 16):
            while data:
                data = data[file.write(data) or 0 :]


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which started it, ends; or has ended by now.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _memory_file(name: str, content: bytes = b"") -> int:
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd


def _text(fd: int) -> str:
    text = os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
    return text.replace("\r", "").replace("\0", "")


def main(arguments: Sequence[str]) -> int:
    """Be the Python, or with ``--exec`` the program, of a guest; the exit status is its own.

    Our own options come first. Of a guest that did not come up or died, one sentence goes to stderr
    and, unless that is kept elsewhere, its console; the status is :data:`NO_STATUS`.
    """
    # Like any program in a pipe: end when nobody reads on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(add_help=False)
    for name, details in OPTIONS.items():
        parser.add_argument(name, **details)
    own = 0
    while own < len(arguments) and arguments[own] in OPTIONS:
        own += 2
    options = parser.parse_args(arguments[:own])
    _die_with(options.parent or os.getppid())
    rest = arguments[own:]
    argv = rest[1:] if rest[:1] == ["--exec"] else [sys.executable, *rest]
    if rest[:1] != ["--exec"]:  # what the harness itself runs there may do with that kernel as it likes
        os.environ[modules.ENVIRONMENT] = modules.ALL
    console = os.open(options.console, os.O_RDWR | os.O_APPEND) if options.console else _memory_file("console")
    try:
        image = images.find(options.kernel)
        if image is None:
            raise Unsupported(
                f"no kernel image {options.kernel!r} is here", remedy=f"run nft-harness kernels fetch {options.kernel}"
            )
        return run(
            image,
            argv,
            accelerator=options.accelerator or accelerator(image).name,
            console=console,
            memory=options.memory,
            cpus=options.cpus,
            deadline=options.deadline,
            silence=options.silence,
            until=options.until,
            outputs={name: int(target) for name, _, target in (text.partition(":") for text in options.output)},
        )
    except HarnessError as error:
        told = [] if options.console else _text(console).splitlines()
        sys.stderr.write("".join(f"nft-harness: {escape(line)}\n" for line in [str(error), *told]))
        return NO_STATUS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
