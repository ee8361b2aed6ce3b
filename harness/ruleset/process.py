"""The processes that parse untrusted rulesets, seen from the process that runs scenarios.

Rulesets are parsed by libnftables and by iptables, programs in C that a file can crash or keep busy for ever. They run
in processes that can be lost, that see no file but those of the project, and that have no privilege but over the
network namespace they are in. :mod:`harness.ruleset.sandbox` is their program.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from harness.errors import KILLED, BrokenMeasurement, HarnessError, Unsupported, shortage_in
from harness.ruleset import sandbox
from harness.vm import nft
from harness.vm.nft import ImageNft
from harness.vm.port import in_guest

SECONDS: Final = 60
"""Within which a command or a file must be done with."""
SECONDS_EMULATED: Final = 300
"""The same where the CPU is emulated."""
PROJECTS_MAX: Final = 16
"""Processes of projects that are kept for the next scenario."""
BINDINGS: Final = "install python3-nftables (it serves the system's Python)"
"""The remedy where libnftables or its Python module is missing."""

_ASSERTION = re.compile(rb"([\w.-]+\.[chyl]):\d+: .*?(Assertion `.*' failed)")
_NO_MEMORY = re.compile(rb"[Mm]emory allocation failure|[Oo]ut of memory|Cannot allocate memory|MemoryError")


class LostError(HarnessError):
    """A process ended before it had answered; the sentence says which and how: ``libnftables ended with SIGABRT``."""


class Reach(NamedTuple):
    """What a process may read."""

    roots: tuple[Path, ...] = ()
    """Folders and files, absolute and without symbolic links; one that is not there is left out."""
    executable: bool = False
    """Whether programs are run from there."""

    def has(self, path: Path) -> bool:
        """Whether ``path``, absolute and without symbolic links, lies within."""
        return any(path.is_relative_to(root) for root in self.roots)


PROGRAMS: Final = Reach(tuple(map(Path, sandbox.PROGRAMS)), executable=True)
"""The programs of this machine, and no project."""


class Reply(NamedTuple):
    """What nft answers."""

    code: int
    """0 unless it refused."""
    output: bytes
    error: bytes


class Child:
    """A process in the network namespace ``namespace``, a descriptor, which may read ``reach``.

    Where ``namespace`` is None, nft reads commands and loads nothing: they are parsed and evaluated, and do not reach
    the kernel. That needs no root. With ``argv`` it is that program, with ``text`` as its standard input; else it runs
    nft's commands. Raises :class:`~harness.errors.Unsupported` where this machine refuses such a process.
    """

    def __init__(self, namespace: int | None, reach: Reach, argv: list[str] | None = None, text: bytes = b"") -> None:
        self._project = (_readers if namespace is None else _projects).get(reach)
        self._error = _memory("stderr")
        given = [_memory("stdin", text)] if argv else []
        self._socket, other = socket.socketpair()
        try:
            with other:
                started = self._project.ask(
                    {"argv": argv, "memory": sandbox.MEMORY},
                    (self._error if namespace is None else namespace, other.fileno(), self._error, *given),
                )
            self._pid: int = started["pid"]
            self._project.children += 1
        except BaseException:
            self._socket.close()
            os.close(self._error)
            raise
        finally:
            for one in given:
                os.close(one)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the process end: it does at once."""
        if self._error >= 0:
            self._socket.close()
            os.close(self._error)
            self._error = -1
            self._project.children -= 1

    def ask(self, message: dict[str, Any], text: bytes | None = None) -> Reply:
        """The reply to a request, which may read ``text`` from ``/dev/stdin``.

        Raises :class:`LostError` when the process ends instead, or has to be ended.
        """
        until = time.monotonic() + seconds()
        given = () if text is None else (_memory("stdin", text),)
        try:
            self._socket.settimeout(seconds())
            sandbox.send(self._socket, message, given)
            code, output, error = sandbox.HEADER.unpack(self._receive(sandbox.HEADER.size, until))
            if code == sandbox.TOO_MUCH or output + error > sandbox.MESSAGE_MAX:
                self._end()
                raise LostError(f"answered with more than {sandbox.MESSAGE_MAX >> 20} MiB")
            return Reply(code, self._receive(output, until), self._receive(error, until))
        except TimeoutError:
            self._end()
            raise LostError(f"timed out after {seconds()} s") from None
        except (EOFError, OSError):
            raise LostError(self._described(self._end())) from None
        finally:
            for one in given:
                os.close(one)

    def wait(self) -> tuple[int, str]:
        """Wait for the program's end: its exit status and what it printed. Raises :class:`LostError` otherwise."""
        self._socket.settimeout(seconds())
        try:
            with suppress(ConnectionError):
                self._socket.recv(1)  # it writes nothing there: this is its end
        except TimeoutError:
            self._end()
            raise LostError(f"timed out after {seconds()} s") from None
        status = self._end()
        if os.WIFSIGNALED(status) or _NO_MEMORY.search(self._printed()):
            raise LostError(self._described(status))
        return os.waitstatus_to_exitcode(status), self._printed().decode(errors="replace")

    def _receive(self, size: int, until: float) -> bytes:
        self._socket.settimeout(max(until - time.monotonic(), 0.001))
        return sandbox.exactly(self._socket, size)

    def _end(self) -> int:
        """End the process, unless it has ended by itself; its status, see wait(2)."""
        status: int = self._project.ask({"end": self._pid})["status"]
        return status

    def _described(self, status: int) -> str:
        printed = self._printed()
        if _NO_MEMORY.search(printed):
            most = sandbox.permitted(resource.RLIMIT_AS, sandbox.MEMORY)
            own = ", which is what this process may use (ulimit -v)" if most < sandbox.MEMORY else ""
            return f"used more than {most >> 20:,} MiB of memory{own}"
        code = os.waitstatus_to_exitcode(status)
        how = f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        if code == -signal.SIGKILL:
            how += f", {KILLED}"
        found = _ASSERTION.search(printed)
        return f"{how} ({found[1].decode()}: {found[2].decode(errors='replace')})" if found else how

    def _printed(self) -> bytes:
        return os.pread(self._error, sandbox.STDERR_MAX, 0)


