"""Into the lab of a scenario: its hosts, its ruleset, and a shell or a command in one of them.

::

    enter ── here, as root ───────────────> lab → ruleset → packets → names → program
          └─ in a microVM: the same, by ──> nft-harness lab enter --kernel host …
                                            there, on the caller's terminal

Nothing is left behind, however it ends: the hosts live as long as this process, and their names as
long as those that it started.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from harness import ending
from harness.ending import exit_status
from harness.errors import HarnessError, Unsupported, together
from harness.lab import changes as lab_changes
from harness.lab import named
from harness.lab.inject import sender
from harness.lab.lab import Lab
from harness.linux import modules
from harness.packets.frames import build
from harness.programs import refuse_not_runnable
from harness.ruleset.changes import apply
from harness.ruleset.hosts import built
from harness.ruleset.load import Ruleset
from harness.scenario.case import Broken, Case
from harness.scenario.files import shortened
from harness.scenario.load import load_all
from harness.scenario.models.actions import ChangeAction, FlushAction, NftAction, ReloadAction, SendAction
from harness.text import say
from harness.topology import changes, drawing
from harness.vm import nft, placement
from harness.vm.kernel_image import Image
from harness.vm.port import in_guest, port

READY = "terminal"
"""Port of the microVM by which the guest reports that it has a terminal."""

SIZE = "NFT_HARNESS_TERMINAL"
"""Environment variable: lines and columns of the caller's terminal, where the guest shall make one like it."""

_PR_SET_PDEATHSIG = 1


class ShellRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be entered."""

    file: Path
    scenario: str = ""
    """Name or id; "" for the first one of the file."""
    host: str = ""
    """"" for the device under test."""
    argv: tuple[str, ...] = ()
    """A program and its arguments; nothing for a shell."""
    send: bool = True
    """Whether the scenario's packets are sent before."""
    kernel: str = placement.AUTO
    """As ``--nft-kernel``."""
    modules: str = ""
    """As ``--nft-modules``: names, with commas between them."""
    nft_program: str = nft.IMAGE
    """As ``--nft-program``."""


def enter(request: ShellRequest) -> int:
    """Build the lab that ``request`` names, where its scenarios run, and run the program in it; its exit status.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done.
    """
    case = find(request.file, request.scenario)
    if request.argv:
        refuse_not_runnable(request.argv[0], _PATH)
    if request.host and request.host not in case.network.hosts:
        hosts = ", ".join(case.network.hosts)
        raise HarnessError(f"the lab has no host {request.host}", remedy=f"it has {hosts}")
    if request.kernel == placement.HOST:
        if not in_guest():
            placement.use_nft(request.nft_program)
        return _here(case, request)
    from harness.vm.progress import shown

    with shown(sys.stderr) as progress:
        (place,) = placement.choose([request.kernel], progress, nft_program=request.nft_program)
    if place.image is None:
        nft.use(place.nft)
        return _here(case, request)
    return _in_guest(case, request, place.image)


def find(file: Path, scenario: str) -> Case:
    """The scenario of ``file`` with this name or id; without one the first that can be run.

    Raises :class:`~harness.errors.HarnessError` when there is none.
    """
    loaded = load_all(shortened(file.absolute()), recording=True)
    if loaded.errors:
        raise together(loaded.errors)
    for case in loaded.cases:
        if scenario in (case.name, case.id) or (not scenario and isinstance(case, Case)):
            if isinstance(case, Broken):
                raise together(case.errors)
            return case
    raise HarnessError(
        f"{file} has no scenario '{scenario}'", remedy=f"it has {', '.join(one.id for one in loaded.cases)}"
    )


def keep(request: ShellRequest) -> list[str]:
    """Build the lab that ``request`` names on this kernel, and leave it; the names of its hosts' namespaces.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done; then nothing is left.
    """
    case = find(request.file, request.scenario)
    with built(case.network, case.rulesets) as (lab, rulesets):
        names = named.name(lab, named.KEPT)
        if request.send:
            try:
                _replay(lab, rulesets[lab.network.device], case)
            except BaseException:
                named.remove(names)
                raise
        return names


# --- here ---------------------------------------------------------------------------------------


def _here(case: Case, request: ShellRequest) -> int:
    modules.permit(request.modules.split(","))
    if os.geteuid() != 0:
        raise Unsupported(
            "only root may create network namespaces", remedy="leave out --kernel host: a microVM has root"
        )
    if shutil.which("ip", path=_PATH) is None:
        raise Unsupported("the program ip is missing", remedy="run apt-get install iproute2")
    named.leave_mounts()
    with built(case.network, case.rulesets) as (lab, rulesets):
        named.name(lab)
        if request.send:
            _replay(lab, rulesets[lab.network.device], case)
        host = request.host or lab.network.device
        argv = request.argv or _shell(host)
        if not request.argv:
            say(_greeting(case, request, host))
        return _run(["ip", "netns", "exec", host, *argv], host)


