"""The VM is a Python: run the interpreter, or any program, in a kernel of one's choice.

::

    python -m harness.kernel.microvm --kernel 6.12 -u -c 'print("hello")'
    python -m harness.kernel.microvm --kernel 6.12 --exec uname -a

The program sees the host's files (its own changes vanish with it), the same working directory and
the variables of :data:`CARRIED`; it is root there. Its stdin, stdout, stderr and exit status are the
caller's, so execnet and pytest-xdist take the guest for an ordinary Python:
``pytest -d --tx 'popen//python=python -m harness.kernel.microvm --kernel 6.12'``.

Nothing outlives the caller, however that ends: the kernel kills QEMU when this process ends, and this
process when its parent does; what QEMU reads and writes are pipes and memory files without a name.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.kernel import images
from harness.kernel.images import Image
from harness.kernel.initramfs import initramfs
from harness.kernel.vmlinux import vmlinux

CARRIED = re.compile(r"(PYTHON|PYTEST|NFT_|LC_|XDG_)\w*|PATH|HOME|LANG|TERM|TZ|USER|VIRTUAL_ENV|CI|NO_COLOR|FORCE_COLOR")
"""Names of the environment variables that go into the guest."""

BOOT_DEADLINE = 60.0
"""Seconds until the guest must be up; the emulated boot takes 3 s of one CPU."""

FAILED = 125
"""Exit status when there is none of the guest's program, as env(1) has it."""

KERNEL_COMMAND_LINE = "console=ttyS0 quiet panic=-1 oops=panic reboot=t"

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Guest:
    """A microVM that is to be a worker of pytest-xdist; it boots when xdist opens its gateway."""

    def __init__(self, image: Image, accelerator: str, name: str) -> None:
        self.image = image
        self.accelerator = accelerator
        self.name = name
        """The worker's id, shown by xdist as ``[name]``."""
        self._console = _memory_file("console")

    @classmethod
    def plan(cls, image: Image, accelerator: str | None = None, name: str | None = None) -> Guest:
        """A guest that will boot ``image``; unless told otherwise as fast as this machine can."""
        return cls(image, accelerator or "tcg", name or _version(image))

    @property
    def spec(self) -> str:
        """What ``pytest --tx`` takes: an execnet specification that has this guest as its Python."""
        wrapper = [sys.executable, "-m", "harness.kernel.microvm", "--kernel", str(self.image.vmlinuz)]
        wrapper += ["--accelerator", self.accelerator, "--console", f"/proc/{os.getpid()}/fd/{self._console}"]
        return f"popen//id={self.name}//python={shlex.join(wrapper)}"

    def console(self) -> str:
        """What the guest's kernel and its early userspace said until now, and QEMU's complaints."""
        return _text(self._console)

    def describe(self) -> str:
        """For example ``kernel 6.12.107 in a microVM (TCG)``."""
        return f"kernel {_version(self.image)} in a microVM ({self.accelerator.upper()})"


def _version(image: Image) -> str:
    """The release without what is the same for all of Debian's: ``6.12.107``, ``6.1.0-50``."""
    return re.sub(r"(\+deb\d+)?(-amd64)?$", "", image.release)


