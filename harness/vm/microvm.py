"""The VM is a Python: run the interpreter, or any program, in a kernel of one's choice.

::

    python -m harness.vm.microvm --kernel 6.12 -u -c 'print("hello")'
    python -m harness.vm.microvm --kernel 6.12 --exec uname -a

The program sees the host's files (its own changes vanish with it), has the same working directory
and the variables of :data:`CARRIED`, and is root there. Its stdin, stdout, stderr and exit status are
the caller's, so execnet and pytest-xdist take the guest for an ordinary Python:
``pytest -d --tx 'popen//python=python -m harness.vm.microvm --kernel 6.12'``.

::

    caller ──stdin──> this process ──sockets──> QEMU ──virtio-serial──> the guest's program
           <─stdout,      │     <──"up", "exit 0"── control ────────── session.sh
              stderr──    └── a memory file <── the guest's console, QEMU's messages

Nothing outlives the caller, however that ends: the kernel kills QEMU when this process ends, and this
process when its parent does. No file with a name is made for a guest.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TextIO

import msgspec

from harness import ending
from harness.errors import KILLED, BrokenMeasurement, HarnessError, Unsupported
from harness.linux import modules
from harness.text import escape, last_sentence
from harness.vm import images, initramfs, machine, nft, placement, preload, template
from harness.vm.accelerator import accelerator
from harness.vm.kernel_image import Image
from harness.vm.qmp import Monitor, MonitorError
from harness.vm.vmlinux import vmlinux

CARRIED = re.compile(
    r"(PYTHON|PYTEST|NFT_|LC_|XDG_)\w*|PATH|HOME|USER|LANG|TZ|TERM|COLUMNS|VIRTUAL_ENV|CI|NO_COLOR|FORCE_COLOR"
)
"""Names of the environment variables that go into the guest."""

BOOT_DEADLINE = 180.0
"""Seconds for the guest to come up; emulated it takes 3 s of one CPU, of which a busy machine gives it a twentieth."""

RESTORE_DEADLINE = 20.0
"""Seconds for a restored guest to come up; emulated it takes 0.15 s."""

SILENCE = 60.0
"""Seconds without a heartbeat after which the guest counts as hung; session.sh sends one every 2 s."""

ENDING_S = 1.0
"""Seconds within which QEMU has ended when it has closed the ports of its guest."""

NO_STATUS = 125
"""Our exit status when the guest's program has none, as with env(1)."""

PREFIX = "nft-harness: "
"""What begins each line of the wrapper's own: the console, and at last the reason why the program has no status."""

MEMORY = 2048
"""MiB; the host gives what is touched, about 400 MiB for a scenario run."""

CPUS = 1
"""Emulated, a second CPU sees the kernel patch its own text half-done: "Oops: int3" (QEMU 7.2)."""

AUTO, COLD = "auto", "cold"
"""How to start: restored where there is a template, or booted. Anything else is the name of a template to restore,
which the caller has found to be valid."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--parent": {"type": int},
    "--kernel": {"default": images.DEFAULT},
    "--accelerator": {"choices": list(machine.CPU)},
    "--console": {"type": Path},
    "--nft": {"default": ""},
    "--memory": {"type": int, "default": MEMORY},
    "--cpus": {"type": int, "default": CPUS},
    "--deadline": {"type": float, "default": BOOT_DEADLINE},
    "--silence": {"type": float, "default": SILENCE},
    "--start": {"default": AUTO},
    "--until": {"choices": ["exit", "eof"], "default": "exit"},
    "--output": {"action": "append", "default": [], "metavar": "NAME:DESCRIPTOR"},
}
"""Of the command line: what :func:`run` takes, where the console's text shall go, with which process we end, and the
nft that reads rulesets: its folder, or :func:`harness.vm.images.nft_called`."""


def complaint(printed: str, otherwise: str = "it printed nothing") -> str:
    """Why a program in a guest has ended, from what it and its wrapper have ``printed``, or ``otherwise``."""
    return last_sentence(printed, otherwise).removeprefix(PREFIX)


def wrapper() -> list[str]:
    """The command that is :func:`main` in a process of its own, which ends when this one does; options follow."""
    return [sys.executable, "-m", "harness.vm.microvm", "--parent", str(os.getpid())]


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
    start: str = AUTO,
) -> int:
    """Start ``image``, run ``argv`` in it on our stdin, stdout and stderr, and return its exit status.

    The file descriptor ``console`` receives the output of the guest's kernel and of QEMU; ``memory`` is
    in MiB; ``deadline`` are the seconds until the guest must be up, ``silence`` those after which it hangs
    when it sends nothing. With ``until="eof"`` the end of our stdin ends the guest as well, with
    status 0: a program in the guest takes a second to detach its probes and to go. To the descriptors
    in ``outputs`` goes what the guest writes into the ports of these names (see :mod:`harness.vm.port`).
    ``start`` is :data:`AUTO`, :data:`COLD` or the name of a template.

    Raises :class:`Unsupported` when something is missing or the guest does not come up,
    :class:`BrokenMeasurement` when it hangs or ends before its program did.
    """
    outputs = outputs or {}
    if start != COLD and cpus == CPUS and len(outputs) <= len(template.SPARE):
        with suppress(template.NoTemplate):
            if start == AUTO:
                saved = template.find(template.key(image, machine.machine(accelerator, memory, CPUS)))
            else:
                saved = template.named(start)
            try:
                with closing(_restored(saved, image, argv, accelerator, memory, outputs)) as restored:
                    return _attempt(restored, console=console, deadline=RESTORE_DEADLINE, silence=silence, until=until)
            except _NotRestored as error:
                template.discard(saved)
                sys.stderr.write(f"nft-harness: the guest boots, as its template could not be restored: {error}\n")
    with closing(_booted(image, argv, accelerator, memory, cpus, outputs)) as booted:
        return _attempt(booted, console=console, deadline=deadline, silence=silence, until=until)


class _NotRestored(HarnessError):
    """A template did not become a guest; nothing of the program has run."""


class _Start(msgspec.Struct, kw_only=True):
    """How a guest comes to be, with the ends of its ports."""

    command: list[str]
    """QEMU's, without the devices."""
    inherit: int
    """Descriptor of a file that QEMU reads."""
    outputs: dict[str, int]
    """Descriptors by the ports whose output goes there."""
    begin: Callable[[dict[str, socket.socket]], None]
    """Called when QEMU runs."""
    restored: bool
    names: tuple[str, ...]
    """Of the sockets: ports, and QEMU's monitor."""

    def close(self) -> None:
        """Close what QEMU has inherited."""
        os.close(self.inherit)


