"""Real sockets in the hosts of a lab: programs that listen, connect, send requests and answer. See tcp(7), udp(7).

Nothing here waits. The kernel carries packets by itself; what a program does when one reaches it
is done by :meth:`~harness.lab.calls.Call.advance`, repeatedly, until the lab is idle. Then the outcome of the call is
known without waiting for a timeout: when no packet is left, none will come before TCP retransmits.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from harness.errors import HarnessError, Unsupported
from harness.lab.answers import RawAnswers
from harness.lab.calls import Call, ConnectCall, DatagramExchange, SocketAddress, SocketPair, StreamExchange
from harness.lab.lab import Host, Lab
from harness.lab.socket_errors import ANCILLARY, RECEIVE, queue_errors
from harness.model.problem import Problem
from harness.scenario.flow import FlowPlan
from harness.scenario.models.sockets import Connect, Exchange, Listen, Queue
from harness.topology.parts import is_on_link_only

if TYPE_CHECKING:
    from harness.lab.queues import QueueReader

# linux/in.h, linux/tcp.h
IP_PKTINFO: Final = 8
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR = 20, 74
PKTINFO: Final = (IP_PKTINFO, socket.IPV6_PKTINFO)
ORIGDSTADDR: Final = (IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR)
TCP_REPAIR: Final = 19

_PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo
_PKTINFO6 = struct.Struct("=16si")  # struct in6_pktinfo


class Bound(NamedTuple):
    """What a calling socket is bound to."""

    device: str | None = None
    mark: int | None = None
    cgroup: str | None = None

    @classmethod
    def of(cls, called: Connect | Exchange) -> Bound:
        """As a step says."""
        return cls(called.device, called.mark, called.cgroup)


UNBOUND: Final = Bound()


class _Listening(NamedTuple):
    host: Host
    socket: socket.socket
    tcp: bool
    transparent: bool = False


class Programs:
    """The programs of one scenario; closed before the lab, without sending another packet."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._listening: list[_Listening] = []
        self._connections: dict[FlowPlan, SocketPair] = {}
        self._asking: dict[FlowPlan, socket.socket] = {}
        self._open: list[socket.socket] = []
        self._readers: list[QueueReader] = []
        self.answers = RawAnswers(lab.hosts)
        """What silent hosts answer."""
        self._closed = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.close()
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
                    opened = self._socket(host, family, kind, spec.cgroup)
                except Unsupported:
                    if family == socket.AF_INET:
                        raise
                    continue  # a kernel without IPv6
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if spec.transparent:
                    _make_transparent(opened)
                _to_device(opened, spec.device)
                _bind(opened, port, host)
                if kind == socket.SOCK_STREAM:
                    opened.listen()
                elif family == socket.AF_INET:
                    opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                else:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                self._listening.append(_Listening(host, opened, kind == socket.SOCK_STREAM, spec.transparent))

    def read_queue(self, spec: Queue) -> None:
        """Start a program that reads a queue; raises as :class:`~harness.lab.queues.QueueReader`."""
        from harness.lab.queues import QueueReader  # few scenarios need it

        self._readers.append(
            self._closed.enter_context(QueueReader(self._lab.hosts[spec.on or self._lab.device.name], spec))
        )

    def decide(self) -> None:
        """Let the programs that read queues decide about what has come."""
        for reader in self._readers:
            reader.advance()

    def connect(self, plan: FlowPlan, bound: Bound = UNBOUND) -> Call:
        """Open a TCP connection as planned. Raises :class:`~harness.errors.HarnessError` when it exists already."""
        if plan in self._connections:
            raise HarnessError(f"connection {plan} exists already", remedy="use another sport")
        return ConnectCall(self, plan, self._caller(plan, bound))

    def exchange(self, plan: FlowPlan, request: bytes, answer: bytes, bound: Bound = UNBOUND) -> Call:
        """A request and its answer, through the connection of ``plan`` where that is TCP.

        Raises :class:`~harness.errors.HarnessError` when that connection was not established.
        """
        if plan.protocol == "tcp":
            if plan not in self._connections:
                raise HarnessError(f"there is no connection {plan}: it failed in a step before")
            return StreamExchange(self, plan, self._connections[plan], request, answer)
        if plan not in self._asking:
            self._asking[plan] = self._caller(plan, bound)
        return DatagramExchange(self, plan, self._asking[plan], request, answer)

    def _caller(self, plan: FlowPlan, bound: Bound) -> socket.socket:
        host = self._lab.hosts[plan.host]
        family = socket.AF_INET if plan.destination.version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if plan.protocol == "tcp" else socket.SOCK_DGRAM
        opened = self._socket(host, family, kind, bound.cgroup)
        if plan.protocol == "tcp":
            queue_errors(opened, on=True)
        _to_device(opened, bound.device or self._link_of(plan))
        if bound.mark is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, bound.mark)
        _bind(opened, plan.sport, host)
        return opened

    def _link_of(self, plan: FlowPlan) -> str | None:
        """The interface by which a link-local IPv6 address is called: without one it means nothing (RFC 4007)."""
        if is_on_link_only(plan.destination):
            with suppress(Problem):  # the call says that there is no way
                return self._lab.network.route(plan.host, plan.destination).interface.name
        return None

    def _socket(self, host: Host, family: int, kind: int, cgroup: str | None = None) -> socket.socket:
        if host.plan.silent:
            raise HarnessError(
                f"{host.name} is silent: it has no addresses for a program to use",
                remedy=f"open the lab with programs=['{host.name}']",
            )
        try:
            with host.cgroups.within(cgroup):
                opened = host.namespace.call(socket.socket, family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as refused:
            raise Unsupported(f"this kernel does not support such a socket: {refused.strerror}") from None
        self._open.append(opened)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return opened

    # -- what has reached the listening programs -------------------------------------------------

    def accepted(self) -> Iterator[tuple[Host, socket.socket]]:
        """Accept new connections, each with the host that accepted it."""
        for host, listening, tcp, _ in self._listening:
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
        for host, listening, tcp, transparent in self._listening:
            while not tcp:
                try:
                    _, ancillary, _, name = listening.recvmsg(RECEIVE, ANCILLARY)
                except (BlockingIOError, ConnectionError):
                    break
                at = next((_local(one) for one in ancillary if one[1] in PKTINFO), None)
                port = listening.getsockname()[1]
                if transparent and (
                    original := next((_original(one) for one in ancillary if one[1] in ORIGDSTADDR), None)
                ):
                    self._answer_from(original, host, answer, name)
                    yield host, SocketAddress.of(name), original
                    continue
                back = [(level, kind, _from_there(payload)) for level, kind, payload in ancillary if kind in PKTINFO]
                with suppress(OSError):  # its own ruleset may refuse
                    listening.sendmsg([answer], back, 0, name)
                yield host, SocketAddress.of(name), SocketAddress(at or "", port)

    def _answer_from(self, original: SocketAddress, host: Host, answer: bytes, name: tuple[Any, ...]) -> None:
        """Answer from the address that was called, as a transparent proxy does."""
        family = socket.AF_INET6 if ":" in original.address else socket.AF_INET
        opened = self._socket(host, family, socket.SOCK_DGRAM)
        _make_transparent(opened)
        with suppress(OSError):
            opened.bind(tuple(original))
            opened.sendto(answer, name)

    def keep(self, plan: FlowPlan, connection: SocketPair) -> None:
        """Keep a connection for later steps."""
        self._connections[plan] = connection

    def forget(self, plan: FlowPlan, *sockets: socket.socket) -> None:
        """Close and forget what failed."""
        self._connections.pop(plan, None)
        self._asking.pop(plan, None)
        for one in sockets:
            _vanish(one)
            self._open.remove(one)


def _bind(opened: socket.socket, port: int, host: Host) -> None:
    try:
        opened.bind(("", port))
    except OSError as refused:
        raise HarnessError(f"{host.name} cannot use port {port}: {refused.strerror}") from None


def _vanish(one: socket.socket) -> None:
    """Close a socket without sending another packet: no FIN, no reset, no retransmission."""
    with suppress(OSError):  # UDP; listening
        one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    one.close()


def _make_transparent(opened: socket.socket) -> None:
    """Let a socket take and send packets with addresses of others, and learn which address was called."""
    if opened.family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        opened.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)


def _to_device(opened: socket.socket, device: str | None) -> None:
    if device is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())


def _original(ancillary: tuple[int, int, bytes]) -> SocketAddress:
    """Of ``struct sockaddr_in`` or ``struct sockaddr_in6``: the address and port that a packet was sent to."""
    level, _, payload = ancillary
    port = int.from_bytes(payload[2:4], "big")
    if level == socket.IPPROTO_IP:
        return SocketAddress(socket.inet_ntop(socket.AF_INET, payload[4:8]), port)
    return SocketAddress(socket.inet_ntop(socket.AF_INET6, payload[8:24]), port)


def _local(ancillary: tuple[int, int, bytes]) -> str:
    return _local_address(ancillary[2])


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
