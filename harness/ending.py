"""How programs end, this one and those that it starts: by a signal or with a status."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which a user, a service manager and a closed terminal end a program."""


def exit_status(code: int) -> int:
    """A shell's status for ``code`` of :class:`subprocess.Popen`: 128 + N for a program that signal N ended."""
    return 128 - code if code < 0 else code


AGAIN_S = 0.05
"""Seconds after which a signal comes again that was deferred, or whose exception Python has dropped."""
IMPORTS = "<frozen importlib._bootstrap>"
"""The file of a frame of Python's import."""
OURS = __file__.removesuffix("ending.py")
"""The folder of our modules."""
CRITICAL = "/tempfile.py"
"""The file of frames in which nothing may be raised."""

_came: list[int] = []
"""Signals that have come within :func:`in_order`."""
_deferred: set[int] = set()
"""Signals that will come again."""


@contextmanager
def in_order() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise :class:`SystemExit` with 128 + N, and SIGINT :class:`KeyboardInterrupt`.

    So whatever is open is closed and removed. Signals that the caller has ignored, as nohup(1) does, stay so.
    What must not be interrupted (:func:`_is_critical`) is completed first. Python drops an exception that is raised in
    a callback or a destructor: then the signal comes again. A C extension may drop one without a trace: see
    :func:`check`.
    """
    if threading.get_ident() != threading.main_thread().ident:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        if _is_critical(frame):
            _defer(number)
            return
        _came.append(number)
        check()

    _came.clear()
    handled = (signal.SIG_DFL, signal.default_int_handler, _interrupt)
    numbers = [one for one in ENDING if signal.getsignal(one) in handled]

    def dropped(about: Any) -> None:
        error = about.exc_value
        status = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else getattr(error, "code", None)
        number = next((one for one in ENDING if status == 128 + one), None)
        if number is None:
            hook(about)
            return
        _defer(number)

    before: dict[int, Any] = {number: signal.signal(number, end) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
        _raise_deferred()
    finally:
        sys.unraisablehook = hook
        _restore(before)


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Within, as :func:`in_order`; then SIGTERM and SIGHUP end the program as they do without.

    For a part of a program that others have begun, such as pytest, which SIGTERM ends at once.
    """
    try:
        with in_order():
            yield
    except SystemExit as end:
        if end.code in (128 + signal.SIGTERM, 128 + signal.SIGHUP):
            signal.raise_signal(int(end.code) - 128)
        raise


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Within, Ctrl-C raises :class:`KeyboardInterrupt` as ever, but completes first what must not be interrupted.

    For a program that others have begun, such as pytest. Does nothing where somebody else handles SIGINT.
    """
    if (
        threading.get_ident() != threading.main_thread().ident
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
        _raise_deferred()
    finally:
        if signal.getsignal(signal.SIGINT) in (_interrupt, _ignore):
            signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore_an_interrupt() -> None:
    """Within :func:`interrupts_deferred`, have the next Ctrl-C do nothing, because its work is complete."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, _ignore)


def _ignore(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _is_critical(frame):
        _defer(number)
        return
    raise KeyboardInterrupt


def _is_critical(frame: FrameType | None) -> bool:
    """Whether an exception in ``frame`` would leave something half-made behind.

    - An import begun by one of our modules: Python may keep the partially initialized module in sys.modules, and a C
      extension that uses it then raises another exception or crashes.
    - tempfile creating a folder, whose name the caller does not know yet, or removing one.
    """
    inner = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.endswith(CRITICAL) or (inner == IMPORTS and name.startswith(OURS)):
            return True
        inner, frame = name, frame.f_back
    return False


def _defer(number: int) -> None:
    """Have a signal come again after :data:`AGAIN_S`.

    Called by signal handlers, so without :class:`threading.Timer`, whose locks the interrupted code may hold.
    """

    def send() -> None:
        time.sleep(AGAIN_S)
        if number in _deferred:
            _deferred.discard(number)
            os.kill(os.getpid(), number)

    _deferred.add(number)
    _thread.start_new_thread(send, ())


def _raise_deferred() -> None:
    """Have what is deferred come now: its handler is about to be replaced."""
    for number in tuple(_deferred):
        _deferred.discard(number)
        signal.raise_signal(number)


def check() -> None:
    """Raise what a signal has raised within :func:`in_order` and other code has dropped; called before a long wait."""
    if _came:
        if _came[0] == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + _came[0])


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Within, the first signal of :data:`ENDING` ends nothing; the function gives its number, 0 when none came.

    The second one does what it did before: who cannot wait for an end in order is not made to.
    """
    check()
    came: list[int] = []
    before: dict[int, Any] = {}

    def come(number: int, _: object) -> None:
        came.append(number)
        _restore(before)

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, come)
    try:
        yield lambda: came[0] if came else 0
    finally:
        _restore(before)


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
