"""What a step of a scenario has programs do: connect, talk through a connection, or ask by UDP.

Nothing here waits, see :mod:`harness.lab.sockets`.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from harness.lab.inject import cookie_of
from harness.lab.lab import Host
from harness.lab.socket_errors import RECEIVE, SocketErrors
from harness.model.observation import Flow
from harness.scenario.flow import FlowPlan

if TYPE_CHECKING:
    from harness.lab.sockets import Programs

TCP_ESTABLISHED: Final = 1
"""Of linux/tcp.h."""


class SocketAddress(NamedTuple):
    """An address and a port."""

    address: str
    port: int

    @classmethod
    def of(cls, name: tuple[Any, ...]) -> SocketAddress:
        """From a socket's name; that of an IPv6 socket has more fields."""
        return cls(str(name[0]).partition("%")[0], name[1])


class SocketPair(NamedTuple):
    """A TCP connection, both ends."""

    caller: socket.socket
    callee: socket.socket
    by: str
    seen_from: SocketAddress
    seen_at: SocketAddress


class Call(Protocol):
    """What one step of a scenario has programs do."""

    @property
    def cookie(self) -> int:
        """SO_COOKIE of the calling socket, by which the tracer identifies its packets."""

    @property
    def failed(self) -> str:
        """Name of the errno with which the call failed at once, e.g. ``ENETUNREACH``; "" when it did not."""

    def start(self) -> None:
        """Send the first packet."""

    def advance(self) -> None:
        """Let the programs process what has arrived."""

    def finish(self) -> Flow:
        """The outcome, once no packet is left. What failed is closed without sending another packet."""


class ConnectCall:
    """A TCP connection that is to be established."""

    def __init__(self, programs: Programs, plan: FlowPlan, caller: socket.socket) -> None:
        self._programs = programs
        self._plan = plan
        self._caller = caller
        self._errors = SocketErrors(caller)
        self._callee: tuple[Host, socket.socket] | None = None
        self.cookie = cookie_of(caller)
        self.failed = ""

    def start(self) -> None:
        """Send the first packet."""
        with self._errors.noted():
            self._caller.connect((str(self._plan.destination), self._plan.dport))
        self.failed = self._errors.first

    def advance(self) -> None:
        """Process what has arrived."""
        self._errors.read()
        for accepted in self._programs.accepted():
            self._callee = accepted

    def finish(self) -> Flow:
        """The outcome; what failed is closed."""
        state = self._caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == TCP_ESTABLISHED and self._callee:
            host, callee = self._callee
            self._errors.forget()
            seen_from, seen_at = SocketAddress.of(callee.getpeername()), SocketAddress.of(callee.getsockname())
            self._programs.keep(self._plan, SocketPair(self._caller, callee, host.name, seen_from, seen_at))
            return _flow("connected", self._plan, host.name, seen_from, seen_at)
        result = "half-open" if state == TCP_ESTABLISHED else self._errors.result()
        self._programs.forget(self._plan, self._caller, *([self._callee[1]] if self._callee else []))
        return _flow(result, self._plan)


class StreamExchange:
    """A request and its answer through a TCP connection; each may take several segments."""

    def __init__(self, programs: Programs, plan: FlowPlan, through: SocketPair, request: bytes, answer: bytes) -> None:
        self._programs = programs
        self._plan = plan
        self._through = through
        self._request = _Stream(through.caller, through.callee, request)
        self._answer = _Stream(through.callee, through.caller, answer)
        self._errors = SocketErrors(through.caller)
        self.cookie = cookie_of(through.caller)
        self.failed = ""

    def start(self) -> None:
        """Send the first packet."""
        with self._errors.noted():
            self._request.send()
        self.failed = self._errors.first

    def advance(self) -> None:
        """Process what has arrived."""
        self._errors.read()
        with self._errors.noted():
            self._request.send()
        with suppress(OSError):
            self._request.receive()
        if self._request.arrived:
            with suppress(OSError):
                self._answer.send()
        with self._errors.noted():
            self._answer.receive()

    def finish(self) -> Flow:
        """The outcome; what failed is closed."""
        _, _, by, seen_from, seen_at = self._through
        if self._answer.arrived:
            return _flow("answered", self._plan, by, seen_from, seen_at)
        result = self._errors.result()
        self._programs.forget(self._plan, self._through.caller, self._through.callee)
        return _flow(result, self._plan)


class _Stream:
    """Bytes on their way from one end of a connection to the other."""

    def __init__(self, source: socket.socket, target: socket.socket, content: bytes) -> None:
        self._source = source
        self._target = target
        self._left = memoryview(content)
        self._missing = len(content)

    @property
    def arrived(self) -> bool:
        """Whether all have been read."""
        return not self._missing

    def send(self) -> None:
        """Write what the socket's buffer takes."""
        if self._left:
            self._left = self._left[self._source.send(self._left) :]

    def receive(self) -> None:
        """Read what has come, and have the kernel acknowledge at once, not after 40 ms."""
        while self._missing:
            found = self._target.recv(RECEIVE)
            self._target.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if not found:
                return
            self._missing -= len(found)


class DatagramExchange:
    """A request and its answer by UDP."""

    def __init__(
        self, programs: Programs, plan: FlowPlan, caller: socket.socket, request: bytes, answer: bytes
    ) -> None:
        self._programs = programs
        self._plan = plan
        self._caller = caller
        self._request = request
        self._answer = answer
        self._errors = SocketErrors(caller)
        self._taken: tuple[Host, SocketAddress, SocketAddress] | None = None
        self._answered = False
        self.cookie = cookie_of(caller)
        self.failed = ""

    def start(self) -> None:
        """Send the first packet."""
        with self._errors.noted():
            self._caller.connect((str(self._plan.destination), self._plan.dport))
            self._caller.send(self._request)
        self.failed = self._errors.first

    def advance(self) -> None:
        """Process what has arrived."""
        self._errors.read()
        for taken in self._programs.requests(self._answer):
            self._taken = taken
        with self._errors.noted():
            self._caller.recv(RECEIVE)  # of a datagram without payload too
            self._answered = True

    def finish(self) -> Flow:
        """The outcome; what failed is closed."""
        if self._answered and (taken := self._taken or self._answered_by_hand()):
            host, seen_from, seen_at = taken
            return _flow("answered", self._plan, host.name, seen_from, seen_at)
        result = self._errors.result()
        self._programs.forget(self._plan, self._caller)
        return _flow(result, self._plan)

    def _answered_by_hand(self) -> tuple[Host, SocketAddress, SocketAddress] | None:
        """As ``_taken``, of the first packet that a silent host has answered."""
        if (first := self._programs.answers.first) is None:
            return None
        return first.host, SocketAddress(first.src, first.sport), SocketAddress(first.dst, first.dport)


def _flow(
    result: str,
    plan: FlowPlan,
    by: str = "",
    seen_from: SocketAddress | None = None,
    seen_at: SocketAddress | None = None,
) -> Flow:
    nothing = SocketAddress("", 0)
    (src, sport), (dst, dport) = seen_from or nothing, seen_at or nothing
    return Flow(result=result, host=plan.host, by=by, src=src, sport=sport, dst=dst, dport=dport)
