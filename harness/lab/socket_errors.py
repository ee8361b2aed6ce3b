"""What a program learns from the kernel about packets of its socket that did not arrive. See ip(7), icmp(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from harness.errors import HarnessError

# linux/in.h, linux/in6.h, linux/errqueue.h
IP_RECVERR, IPV6_RECVERR = 11, 25
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3

RECEIVE: Final = 1 << 16
ANCILLARY: Final = 512

_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err

UNREACHABLE: Final = (
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENONET),
    *(errno.ENOPROTOOPT, errno.EPROTO, errno.EACCES, errno.EMSGSIZE),
)
"""Error numbers that programs see for ICMP errors, beside ECONNREFUSED; EACCES also for a route of type prohibit."""


class SocketErrors:
    """Errors of a socket that a program sees.

    As in a program without IP_RECVERR: a connection being established is ended by any ICMP destination-unreachable
    except frag-needed (tcp_v4_err in net/ipv4/tcp_ipv4.c, tcp_v6_err in net/ipv6/tcp_ipv6.c); an established one
    only by a reset, since ICMP errors are soft there (RFC 1122 section 4.2.3.9, RFC 5461); a connected UDP
    socket reports those that icmp_err_convert[] in net/ipv4/icmp.c and tab_unreach[] in net/ipv6/icmp.c call
    fatal, such as port-unreachable and admin-prohibited, but not net- or host-unreachable, and frag-needed.

    Only a connection being established has IP_RECVERR: on a virtual wire the error arrives while connect(2) still
    owns the socket, which would then report it only when the SYN is retransmitted.
    """

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller
        self._udp = caller.type == socket.SOCK_DGRAM
        self._icmp = False
        self._reset = False
        self.first = ""
        """Name of the first errno, other than EINPROGRESS and EAGAIN."""

    def noted(self) -> _Noted:
        """Suppress and record the error of a system call in the block; EAGAIN counts as none."""
        return _Noted(self)

    def note(self, number: int | None) -> None:
        """Record an error number of a system call."""
        if number and number not in (errno.EINPROGRESS, errno.EAGAIN):
            self.first = self.first or errno.errorcode.get(number, str(number))
        if not self._udp:
            self._reset = self._reset or number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
        # No route: the host's own kernel reports what a router would report by ICMP.
        self._icmp = self._icmp or number in UNREACHABLE or (self._udp and number == errno.ECONNREFUSED)

    def read(self) -> None:
        """Read ICMP errors from the socket's error queue, which holds the packets until then."""
        while True:
            try:
                _, ancillary, _, _ = self._caller.recvmsg(RECEIVE, ANCILLARY, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for _, kind, payload in ancillary:
                if kind in (IP_RECVERR, IPV6_RECVERR):
                    _, origin, *_ = _EXTENDED_ERROR.unpack_from(payload)
                    self._icmp = self._icmp or origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6)

    def forget(self) -> None:
        """Discard errors once the connection is established: from then on ICMP errors are soft."""
        queue_errors(self._caller, on=False)
        self.read()
        self._caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def result(self) -> str:
        """``unreachable``, ``refused`` or ``timeout``: why the call has failed."""
        self.read()
        with self.noted():  # getsockopt(SO_ERROR) would give soft errors too
            self._caller.recv(1, socket.MSG_PEEK)
        return "unreachable" if self._icmp else "refused" if self._reset else "timeout"


class _Noted:
    def __init__(self, errors: SocketErrors) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, OSError):
            if error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                raise HarnessError(
                    f"the kernel refused the connection: {os.strerror(error.errno)}", remedy="use another sport"
                ) from None
            self._errors.note(error.errno)
            return True
        return False


def queue_errors(opened: socket.socket, *, on: bool) -> None:
    """Have the kernel queue ICMP errors for :meth:`SocketErrors.read`, or not: IP_RECVERR, see ip(7)."""
    if opened.family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_IP, IP_RECVERR, on)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, on)