def _replay(lab: Lab, ruleset: Ruleset, case: Case) -> None:
    """Do what the scenario does, unobserved: what its packets leave behind is there."""
    for number, action in enumerate(case.actions):
        match action:
            case SendAction(send=send):
                for frame in build(send, lab.network):
                    sender(lab.hosts[frame.sender], frame).send(frame.data)
            case NftAction() | ReloadAction() | FlushAction():
                files = case.rulesets[lab.network.device]
                ruleset = apply(action, lab.device, ruleset, files, partial(case.where, number))
            case ChangeAction(change=change):
                lab_changes.apply(changes.plan(change, lab.network), lab)


_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _shell(host: str) -> tuple[str, ...]:
    # With the user's own settings the prompt would not show where one is.
    bash = shutil.which("bash")
    return (bash, "--norc", "--noprofile", "-i") if bash else ("/bin/sh", "-i")


def _greeting(case: Case, request: ShellRequest, host: str) -> str:
    others = ", ".join(name for name in case.network.hosts if name != host)
    sent = "loaded, and the packets have been sent" if request.send else "loaded, and no packet has been sent"
    return (
        f"{case.file}: {case.name}\n\n{drawing.text(case.network)}\n"
        f"You are in {host}. The ruleset is {sent}.\n"
        f"  nft list ruleset         in {case.network.device}: the ruleset with its counters\n"
        f"  ip netns exec HOST CMD   in another host: {others}\n"
        f"  exit, or Ctrl-D          ends the lab\n"
    )


def _run(argv: Sequence[str], host: str) -> int:
    """Run ``argv`` on our terminal, or on one that is made for it; it ends with us."""
    path = f"{reader.programs}:{_PATH}" if (reader := nft.current()) else _PATH
    environment = os.environ | {"PS1": f"{host}# ", "PATH": path, "HISTFILE": ""}
    if size := environment.pop(SIZE, ""):
        return _on_terminal(argv, environment, size)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program
    try:
        process = subprocess.Popen(argv, env=environment, preexec_fn=_die_with_us)
        return exit_status(process.wait())
    finally:
        signal.signal(signal.SIGINT, before)


def _die_with_us() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)


def _on_terminal(argv: Sequence[str], environment: Mapping[str, str], size: str) -> int:
    """Run ``argv`` on a new terminal of that size whose other side are our stdin and stdout."""
    # Python's own handler of a Ctrl-C must not run in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child, master = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.execvpe(argv[0], list(argv), dict(environment))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    lines, columns = map(int, size.split())
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    port(READY).write_bytes(b"1")
    sources = [0, master]
    while master in sources:
        for ready in select.select(sources, [], [])[0]:
            data = b""
            with suppress(OSError):  # EIO: no process has the terminal open any more
                data = os.read(ready, 1 << 16)
            if not data:
                sources.remove(ready)
            elif ready == master:
                _write(1, data)
            else:
                _write(master, data)
    return exit_status(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


# --- in a microVM -------------------------------------------------------------------------------


def _in_guest(case: Case, request: ShellRequest, image: Image) -> int:
    from harness.vm.microvm import wrapper

    here = [*wrapper(), "--kernel", str(image.vmlinuz), "--nft", image.nft_argument]
    there = ["-m", "harness.cli", "lab", "enter", f"{request.file}::{case.id}", "--kernel", placement.HOST]
    there += ["--host", request.host] * bool(request.host) + ["--fresh"] * (not request.send)
    there += ["--", *request.argv] if request.argv else []
    ending.check()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return exit_status(subprocess.run([*here, *there], check=False).returncode)
    print("booting the microVM …", file=sys.stderr, flush=True)
    columns, lines = os.get_terminal_size(0)
    with ExitStack() as stack:
        is_ready, says_ready = os.pipe()
        stack.callback(os.close, is_ready)
        stack.enter_context(_terminal_restored())
        # Until there is a terminal in the guest, Ctrl-C is a signal for us and for the guest's process here.
        tty.setcbreak(0)
        process = subprocess.Popen(
            [*here, "--output", f"{READY}:{says_ready}", *there],
            env=os.environ | {SIZE: f"{lines} {columns}"},
            pass_fds=[says_ready],
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        os.close(says_ready)
        if os.read(is_ready, 1):
            tty.setraw(0)
        return exit_status(process.wait())


@contextmanager
def _terminal_restored() -> Iterator[None]:
    """Within, the modes of our terminal may be changed."""
    before = termios.tcgetattr(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
