"""How programs end, this one and those that it starts: by a signal or with a status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which a user, a service manager and a closed terminal end a program."""


def exit_status(code: int) -> int:
    """A shell's status for ``code`` of :class:`subprocess.Popen`: 128 + N for a program that signal N ended."""
    return 128 - code if code < 0 else code


AGAIN_S = 0.05
"""Seconds after which a signal comes again whose exception Python has dropped."""


_came: list[int] = []
"""Signals that have come within :func:`in_order`."""


@contextmanager
def in_order() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise :class:`SystemExit` with 128 + N, and SIGINT :class:`KeyboardInterrupt`.

    So whatever is open is closed and removed. Signals that the caller has ignored, as nohup(1) does, stay so.
    Python drops an exception that is raised in a callback or a destructor, of which an import has many: then the
    signal comes again. A C extension may drop one without a trace: see :func:`check`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        _came.append(number)
        check()

    _came.clear()
    numbers = [one for one in ENDING if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler)]

    def dropped(about: Any) -> None:
        error = about.exc_value
        status = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else getattr(error, "code", None)
        number = next((one for one in ENDING if status == 128 + one), None)
        if number is None:
            hook(about)
            return
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    before: dict[int, Any] = {number: signal.signal(number, end) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        _restore(before)


def check() -> None:
    """Raise what a signal has raised within :func:`in_order` and somebody has dropped; called before a long wait."""
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