def _booted(
    image: Image, argv: Sequence[str], accelerator: str, memory: int, cpus: int, outputs: Mapping[str, int]
) -> _Start:
    archive = machine.memory_file("initramfs", initramfs.initramfs(image, _command(argv, image), preload.files()))

    def begin(_: dict[str, socket.socket]) -> None:
        # What is not compiled here the guest compiles at each boot anew: the whole package in 3 s, emulated.
        compileall.compile_dir(Path(__file__).parents[1], quiet=2)

    return _Start(
        command=[
            *machine.machine(accelerator, memory, cpus),
            *("-kernel", str(vmlinux(image)), "-initrd", f"/dev/fd/{archive}"),
            *("-append", machine.kernel_command_line(accelerator)),
        ],
        inherit=archive,
        outputs={"stdout": 1, "stderr": 2, **outputs},
        begin=begin,
        restored=False,
        names=("stdin", "stdout", "stderr", *outputs, "control"),
    )


def _restored(
    saved: template.Template,
    image: Image,
    argv: Sequence[str],
    accelerator: str,
    memory: int,
    outputs: Mapping[str, int],
) -> _Start:
    try:
        state = os.open(saved.state, os.O_RDONLY)
    except OSError as error:  # another process has found it to be out of date
        raise _NotRestored(f"{error.filename}: {error.strerror}") from None
    modules = (image.modules / "lib/modules" / image.release).resolve()
    program = shutil.which(argv[0]) or argv[0]
    task = template.task([program, *argv[1:]], _variables(image), modules, list(outputs))

    def begin(ends: dict[str, socket.socket]) -> None:
        try:
            ends["control"].sendall(task)
            ends["monitor"].settimeout(RESTORE_DEADLINE)
            template.restore(Monitor(ends["monitor"]), state)
        except (OSError, MonitorError) as error:
            raise _NotRestored(str(error)) from None

    return _Start(
        command=template.command(saved, accelerator, memory),
        inherit=state,
        outputs={"stdout": 1, "stderr": 2, **dict(zip(template.SPARE, outputs.values(), strict=False))},
        begin=begin,
        restored=True,
        names=(*template.PORTS, *template.SPARE, "monitor"),
    )


def _attempt(start: _Start, *, console: int, deadline: float, silence: float, until: str) -> int:
    pairs = {name: socket.socketpair() for name in start.names}
    ends = {name: here for name, (here, _) in pairs.items()}
    theirs: dict[str, int] = {name: there.fileno() for name, (_, there) in pairs.items()}
    unwanted = threading.Event()

    def at_eof() -> None:
        if until == "exit":
            ends["stdin"].shutdown(socket.SHUT_WR)
        else:
            unwanted.set()
            ends["control"].shutdown(socket.SHUT_RD)  # _wait() returns

    sender = threading.Thread(target=_send, args=(0, ends["stdin"], at_eof), daemon=True)
    receivers = [threading.Thread(target=_receive, args=(ends[name], target)) for name, target in start.outputs.items()]
    inherit = [start.inherit, *theirs.values()]
    monitor = theirs.pop("monitor", None)
    command = [*start.command, *machine.devices(console, theirs, monitor)]
    with machine.running(command, inherit=inherit, output=console) as qemu:
        for _, there in pairs.values():
            there.close()
        start.begin(ends)
        if not start.restored:
            sender.start()
        words = ends["control"].makefile()
        status: int | HarnessError | None = _up(ends["control"], words, deadline)
        if isinstance(status, HarnessError) and not unwanted.is_set():  # a guest that is unwanted runs on
            status = _explained(status, qemu)
            if start.restored:
                raise _NotRestored(status.sentence)
        if start.restored:
            sender.start()
        for thread in receivers:
            thread.start()
        ending.check()
        if status is None:
            status = _wait(ends["control"], words, silence)
            if isinstance(status, HarnessError) and not unwanted.is_set():
                status = _explained(status, qemu)
    # A write to a port returns when QEMU has it: all of the program's output is in our sockets.
    for thread in receivers:
        thread.join()
    if unwanted.is_set():
        return 0
    if isinstance(status, HarnessError):
        if panic := machine.panic(console):
            status.sentence += f": {panic}"
        raise status
    return status


