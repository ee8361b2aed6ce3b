"""Frames sent from a host's interface, byte for byte. See packet(7)."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from harness.errors import HarnessError
from harness.lab.lab import Host

SO_COOKIE: Final = 57
"""Linux commit 5daab9db7b65 ("New getsockopt option to get socket cookie") (in v4.12)."""


class Sender:
    """An open packet socket on ``interface`` of ``host``; it receives nothing.

    Keep it open while its packets are on their way: the tracer knows them by its cookie.
    """

    def __init__(self, host: Host, interface: str) -> None:
        self.host = host
        self.interface = interface
        # Protocol 0 in both calls: a packet socket gets frames only of a protocol that it names.
        self._socket = host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((interface, 0))
        self.cookie = cookie_of(self._socket)
        """What ``skb->sk->sk_cookie`` is for every packet sent here."""

    def send(self, frame: bytes) -> None:
        """Send ``frame``, from the Ethernet header on, as it is.

        Raises :class:`~harness.errors.HarnessError` when the interface can't take it.
        """
        try:
            self._socket.send(frame)
        except OSError as refused:
            raise HarnessError(
                f"{self.host.name}:{self.interface} could not send a frame of {len(frame)} bytes: "
                f"{os.strerror(refused.errno or 0)}"
            ) from None


def cookie_of(opened: socket.socket) -> int:
    """The number by which the kernel tells a socket from all others since it was booted."""
    cookie: int = struct.unpack("=Q", opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]
    return cookie
