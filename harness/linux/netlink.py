"""The part of netlink that labs and traces need: attributes, batches of requests, messages.

pyroute2 has all of rtnetlink, but importing any part of it imports everything (0.15 s, and seventeen times that in
an emulated guest), and it has no decoder for the nf_tables trace. See
netlink(7) and ``Documentation/userspace-api/netlink/intro.rst``.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self

SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NEW: Final = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
SET: Final = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
CHANGE: Final = NLM_F_REQUEST | NLM_F_ACK

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

BATCH: Final = 64
"""Requests sent at once; their acknowledgements fit into a socket's default receive buffer."""
RECEIVE: Final = 1 << 16

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr


class Request(NamedTuple):
    """One change to request from the kernel."""

    type: int
    flags: int
    body: bytes
    what: str
    """Names the change in errors: "address 10.0.2.1/24 on wan0"."""


class Message(NamedTuple):
    """One message from the kernel."""

    type: int
    flags: int
    sequence: int
    body: memoryview


class NetlinkError(OSError):
    """The kernel refused a request; ``strerror`` is the text of its extended acknowledgement, if any."""

    def __init__(self, errno: int, what: str, words: str) -> None:
        super().__init__(errno, words or os.strerror(errno))
        self.what = what


def attribute(kind: int, payload: bytes) -> bytes:
    """``payload`` as an attribute, padded to four bytes."""
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + bytes(-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A string attribute, ended by a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def attributes(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Kind and payload of each attribute in ``body``."""
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


class Netlink:
    """A socket for requests; it belongs to the network namespace of the thread that creates it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, requests: Sequence[Request]) -> None:
        """Send ``requests`` in order, in as few system calls as possible, and await their acknowledgements.

        Raises :class:`NetlinkError` for the first one refused; later ones may have been executed.
        """
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            self._socket.send(b"".join(_packed(request, number) for number, request in enumerate(batch)))
            refused: NetlinkError | None = None
            answered = 0
            while answered < len(batch):
                for message in messages(self._socket.recv(RECEIVE)):
                    if message.type == NLMSG_ERROR:
                        answered += 1
                        refused = refused or _refusal(message, batch[message.sequence])
            if refused:
                raise refused

    def dump(self, kind: int, body: bytes, what: str) -> Iterator[Message]:
        """The kernel's answers to a dump request of type ``kind``."""
        request = Request(kind, NLM_F_REQUEST | NLM_F_DUMP, body, what)
        self._socket.send(_packed(request, 0))
        while True:
            for message in messages(self._socket.recv(RECEIVE)):
                if message.type == NLMSG_DONE:
                    return
                if message.type == NLMSG_ERROR:
                    if refused := _refusal(message, request):
                        raise refused
                    return
                yield message


def _packed(request: Request, sequence: int) -> bytes:
    size = _HEADER.size + len(request.body)
    return _HEADER.pack(size, request.type, request.flags, sequence, 0) + request.body + bytes(-size % 4)


def _refusal(message: Message, request: Request) -> NetlinkError | None:
    """The error in an acknowledgement; None for success."""
    (code,) = struct.unpack_from("=i", message.body)
    if code == 0:
        return None
    words = ""
    if message.flags & NLM_F_ACK_TLVS:
        # The header of the request follows the code, its body only when the kernel did not cap it.
        echoed = _HEADER.size if message.flags & NLM_F_CAPPED else _HEADER.unpack_from(message.body, 4)[0]
        for kind, payload in attributes(message.body[4 + echoed :]):
            if kind == NLMSGERR_ATTR_MSG:
                words = bytes(payload).rstrip(b"\0").decode()
    return NetlinkError(-code, request.what, words)