def _text(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace").replace("\r\n", "\n")


def run(
    image: Image,
    argv: Sequence[str],
    *,
    accelerator: str,
    memory: int = 2048,
    cpus: int = 1,
    console: int,
    deadline: float = BOOT_DEADLINE,
) -> int:
    """Boot ``image``, run ``argv`` in it on this process's stdin, stdout and stderr; its exit status.

    ``memory`` in MiB. ``console`` is a file descriptor that gets the console's text.
    Raises :class:`Unsupported` when the guest does not come up within ``deadline`` seconds and
    :class:`BrokenMeasurement` when it ends without a word (a kernel panic).
    """
    ends = {name: socket.socketpair() for name in ("stdin", "stdout", "stderr", "control")}
    archive = _memory_file("initramfs", initramfs(image, _command(argv)))
    inherited = {name: guest.fileno() for name, (_, guest) in ends.items()}
    qemu = subprocess.Popen(
        [
            *_machine(accelerator, memory, cpus),
            *("-kernel", str(vmlinux(image)), "-initrd", f"/dev/fd/{archive}", "-append", KERNEL_COMMAND_LINE),
            *("-chardev", f"file,id=console,append=on,path=/dev/fd/{console}", "-serial", "chardev:console"),
            *_ports(inherited),
        ],
        pass_fds=[archive, console, *inherited.values()],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        start_new_session=True,  # a terminal's Ctrl-C is for us
        preexec_fn=_die_with_parent,
    )
    os.close(archive)
    for _, guest in ends.values():
        guest.close()
    ours = {name: host for name, (host, _) in ends.items()}
    outputs = [
        threading.Thread(target=_copy, args=(ours["stdout"].fileno(), 1)),
        threading.Thread(target=_copy, args=(ours["stderr"].fileno(), 2)),
    ]
    try:
        for thread in outputs:
            thread.start()
        threading.Thread(target=_feed, args=(0, ours["stdin"]), daemon=True).start()
        return _follow(ours["control"], deadline)
    finally:
        qemu.kill()
        qemu.wait()
        for thread in outputs:
            thread.join()


def _follow(control: socket.socket, deadline: float) -> int:
    """Read what the guest says about itself: ``up``, then ``exit STATUS``."""
    with control.makefile() as words:
        control.settimeout(deadline)
        try:
            up = words.readline()
        except TimeoutError:
            raise Unsupported(f"the guest did not come up within {deadline:g} s") from None
        if not up:
            raise Unsupported("the guest ended before it was up")
        control.settimeout(None)
        last = words.readline().split()
    if not last:
        raise BrokenMeasurement("the guest ended without a word")
    return int(last[1])


def _machine(accelerator: str, memory: int, cpus: int) -> list[str]:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise Unsupported("qemu-system-x86_64 is missing", remedy="run apt-get install qemu-system-x86")
    return [
        *(qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", accelerator, "-cpu", _CPU[accelerator]),
        *("-smp", str(cpus), "-m", str(memory)),
        *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "virtio-serial-pci"),
    ]


_CPU = {"kvm": "host", "tcg": "max,la57=off,erms=off,fsrm=off"}


def _ports(ports: Mapping[str, int]) -> list[str]:
    """The ports of the guest, by name; each is a connected socket that QEMU inherits."""
    arguments = []
    for name, number in ports.items():
        arguments += ["-chardev", f"socket,id={name},fd={number}", "-device", f"virtserialport,chardev={name},name={name}"]
    return arguments


def _command(argv: Sequence[str]) -> str:
    """The script that ends the guest's boot; file descriptor 3 is the port "control"."""
    carried = {name: value for name, value in os.environ.items() if CARRIED.fullmatch(name)}
    # A .pyc file written there would vanish with the guest.
    carried["PYTHONDONTWRITEBYTECODE"] = "1"
    # By its whole path, or busybox's sh would take a program of its own by that name.
    program = shutil.which(argv[0]) or argv[0]
    ports = "/run/guest"
    return "\n".join(
        [
            "echo up >&3",
            f"cd {shlex.quote(os.getcwd())}",
            *(f"export {name}={shlex.quote(value)}" for name, value in carried.items()),
            f"{shlex.join([program, *argv[1:]])} <{ports}/stdin >{ports}/stdout 2>{ports}/stderr 3>&-",
            'echo "exit $?" >&3',
            "read -r forever <&3",  # the host ends the guest, which must not end by itself
        ]
    )


def _memory_file(name: str, content: bytes = b"") -> int:
    number = os.memfd_create(name)
    with open(number, "wb", closefd=False) as file:
        file.write(content)
    return number


def _die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends. Source: prctl(2)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _copy(source: int, target: int) -> None:
    """Copy bytes as they come, until the end of ``source``."""
    with open(target, "wb", buffering=0, closefd=False) as file:
        while data := os.read(source, 65536):
            while data:
                data = data[file.write(data) or 0 :]


def _feed(source: int, port: socket.socket) -> None:
    try:
        _copy(source, port.fileno())
        port.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the guest has ended and reads no more


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the Python, or the program, of a guest; the command line of this module."""
    _die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m harness.kernel.microvm", allow_abbrev=False)
    parser.add_argument("--kernel", default=images.DEFAULT)
    parser.add_argument("--accelerator", default="tcg", choices=["kvm", "tcg"])
    parser.add_argument("--memory", type=int, default=2048)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--console", type=Path)
    parser.add_argument("--deadline", type=float, default=BOOT_DEADLINE)
    parser.add_argument("--exec", action="store_true")
    options, rest = parser.parse_known_args(arguments)
    argv = rest if options.exec else [sys.executable, *rest]
    try:
        image = images.get(options.kernel)
        console = os.open(options.console, os.O_RDWR | os.O_APPEND) if options.console else _memory_file("console")
        try:
            return run(
                image,
                argv,
                accelerator=options.accelerator,
                memory=options.memory,
                cpus=options.cpus,
                console=console,
                deadline=options.deadline,
            )
        except HarnessError as error:
            print(f"nft-harness: {error}", file=sys.stderr)
            print(_text(console), file=sys.stderr)
            return FAILED
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
