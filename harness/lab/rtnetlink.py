"""Requests to rtnetlink and the kernel's answers, both in pyroute2's words. See rtnetlink(7).

pyroute2 writes each request (:class:`pyroute2.IPBatch`) and reads each answer. Two things differ from calling
:class:`pyroute2.IPRoute` once per request: a host's requests are sent together, and what was written once is
remembered, because the next scenario builds the same lab from the same requests.
"""

from __future__ import annotations

import atexit
import socket
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple, Self

from pyroute2 import IPBatch
from pyroute2.netlink import (
    NETLINK_EXT_ACK,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    nlmsg,
)
from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_GETNEIGH, ndmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from harness.linux.netlink import Message, attributes, messages
from harness.topology.parts import Address

LOOPBACK: Final = 1
"""Index of ``lo`` in every namespace (``LOOPBACK_IFINDEX`` in include/net/flow.h)."""
KNOWN: Final = sum(ndmsg.states[state] for state in ("permanent", "noarp", "reachable", "stale", "delay", "probe"))
"""States of neighbour entries that have an Ethernet address (``NUD_VALID`` in include/net/neighbour.h)."""
NDMSG: Final = 12
"""Bytes of ``struct ndmsg`` in linux/neighbour.h."""
NDA_DST, NDA_LLADDR, NDA_VLAN = 1, 2, 5
RTEXT_FILTER_SKIP_STATS: Final = 8  # linux/rtnetlink.h

BATCH: Final = 64
"""Requests sent at once: their answers fit a socket's receive buffer of default size."""
LINKS: Final = 32
"""Interfaces asked for at once, in the same way: the answer about one takes some 2.5 KB of the buffer."""
RECEIVE: Final = 1 << 16
HEADER: Final = struct.Struct("=HHI")
"""Type, flags and sequence number in ``struct nlmsghdr``."""
HEADER_PLACE: Final = 4
IFINFOMSG: Final = 16
"""Bytes of ``struct ifinfomsg`` in linux/rtnetlink.h."""
IFLA_OPERSTATE: Final = 16
IF_OPER_UP: Final = b"\6"  # linux/if.h
DONE: Final = bytes(4)
"""The error number of an acknowledgement (``struct nlmsgerr``)."""
REMEMBERED: Final = 4096
"""Requests that are remembered as they were written."""


class NetlinkRequest(NamedTuple):
    """One change to ask of the kernel."""

    data: bytes
    """The netlink message."""
    what: str
    """Names the change when the kernel refuses it: "address 10.0.2.1/24"."""


class NetlinkError(OSError):
    """The kernel refused a request; ``strerror`` has its own words when it gave any."""

    def __init__(self, errno: int, words: str, *, what: str) -> None:
        super().__init__(errno, words)
        self.what = what


