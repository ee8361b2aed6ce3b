"""Real sockets in the hosts of a lab: programs that listen, connect, send requests and answer. See tcp(7), udp(7).

Nothing here waits. The kernel carries packets by itself; what a program does when one reaches it
is done by :meth:`Call.advance`, repeatedly, until the lab is idle. Then the outcome of the call is known
without waiting for a timeout: when no packet is left, none will come before TCP retransmits.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, Self

from harness.errors import HarnessError, Unsupported
from harness.lab.inject import cookie_of
from harness.lab.lab import Host, Lab
from harness.lab.socket_errors import ANCILLARY, RECEIVE, SocketErrors, queue_errors
from harness.model.observation import Flow
from harness.scenario.flow import FlowPlan
from harness.scenario.models.sockets import Listen

# linux/in.h, linux/tcp.h
IP_PKTINFO: Final = 8
TCP_REPAIR: Final = 19
TCP_ESTABLISHED: Final = 1

_PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo
_PKTINFO6 = struct.Struct("=16si")  # struct in6_pktinfo


class SocketAddress(NamedTuple):
    """An address and a port."""

    address: str
    port: int

    @classmethod
    def of(cls, name: tuple[Any, ...]) -> SocketAddress:
        """From a socket's name; that of an IPv6 socket has more fields."""
        return cls(str(name[0]).partition("%")[0], name[1])


class _Listening(NamedTuple):
    host: Host
    socket: socket.socket
    tcp: bool


class _Connection(NamedTuple):
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


class Programs:
    """The programs of one scenario; closed before the lab, without sending another packet."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._listening: list[_Listening] = []
        self._connections: dict[FlowPlan, _Connection] = {}
        self._asking: dict[FlowPlan, socket.socket] = {}
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            _vanish(one)

    def listen(self, spec: Listen) -> None:
        """Start a program that listens on a port, on all addresses of its host.

        Raises :class:`~harness.errors.HarnessError` when the port is in use.
        """
        host = self._lab.hosts[spec.on]
        if host is not self._lab.device:
            # A dropped SYN-ACK would be retransmitted after a second, during another step.
            host.namespace.sysctl({"net.ipv4.tcp_synack_retries": "0"})
        for port, kind in ((spec.tcp, socket.SOCK_STREAM), (spec.udp, socket.SOCK_DGRAM)):
            if port is None:
                continue
            for family in (socket.AF_INET, socket.AF_INET6):
                try:
                    opened = self._socket(host, family, kind)
                except Unsupported:
                    if family == socket.AF_INET:
                        raise
                    continue  # a kernel without IPv6
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                _bind(opened, port, host)
                if kind == socket.SOCK_STREAM:
                    opened.listen()
                elif family == socket.AF_INET:
                    opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                else:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                self._listening.append(_Listening(host, opened, kind == socket.SOCK_STREAM))

    def connect(self, plan: FlowPlan) -> Call:
        """Open a TCP connection as planned. Raises :class:`~harness.errors.HarnessError` when it exists already."""
        if plan in self._connections:
            raise HarnessError(f"connection {plan} exists already", remedy="use another sport")
        return _Connect(self, plan, self._caller(plan))

    def exchange(self, plan: FlowPlan, request: bytes, answer: bytes) -> Call:
        """A request and its answer, through the connection of ``plan`` where that is TCP.

        Raises :class:`~harness.errors.HarnessError` when that connection was not established.
        """
        if plan.protocol == "tcp":
            if plan not in self._connections:
                raise HarnessError(f"there is no connection {plan}: it failed in a step before")
            return _Talk(self, plan, self._connections[plan], request, answer)
        if plan not in self._asking:
            self._asking[plan] = self._caller(plan)
        return _Ask(self, plan, self._asking[plan], request, answer)

    def _caller(self, plan: FlowPlan) -> socket.socket:
        host = self._lab.hosts[plan.host]
        family = socket.AF_INET if plan.destination.version == 4 else socket.AF_INET6
        opened = self._socket(host, family, socket.SOCK_STREAM if plan.protocol == "tcp" else socket.SOCK_DGRAM)
        if plan.protocol == "tcp":
            queue_errors(opened, on=True)
        _bind(opened, plan.sport, host)
        return opened

    def _socket(self, host: Host, family: int, kind: int) -> socket.socket:
        if host.plan.silent:
            raise HarnessError(
                f"{host.name} is silent: it has no addresses for a program to use",
                remedy=f"open the lab with programs=['{host.name}']",
            )
        try:
            opened = host.namespace.call(socket.socket, family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as refused:
            raise Unsupported(f"this kernel does not support such a socket: {refused.strerror}") from None
        self._open.append(opened)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return opened

    # -- what has reached the listening programs -------------------------------------------------

    def accepted(self) -> Iterator[tuple[Host, socket.socket]]:
        """Accept new connections, each with the host that accepted it."""
        for host, listening, tcp in self._listening:
            while tcp:
                try:
                    accepted, _ = listening.accept()
                except (BlockingIOError, ConnectionError):
                    break
                accepted.setblocking(False)
                self._open.append(accepted)
                yield host, accepted

    def requests(self, answer: bytes) -> Iterator[tuple[Host, SocketAddress, SocketAddress]]:
        """Answer UDP requests: the host, the request's source, and the address and port it was sent to."""
        for host, listening, tcp in self._listening:
            while not tcp:
                try:
                    _, ancillary, _, name = listening.recvmsg(RECEIVE, ANCILLARY)
                except (BlockingIOError, ConnectionError):
                    break
                at = [(level, kind, _from_there(payload)) for level, kind, payload in ancillary]
                with suppress(OSError):  # its own ruleset may refuse
                    listening.sendmsg([answer], at, 0, name)
                address = _local_address(ancillary[0][2]) if ancillary else ""
                yield host, SocketAddress.of(name), SocketAddress(address, listening.getsockname()[1])

    def keep(self, plan: FlowPlan, connection: _Connection) -> None:
        """Keep a connection for later steps."""
        self._connections[plan] = connection

    def forget(self, plan: FlowPlan, *sockets: socket.socket) -> None:
        """Close and forget what failed."""
        self._connections.pop(plan, None)
        self._asking.pop(plan, None)
        for one in sockets:
            _vanish(one)
            self._open.remove(one)


