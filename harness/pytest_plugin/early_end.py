"""Sessions that end early, by Ctrl-C or for want of memory, files or disk space: a sentence instead of a traceback."""

from __future__ import annotations

import mmap
from collections.abc import Generator

import pytest

from harness.errors import shortage
from harness.pytest_plugin.session import Session

RESERVE_BYTES = 16 << 20
"""Address space, of which nothing is used, for the reports and the summary of a session that may not have more."""


class EarlyEnd:
    """A plugin of pytest's for a session with scenarios that the user started, whoever's code ends it.

    It is registered last, so that its hooks are around those of all others.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reserve: mmap.mmap | None = mmap.mmap(-1, RESERVE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Collect the tests."""
        return (yield from self._unless_short())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Run the tests, or have workers run them."""
        return (yield from self._unless_short())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Write the reports and the summary. Of what is raised here pytest catches only its own ``exit``."""
        self._reserve = None
        try:
            return (yield)
        except KeyboardInterrupt:
            raise pytest.exit.Exception(
                "nft-harness: interrupted before the session was complete", pytest.ExitCode.INTERRUPTED
            ) from None
        except (OSError, MemoryError, SystemError) as error:
            if (short := shortage(error)) is None:
                raise
            from harness.pytest_plugin.reports import BROKEN

            raise pytest.exit.Exception(f"nft-harness: {short}", BROKEN) from None

    def _unless_short(self) -> Generator[None, object, object]:
        """Break the run and end it as ``--maxfail`` does, if something runs short: any other exception pytest shows."""
        try:
            return (yield)
        except (OSError, MemoryError, SystemError) as error:
            self._reserve = None  # before anything is called
            if (short := shortage(error)) is None:
                raise
            self._session.broken.append(str(short))
            raise pytest.Session.Failed(str(short)) from None
