"""QEMU's monitor: commands as JSON over a socket.

Source: QEMU docs/interop/qmp-spec.rst, qapi/migration.json.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from harness.errors import HarnessError


class MonitorError(HarnessError):
    """QEMU refused a command, or has ended."""


class Monitor:
    """QEMU's end of ``-mon mode=control``, which answers one command after the other."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the greeting and leave negotiation mode. Raises :class:`MonitorError`."""
        self._socket = connection
        self._lines = connection.makefile("rb")
        self._answer("QMP")
        self.execute("qmp_capabilities")

    def execute(self, command: str, *, descriptor: int | None = None, **arguments: object) -> Any:
        """Have QEMU execute ``command``, with one of this process's file descriptors for ``getfd``; what it returns.

        Raises :class:`MonitorError`.
        """
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            if descriptor is None:
                self._socket.sendall(text)
            else:
                socket.send_fds(self._socket, [text], [descriptor])
        except OSError as error:
            raise MonitorError(f"QEMU has ended: {error.strerror}") from None
        return self._answer("return")

    def ignore_shared(self) -> None:
        """Leave RAM out of migration: it is in a file."""
        self.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def _answer(self, key: str) -> Any:
        while True:
            try:
                line = self._lines.readline()
                answer = json.loads(line) if line else {"error": {"desc": "it has ended"}}
            except (OSError, ValueError) as error:
                raise MonitorError(f"unexpected answer of QEMU's monitor: {error}") from None
            if key in answer:
                return answer[key]
            if "error" in answer:
                raise MonitorError(f"QEMU: {answer['error'].get('desc')}")