def _memory(name: str, content: bytes = b"") -> int:
    """A descriptor of a file in memory with ``content``, to be read from its start."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    while content:
        content = content[os.write(descriptor, content) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def seconds() -> int:
    """Within which a command must be done with on this CPU."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as file:
        if any(line.startswith("model name") and "TCG" in line for line in file):
            return SECONDS_EMULATED
    return SECONDS


class _Server:
    """A process that answers on a socket, one request after the other; it ends when the socket is closed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lock = threading.Lock()
        self.children = 0
        """Those that it has started and that have not been closed: they end with it."""
        self.is_lost = False

    def send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        try:
            sandbox.send(self._control, message, descriptors)
        except OSError:
            raise self._lost() from None

    def ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        with self._lock:
            try:
                self.send(message, descriptors)
                return self.receive()
            except LostError:
                raise
            except BaseException:  # interrupted, as by pytest-timeout: the answer would be taken for the next one's
                self.is_lost = True
                self.close()
                raise

    def receive(self) -> dict[str, Any]:
        try:
            return sandbox.receive(self._control)[0]
        except (EOFError, OSError):
            raise self._lost() from None

    def close(self) -> None:
        self._control.close()

    def _lost(self) -> LostError:
        self.is_lost = True
        return LostError("ended with the process that starts it", remedy="see whether memory is short")


class _Projects:
    """The parent of all, and the processes of projects; ``alone`` are those that load nothing."""

    def __init__(self, *, alone: bool = False) -> None:
        self._alone = alone
        self._lock = threading.Lock()
        self._parent: _Server | None = None
        self._servers: dict[Reach, _Server] = {}
        self._nft: ImageNft | None = None
        """What they all read rulesets by."""

    def get(self, reach: Reach) -> _Server:
        """The process that is confined to ``reach`` and starts children. Raises :class:`Unsupported`."""
        with self._lock:
            if (chosen := nft.current()) != self._nft:
                self._restart(chosen)
            server = self._servers.pop(reach, None)
            if server is None or server.is_lost:
                try:
                    server = self._start(reach)
                except LostError:  # the parent was lost before: another one
                    server = self._start(reach)
            self._servers[reach] = server  # the last one used
            for old in [one for one, idle in self._servers.items() if idle is not server and not idle.children]:
                if len(self._servers) > PROJECTS_MAX:
                    self._servers.pop(old).close()
            return server

    def _restart(self, chosen: ImageNft | None) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        if self._parent:
            self._parent.close()
        self._parent, self._nft = None, chosen

    def follow(self, root: int) -> None:
        """Have further processes start below the root folder ``root``, a descriptor; see :func:`follow`."""
        with self._lock:
            for server in self._servers.values():
                server.close()
            self._servers.clear()
            if self._parent:
                self._parent.send({"root": True}, (root,))

    def _start(self, reach: Reach) -> _Server:
        if self._parent is None or self._parent.is_lost:
            self._parent = _start_parent(self._nft, alone=self._alone)
        own, other = socket.socketpair()
        with other:
            message = {"roots": [str(root) for root in reach.roots], "executable": reach.executable}
            # libnftables looks for paths there; those of this machine would tell which services it has.
            message["cgroups"] = in_guest() and not reach.executable
            self._parent.send(message, (other.fileno(),))
        server = _Server(own)
        try:
            answer = server.receive()
        except LostError:
            self._parent.is_lost = True
            raise
        if missing := answer.get("missing"):
            if short := shortage_in(missing):
                raise BrokenMeasurement(f"libnftables can't be used: {short.sentence}", remedy=short.remedy)
            if self._nft:
                raise Unsupported(
                    f"nft of the kernel image cannot be used: {missing}",
                    remedy=f"delete {self._nft.folder}, it is fetched again; or use this machine's: --nft-program host",
                )
            raise Unsupported(f"libnftables can't be used: {missing}", remedy=BINDINGS)
        if refused := answer.get("refused"):
            raise _refused(refused, alone=self._alone)
        return server


_projects: Final = _Projects()
_readers: Final = _Projects(alone=True)


def _refused(what: str, *, alone: bool) -> Unsupported:
    remedy = "allow mounts, as docker run --privileged does"
    return Unsupported(
        f"a ruleset is read by a process that sees no other files, and this machine refuses that: {what}",
        remedy=f"{remedy}, and user namespaces" if alone else f"{remedy}, or use the microVM",
    )


def _start_parent(chosen: ImageNft | None, *, alone: bool) -> _Server:
    found = importlib.util.find_spec("nftables")
    if found is None or found.origin is None:
        raise Unsupported("libnftables can't be used: there is no Python module nftables", remedy=BINDINGS)
    own, other = socket.socketpair()
    python, variables = chosen.python(sys.executable) if chosen else ([sys.executable], {})
    command = [*python, "-I", "-S", "-X", "utf8", sandbox.__file__, str(other.fileno())]
    with other:
        # Of this process it has neither the environment nor a descriptor.
        started = subprocess.Popen(
            [*command, str(Path(found.origin).parents[1]), *([sandbox.ALONE] if alone else [])],
            env={name: os.environ[name] for name in ("TZ",) if name in os.environ} | {"LC_ALL": "C.UTF-8", **variables},
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    server = _Server(own)
    if alone:
        if refused := server.receive().get("refused"):
            server.close()
            raise _refused(refused, alone=True)
        _map_users(started.pid)
        server.send({})
    return server


def _map_users(pid: int) -> None:
    """Have the user namespace of the process ``pid`` map this user, and for root all users, to themselves.

    See user_namespaces(7).
    """
    proc = Path("/proc", str(pid))
    if os.geteuid() != 0:
        (proc / "setgroups").write_text("deny")
    for kind, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        known = [line.split() for line in Path("/proc/self", kind).read_text().splitlines()]
        ranges = [(one[0], one[2]) for one in known] if os.geteuid() == 0 else [(str(own), "1")]
        (proc / kind).write_text("".join(f"{first} {first} {count}\n" for first, count in ranges))


def follow(root: int) -> None:
    """Have the processes follow this one, whose root folder has become ``root``, a descriptor."""
    _projects.follow(root)