class RouteSocket:
    """A socket for requests. It belongs to the network namespace of the thread that makes it; any thread may use it."""

    def __init__(self) -> None:
        # IPRoute's own socket brings an event loop and a specification: 0.5 ms, and one is made for each host.
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Descriptor of the socket, for ioctl(2) in its namespace."""
        return self._socket.fileno()

    def ask(self, requests: Sequence[NetlinkRequest]) -> None:
        """Have ``requests`` done in order, in as few system calls as possible.

        Raises :class:`NetlinkError` for the first one refused; those after it may have been done.
        """
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            self._socket.send(b"".join(_numbered(batch)))
            self._refuse_errors(batch)

    def _refuse_errors(self, batch: Sequence[NetlinkRequest]) -> None:
        """Read until the last of ``batch`` is acknowledged. Raises :class:`NetlinkError` for the first one refused."""
        refused: NetlinkError | None = None
        while True:
            # The kernel takes the messages of a datagram in turn (netlink_rcv_skb in net/netlink/af_netlink.c).
            datagram = self._socket.recv(RECEIVE)
            for answer in messages(datagram):
                # An acknowledgement has the sequence number of what it is about (netlink_ack in the same file).
                if refused is None and answer.body[: len(DONE)] != DONE:
                    (said,) = _marshal().parse(datagram)
                    refused = NetlinkError(*said["header"]["error"].args, what=batch[answer.sequence].what)
                if answer.sequence == len(batch) - 1:
                    if refused is not None:
                        raise refused
                    return

    def links_up(self, indexes: Sequence[int]) -> list[int]:
        """Those of the interfaces that pass packets (RFC 2863, ifOperStatus up).

        Of the answers only that is read: pyroute2 takes 10 ms for each under emulation.
        """
        found = []
        for start in range(0, len(indexes), LINKS):
            asked = indexes[start : start + LINKS]
            self._socket.send(b"".join(map(_link_query, asked)))
            for index, answer in zip(asked, islice(self._messages(), len(asked)), strict=True):
                if answer.type != NLMSG_ERROR:
                    states = (value for kind, value in attributes(answer.body[IFINFOMSG:]) if kind == IFLA_OPERSTATE)
                    if bytes(next(states, b"")) == IF_OPER_UP:
                        found.append(index)
        return found

    def alias(self, index: int) -> str:
        """The alias of an interface; "" when it has none."""
        self._socket.send(_link_query(index))
        return next((message.get_attr("IFLA_IFALIAS") for message in self._answers(1)), None) or ""

    def known_neighbours(self, places: Collection[tuple[Address, int]]) -> set[tuple[Address, int]]:
        """Those of the neighbours, each an address and the index of an interface, whose Ethernet address is known."""
        found = set()
        for one in places:
            self._socket.send(_neighbour_query(*one))
            (entry,) = self._answers(1)
            if entry["header"]["type"] != NLMSG_ERROR and entry["state"] & KNOWN:
                found.add(one)
        return found

    def neighbours(self) -> frozenset[bytes]:
        """All neighbour entries, each as the kernel identifies it: interface, state and address."""
        return self._dumped(socket.AF_UNSPEC, NDA_DST)

    def stations(self) -> frozenset[bytes]:
        """All entries of the forwarding databases of bridges, each as the kernel identifies it: port, state, Ethernet
        address and VLAN."""
        return self._dumped(socket.AF_BRIDGE, NDA_LLADDR, NDA_VLAN)

    def _dumped(self, of: int, *identifying: int) -> frozenset[bytes]:
        """The entries of the neighbour tables of the address family ``of``: ``struct ndmsg`` and some attributes.

        Of the answers only that is read: pyroute2 takes 10 ms for each under emulation.
        """
        self._socket.send(_every_neighbour(of))
        found: set[bytes] = set()
        while True:
            for answer in messages(self._socket.recv(RECEIVE)):
                if answer.type in (NLMSG_DONE, NLMSG_ERROR):
                    return frozenset(found)
                own = dict(attributes(answer.body[NDMSG:]))
                found.add(bytes(answer.body[:NDMSG]) + b"".join(own.get(kind, b"") for kind in identifying))

    def _messages(self) -> Iterator[Message]:
        while True:
            yield from messages(self._socket.recv(RECEIVE))

    def _answers(self, count: int) -> list[Any]:
        received = self._received()
        return [next(received) for _ in range(count)]

    def _received(self) -> Iterator[Any]:
        while True:
            yield from _marshal().parse(self._socket.recv(RECEIVE))


@cache
def _marshal() -> MarshalRtnl:
    return MarshalRtnl()


def _numbered(batch: Sequence[NetlinkRequest]) -> Iterator[bytes]:
    """The messages of ``batch`` with their places as sequence numbers; only the last asks for an acknowledgement."""
    rest = HEADER_PLACE + HEADER.size
    for number, request in enumerate(batch):
        kind, flags, _ = HEADER.unpack_from(request.data, HEADER_PLACE)
        flags = flags | NLM_F_ACK if number == len(batch) - 1 else flags & ~NLM_F_ACK
        yield request.data[:HEADER_PLACE] + HEADER.pack(kind, flags, number) + request.data[rest:]


# -- writing requests -----------------------------------------------------------------------------------


def written(what: str, method: str, /, **arguments: Any) -> NetlinkRequest:
    """The request that a method of :class:`pyroute2.IPRoute` would send; ``method`` with its command: "link add"."""
    with _batch() as batch:
        batch.reset()
        name, command = method.split()
        getattr(batch, name)(command, **arguments)
        return NetlinkRequest(bytes(batch.batch), what)


@contextmanager
def _batch() -> Iterator[Any]:
    """What writes requests. It has an event loop, so it works in one thread: that of most callers keeps its own."""
    if threading.get_ident() == threading.main_thread().ident:
        yield _kept_batch()
    else:
        with IPBatch() as batch:
            yield batch


@cache
def _kept_batch() -> IPBatch:
    batch = IPBatch()
    atexit.register(batch.close)
    return batch


def message(form: type[nlmsg], kind: int, flags: int, **fields: Any) -> bytes:
    """A message of one of pyroute2's forms, for what no method of :class:`pyroute2.IPRoute` sends."""
    one = form()
    one.reset()
    one["header"] = {"type": kind, "flags": NLM_F_REQUEST | flags, "sequence_number": 0, "pid": 0}
    for name, value in fields.items():
        one[name] = value
    one.encode()
    return bytes(one.data)


@lru_cache(REMEMBERED)
def _link_query(index: int) -> bytes:
    return message(ifinfmsg, RTM_GETLINK, 0, index=index, attrs=[["IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS]])


@cache
def _every_neighbour(of: int) -> bytes:
    return message(ndmsg.ndmsg, RTM_GETNEIGH, NLM_F_DUMP, family=of)


@lru_cache(REMEMBERED)
def _neighbour_query(address: Address, index: int) -> bytes:
    fields = {"family": family(address.version), "ifindex": index, "attrs": [["NDA_DST", str(address)]]}
    return message(ndmsg.ndmsg, RTM_GETNEIGH, 0, **fields)


def family(version: int) -> int:
    """The address family of a version of IP."""
    return socket.AF_INET if version == 4 else socket.AF_INET6