class _Connect:
    def __init__(self, programs: Programs, plan: FlowPlan, caller: socket.socket) -> None:
        self._programs = programs
        self._plan = plan
        self._caller = caller
        self._errors = SocketErrors(caller)
        self._callee: tuple[Host, socket.socket] | None = None
        self.cookie = cookie_of(caller)
        self.failed = ""

    def start(self) -> None:
        with self._errors.noted():
            self._caller.connect((str(self._plan.destination), self._plan.dport))
        self.failed = self._errors.first

    def advance(self) -> None:
        self._errors.read()
        for accepted in self._programs.accepted():
            self._callee = accepted

    def finish(self) -> Flow:
        state = self._caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == TCP_ESTABLISHED and self._callee:
            host, callee = self._callee
            self._errors.forget()
            seen_from, seen_at = SocketAddress.of(callee.getpeername()), SocketAddress.of(callee.getsockname())
            self._programs.keep(self._plan, _Connection(self._caller, callee, host.name, seen_from, seen_at))
            return _flow("connected", self._plan, host.name, seen_from, seen_at)
        result = "half-open" if state == TCP_ESTABLISHED else self._errors.result()
        self._programs.forget(self._plan, self._caller, *([self._callee[1]] if self._callee else []))
        return _flow(result, self._plan)


class _Talk:
    """A request and its answer through a TCP connection."""

    def __init__(self, programs: Programs, plan: FlowPlan, through: _Connection, request: bytes, answer: bytes) -> None:
        self._programs = programs
        self._plan = plan
        self._through = through
        self._request = request
        self._answer = answer
        self._errors = SocketErrors(through.caller)
        self._answered = False
        self.cookie = cookie_of(through.caller)
        self.failed = ""

    def start(self) -> None:
        with self._errors.noted():
            self._through.caller.send(self._request)
        self.failed = self._errors.first

    def advance(self) -> None:
        self._errors.read()
        with suppress(OSError):
            if _received(self._through.callee):
                self._through.callee.send(self._answer)
        with self._errors.noted():
            self._answered = _received(self._through.caller) or self._answered

    def finish(self) -> Flow:
        _, _, by, seen_from, seen_at = self._through
        if self._answered:
            return _flow("answered", self._plan, by, seen_from, seen_at)
        result = self._errors.result()
        self._programs.forget(self._plan, self._through.caller, self._through.callee)
        return _flow(result, self._plan)


class _Ask:
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
        with self._errors.noted():
            self._caller.connect((str(self._plan.destination), self._plan.dport))
            self._caller.send(self._request)
        self.failed = self._errors.first

    def advance(self) -> None:
        self._errors.read()
        for taken in self._programs.requests(self._answer):
            self._taken = taken
        with self._errors.noted():
            self._answered = bool(self._caller.recv(RECEIVE)) or self._answered

    def finish(self) -> Flow:
        if self._answered and self._taken:
            host, seen_from, seen_at = self._taken
            return _flow("answered", self._plan, host.name, seen_from, seen_at)
        result = self._errors.result()
        self._programs.forget(self._plan, self._caller)
        return _flow(result, self._plan)


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


def _bind(opened: socket.socket, port: int, host: Host) -> None:
    try:
        opened.bind(("", port))
    except OSError as refused:
        raise HarnessError(f"{host.name} cannot use port {port}: {refused.strerror}") from None


def _received(end: socket.socket) -> bool:
    """Read from one end of a connection, and have the kernel acknowledge at once, not after 40 ms."""
    found = end.recv(RECEIVE)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return bool(found)


def _vanish(one: socket.socket) -> None:
    """Close a socket without sending another packet: no FIN, no reset, no retransmission."""
    with suppress(OSError):  # UDP; listening
        one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    one.close()


def _local_address(payload: bytes) -> str:
    """Of ``struct in_pktinfo`` or ``struct in6_pktinfo``: the address that a packet was sent to."""
    if len(payload) == _PKTINFO.size:
        return socket.inet_ntop(socket.AF_INET, _PKTINFO.unpack(payload)[2])
    return socket.inet_ntop(socket.AF_INET6, _PKTINFO6.unpack(payload)[0])


def _from_there(payload: bytes) -> bytes:
    """The control message for the answer: by any interface, from the address that the request was sent to."""
    if len(payload) == _PKTINFO.size:
        return _PKTINFO.pack(0, _PKTINFO.unpack(payload)[2], bytes(4))
    return _PKTINFO6.pack(_PKTINFO6.unpack(payload)[0], 0)