def _explained(error: HarnessError, qemu: subprocess.Popen[bytes]) -> HarnessError:
    """``error``, with the reason that somebody else has killed QEMU, where that is so."""
    with suppress(subprocess.TimeoutExpired):
        if qemu.wait(ENDING_S) == -signal.SIGKILL:
            sentence = f"{error.sentence}: QEMU was killed, {KILLED}"
            return type(error)(sentence, remedy="free some, raise the limit of the cgroup, or use fewer workers (-n 1)")
    return error


def _command(argv: Sequence[str], image: Image) -> str:
    """The script that session.sh runs."""
    # By its whole path: busybox's sh takes its own "ip" for any other.
    program = shutil.which(argv[0]) or argv[0]
    return "\n".join(
        [
            *(f"export {name}={shlex.quote(value)}" for name, value in _variables(image).items()),
            f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join([program, *argv[1:]])}",
        ]
    )


def _variables(image: Image) -> dict[str, str]:
    """Those of our environment that the program has in the guest."""
    variables = {name: value for name, value in os.environ.items() if CARRIED.fullmatch(name)}
    reader = {nft.VARIABLE: str(image.nft.folder) if image.nft else ""}
    return variables | {template.NO_BYTECODE: "1"} | reader


def _up(control: socket.socket, words: TextIO, deadline: float) -> HarnessError | None:
    """Wait for the guest's first word on the port "control"."""
    control.settimeout(deadline)
    try:
        if not words.readline():
            return Unsupported("the guest ended before it was up")
    except TimeoutError:
        return Unsupported(f"the guest was not up within {deadline:g} s")
    except ConnectionError:  # QEMU has ended, and has not read what it was sent
        return Unsupported("the guest ended before it was up")
    return None


def _wait(control: socket.socket, words: TextIO, silence: float) -> int | HarnessError:
    """Listen to what a guest that is up says of itself: "alive" again and again, then "exit STATUS"."""
    control.settimeout(silence)
    try:
        while word := words.readline():
            if word.startswith("exit "):
                return int(word.split()[1])
    except TimeoutError:
        return BrokenMeasurement(f"the guest hangs: it sent nothing for {silence:g} s")
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


def main(arguments: Sequence[str]) -> int:
    """Be the Python, or with ``--exec`` the program, of a guest; the exit status is its own.

    Our own options come first. Of a guest that did not come up or died, one sentence goes to stderr
    and, unless that is kept elsewhere, its console; the status is :data:`NO_STATUS`.
    """
    # Like any program in a pipe: end when the reader has.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(add_help=False)
    for name, details in OPTIONS.items():
        parser.add_argument(name, **details)
    own = 0
    while own < len(arguments) and arguments[own] in OPTIONS:
        own += 2
    options = parser.parse_args(arguments[:own])
    machine.die_with(options.parent or os.getppid())
    rest = arguments[own:]
    argv = rest[1:] if rest[:1] == ["--exec"] else [sys.executable, *rest]
    if rest[:1] != ["--exec"]:  # what the harness itself runs there may do with that kernel as it likes
        os.environ[modules.ENVIRONMENT] = modules.ALL
    console = os.open(options.console, os.O_RDWR | os.O_APPEND) if options.console else machine.memory_file("console")
    try:
        image = images.find(options.kernel)
        if image is None:
            raise Unsupported(
                f"no kernel image {options.kernel!r} is here", remedy=f"run nft-harness kernels fetch {options.kernel}"
            )
        if "/" in options.nft:
            image = msgspec.structs.replace(image, nft=nft.read(Path(options.nft)))
        else:
            reader = images.nft_called(options.nft or placement.asked_nft(), image)
            image = msgspec.structs.replace(image, nft=reader)
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
            start=options.start,
            outputs={name: int(target) for name, _, target in (text.partition(":") for text in options.output)},
        )
    except HarnessError as error:
        shown = [] if options.console else machine.text(console).splitlines()
        sys.stderr.write("".join(f"{PREFIX}{escape(line)}\n" for line in [*shown, str(error)]))
        return NO_STATUS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
