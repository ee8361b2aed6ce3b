"""A network namespace that is a thread.

The thread moves to a new network namespace, which has no name and no place in the file system: it lives as
long as the thread, the sockets created in it or an open descriptor. When the process ends, even by SIGKILL, the
kernel removes it. See
network_namespaces(7) and unshare(2).
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, ParamSpec, Self, TypeVar

from harness.errors import MORE_MEMORY, NO_MEMORY, BrokenMeasurement, HarnessError, Unsupported
from harness.topology import sysctls

CLONE_NEWNET: Final = 0x40000000
CLONE_FS: Final = 0x00000200
LOOK_S: Final = 1.0
"""How often a caller looks whether the thread is still there."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Resource = TypeVar("_Resource")


class _Answer(NamedTuple):
    """What a function has returned or raised."""

    result: Any = None
    error: BaseException | None = None


_Asked = SimpleQueue[tuple[Callable[[], Any], SimpleQueue[_Answer]] | None]
"""Functions to call, each with where to put the answer: one abandoned by an interrupted caller is nobody else's."""


class Namespace:
    """A new network namespace and the thread that is in it.

    What must be done inside goes through :meth:`call`. A socket opened there may be used by any thread, as it stays
    in its namespace. The thread also has a working directory of its own.

    Raises :class:`~harness.errors.Unsupported` when the process may not create namespaces, and
    :class:`~harness.errors.BrokenMeasurement` where it may not have another thread.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._resources = ExitStack()
        # Not a ThreadPoolExecutor, whose futures take a third of the time of a call: a lab takes twenty calls.
        self._asked: _Asked = SimpleQueue()
        self._closed = False
        # Only the thread refers to what it runs, and no frame of it: pytest keeps the traceback of what ends a thread.
        run = partial(_serve, self._asked)
        self._run = weakref.ref(run)
        """Gone when the thread has ended, however it did."""
        # Nor a Thread: its start() waits for ever where the thread ends for want of memory before it runs anything.
        try:
            _thread.start_new_thread(run, ())
        except RuntimeError:
            raise BrokenMeasurement(
                "this process may not have another thread",
                remedy="raise its limits of memory (ulimit -v) and of processes (ulimit -u), or those of its cgroup",
            ) from None
        del run
        try:
            self.fd: int = self.call(_leave)
            """An open descriptor of the namespace."""
        except BaseException:
            self.close()
            raise
        self._resources.callback(os.close, self.fd)
        self.inum: int = os.fstat(self.fd).st_ino
        """The namespace's number, ``net->ns.inum`` in the kernel; no two live ones share it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self, function: Callable[_Arguments, _Result], /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """The result of ``function``, run inside; what it raises is raised here."""
        if self._closed:
            raise RuntimeError(f"the namespace {self.name} is closed")
        answered: SimpleQueue[_Answer] = SimpleQueue()
        self._asked.put((partial(function, *args, **kwargs), answered))
        answer = self._answer(answered)
        if answer.error is None:
            result: _Result = answer.result
            return result
        try:
            raise answer.error
        finally:
            del answer  # whose traceback has this frame

    def _answer(self, answered: SimpleQueue[_Answer]) -> _Answer:
        while True:
            is_alive = self._run() is not None
            with suppress(Empty):
                return answered.get(timeout=LOOK_S if is_alive else 0)
            if not is_alive:
                raise BrokenMeasurement(
                    f"the thread of the namespace {self.name} has ended: {NO_MEMORY}", remedy=MORE_MEMORY
                )

    def enter(self, make: Callable[[], AbstractContextManager[_Resource]]) -> _Resource:
        """Create a context manager inside and enter it; it is exited when the namespace is closed."""
        return self.call(lambda: self._resources.enter_context(make()))

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, closed with it if not before."""
        return self.enter(lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))

    def sysctl(self, settings: Mapping[str, str]) -> None:
        """Write ``settings`` of this namespace, named as by sysctl(8): ``net.ipv4.ip_forward``.

        Raises :class:`~harness.errors.HarnessError`.
        """
        self.call(_write, settings)

    def close(self) -> None:
        """Exit what was entered, newest first, and release the namespace.

        Does not wait: closing a packet socket takes an RCU grace period, and the kernel dismantles the namespace
        asynchronously anyway.
        """
        if not self._closed:
            self._closed = True
            self._asked.put((self._resources.close, SimpleQueue()))
            self._asked.put(None)
            if self._run() is None:  # nobody else will
                self._resources.close()


def _serve(asked: _Asked) -> None:
    """Call what is asked, one after the other, until that is None."""
    sys.settrace(threading.gettrace())  # coverage.py's, as in any thread
    with suppress(MemoryError):  # for an answer: the caller sees that the thread has ended
        while (one := asked.get()) is not None:
            function, answered = one
            try:
                answer = _Answer(function())
            except BaseException as error:  # which the caller raises
                answer = _Answer(error=error)
            answered.put(answer)
            del one, function, answered, answer  # what they hold may be the caller's to close


def _leave() -> int:
    """Move this thread to a new network namespace; the namespace's descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_FS) != 0:
        code = ctypes.get_errno()
        if code == errno.EPERM:
            raise Unsupported("only root may create network namespaces", remedy="run as root, or in the microVM")
        if code == errno.ENOMEM:
            raise BrokenMeasurement(f"the kernel created no network namespace: {NO_MEMORY}", remedy=MORE_MEMORY)
        raise Unsupported(f"the kernel created no network namespace: {os.strerror(code)}")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _write(settings: Mapping[str, str]) -> None:
    """/proc/sys/net shows each thread its own namespace (net/sysctl_net.c, net_ctl_header_lookup)."""
    for name, value in settings.items():
        path = sysctls.path(name)
        parts = path.split("/")
        if parts[0] != "net" or ".." in parts:
            raise HarnessError(
                f"{name} is not a setting of a network namespace", remedy="use one that begins with net."
            )
        try:
            descriptor = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            raise Unsupported(
                f"this kernel has no setting {name} that a network namespace could change",
                remedy="look below /proc/sys/net; perhaps a module is missing",
            ) from None
        try:
            os.write(descriptor, value.encode())
        except OSError as refused:
            raise HarnessError(f"the kernel refused {name} = {value}: {refused.strerror}") from None
        finally:
            os.close(descriptor)
