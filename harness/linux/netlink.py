"""Reading netlink: what nf_tables and connection tracking answer and report.

pyroute2 has no decoder for nf_tables' trace, and for rules and connections a slow one: see decision 11 in
docs/decisions.md. Requests to rtnetlink are its own, see :mod:`harness.lab.rtnetlink`. See netlink(7) and
``Documentation/userspace-api/netlink/intro.rst``.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Self

SOL_NETLINK: Final = 270
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLA_TYPE_MASK: Final = 0x3FFF
RECEIVE: Final = 1 << 16

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr


class Message(NamedTuple):
    """One message of the kernel."""

    type: int
    flags: int
    sequence: int
    body: memoryview


def attributes(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and payload of each attribute in ``body``."""
    while len(body) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(body)
        if not _ATTRIBUTE.size <= size <= len(body):
            return
        yield kind & NLA_TYPE_MASK, body[_ATTRIBUTE.size : size]
        body = body[size + (-size % 4) :]


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    view = memoryview(datagram)
    while len(view) >= _HEADER.size:
        size, kind, flags, sequence, _ = _HEADER.unpack_from(view)
        if not _HEADER.size <= size <= len(view):
            return
        yield Message(kind, flags, sequence, view[_HEADER.size : size])
        view = view[size + (-size % 4) :]


def packed(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Attributes, by type and payload, as they follow the fixed part of a request."""
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), number) + payload + bytes(-len(payload) % 4)
        for number, payload in attributes
    )


def written(kind: int, flags: int, body: bytes, attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """A request of type ``kind``: a fixed ``body``, a multiple of 4 bytes, and attributes behind it."""
    body += packed(attributes)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


class Netlink:
    """A socket for requests, which belongs to the network namespace of the thread that makes it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> Iterator[Message]:
        """The kernel's answers to a dump request of type ``kind``. Raises :class:`OSError` when it refuses."""
        return self._request(kind, NLM_F_DUMP, body)

    def ask(self, kind: int, body: bytes) -> list[Message]:
        """Request a change of type ``kind``, or one answer, which is returned. Raises :class:`OSError` when the kernel
        refuses it."""
        return list(self._request(kind, NLM_F_ACK, body))  # an acknowledgement ends it

    def _request(self, kind: int, flags: int, body: bytes) -> Iterator[Message]:
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, NLM_F_REQUEST | flags, 0, 0) + body)
        while True:
            for message in messages(self._socket.recv(RECEIVE)):
                if message.type == NLMSG_DONE:
                    return
                if message.type == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", message.body)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield message
