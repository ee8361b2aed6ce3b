"""nf_tables' own trace, as the kernel multicasts it: one message per evaluated rule or policy.

See ``enum nft_trace_attributes`` in include/uapi/linux/netfilter/nf_tables.h and
net/netfilter/nf_tables_trace.c.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from harness.lab.inject import cookie_of
from harness.lab.lab import Host
from harness.linux.netlink import NLA_TYPE_MASK, SOL_NETLINK, Message, attributes, messages
from harness.linux.nfnetlink import HEADER, NETLINK_NETFILTER, NFT_MSG_TRACE, number, string
from harness.model.observation import Verdict
from harness.netfilter import FAMILIES, family_name, verdict_name
from harness.untrusted import boundary

NETLINK_ADD_MEMBERSHIP: Final = 1
NFNLGRP_NFTRACE: Final = 9
SO_RCVBUFFORCE: Final = 33
BUFFER: Final = 8 << 20
"""Receive buffer, bytes; a message takes about 1 KiB of it."""
RECEIVE: Final = 1 << 16

NFT_TRACETYPE_POLICY: Final = 1

# enum nft_trace_attributes, enum nft_verdict_attributes
TABLE, CHAIN, RULE_HANDLE, TYPE, VERDICT, ID = 1, 2, 3, 4, 5, 6
NETWORK_HEADER, TRANSPORT_HEADER, IIF, OIF, MARK, NFPROTO, POLICY = 8, 9, 10, 12, 14, 15, 16
VERDICT_CODE, VERDICT_CHAIN = 1, 2

_OF_PACKET: Final = frozenset({ID, NETWORK_HEADER, TRANSPORT_HEADER, IIF, OIF, MARK, NFPROTO, 7, 11, 13})
"""Attributes that differ from packet to packet; 7 is the link layer's header, 11 and 13 are types of interfaces."""

_ATTRIBUTE = struct.Struct("=HH")
_ID_SIZE: Final = 4
_ID_HEADER: Final = _ATTRIBUTE.pack(_ATTRIBUTE.size + _ID_SIZE, ID)
_AT_ID: Final = HEADER.size + 3 * _ATTRIBUTE.size + 2 * 4
"""Of the id's value in a message: behind two attributes of 4 bytes each."""
_S32 = struct.Struct(">i")
_CONTINUE = _S32.pack(-1)
_NOTHING = memoryview(b"")


class TraceMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the trace."""

    host: str = ""
    """The host on which it was received."""
    id: int
    """Hash of the ``sk_buff``'s address: the same in all hooks that the packet passes, and it may come again."""
    family: str
    """Of the table."""
    table: str
    chain: str
    kind: str
    """``rule``, ``policy``, or ``return`` at the end of a chain.

    Kernels differ in what they call a return by a rule and the end of a chain (NFT_TRACETYPE_RULE
    or NFT_TRACETYPE_RETURN); here a message that names a rule is about that rule.
    """
    verdict: Verdict
    handle: int = 0
    """Of the rule; 0 for a policy and for the end of a chain."""
    target: str = ""
    """The chain of a jump or goto."""
    packet_family: str = ""
    """Of the packet, where the table is for several."""
    iif: int = 0
    oif: int = 0
    """Indexes of the interfaces; only in the first message of each hook and base chain, as are the headers."""
    network: bytes = b""
    """The beginning of the network header."""
    transport: bytes = b""
    """The beginning of the transport header."""
    mark: int = 0


class TraceSocket:
    """Listens to the trace of a host's namespace from now on, with ``buffer`` bytes for what is not yet read."""

    def __init__(self, host: Host, *, buffer: int = BUFFER) -> None:
        self._host = host.name
        self._socket = host.namespace.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
        # Without a port of its own the socket counts as the sender and gets nothing (do_one_broadcast
        # in net/netlink/af_netlink.c).
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
        self.cookie = cookie_of(self._socket)
        """By this the tracer knows what the kernel sends here."""
        self.overruns = 0
        """How often the kernel reported lost messages (ENOBUFS)."""

    def read(self) -> list[TraceMessage]:
        """What has come since the last call; it does not wait."""
        return decoded(self.receive(), self._host)

    def receive(self) -> list[bytes]:
        """The same as the kernel gave it: see :func:`decoded`."""
        found: list[bytes] = []
        while True:
            try:
                found.append(self._socket.recv(RECEIVE))
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1


def decoded(datagrams: Iterable[bytes], host: str) -> list[TraceMessage]:
    """The trace messages in ``datagrams`` that were received on ``host``.

    Raises :class:`~harness.untrusted.Malformed` for one that is no kernel's.
    """
    with boundary("a message of nf_tables' trace cannot be read"):
        found = (message for datagram in datagrams for message in messages(datagram))
        return [decode(message, host) for message in found if message.type == NFT_MSG_TRACE]


def decode(message: Message, host: str) -> TraceMessage:
    """The trace message in a netlink message that was received on ``host``."""
    body = bytes(message.body)
    # Where the kernel writes it (nft_trace_notify in net/netfilter/nf_tables_trace.c). All else is the same each time
    # that the same packet comes to the same rule, and without headers for all packets.
    if body[_AT_ID - _ATTRIBUTE.size : _AT_ID] != _ID_HEADER:
        return _decoded(body, host)
    end = _AT_ID + _ID_SIZE
    known = _decoded(body[:_AT_ID] + bytes(_ID_SIZE) + body[end:], host)
    return msgspec.structs.replace(known, id=number(body[_AT_ID:end]))


@functools.lru_cache(4096)
def _decoded(body: bytes, host: str) -> TraceMessage:
    found: dict[int, bytes] = {}
    at, fixed = HEADER.size, bytearray(body[: HEADER.size])
    while at + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, at)
        if not _ATTRIBUTE.size <= size <= len(body) - at:
            break
        end = at + size
        if kind & NLA_TYPE_MASK in _OF_PACKET:
            found[kind & NLA_TYPE_MASK] = body[at + _ATTRIBUTE.size : end]
        else:
            fixed += body[at:end]
            fixed += bytes(-size % 4)
        at = end + (-size % 4)
    rule = _rule(bytes(fixed))
    return TraceMessage(
        host=host,
        id=number(found.get(ID)),
        family=rule.family,
        table=rule.table,
        chain=rule.chain,
        kind=rule.kind,
        verdict=rule.verdict,
        handle=rule.handle,
        target=rule.target,
        packet_family=FAMILIES.get(number(found.get(NFPROTO)), ""),
        iif=number(found.get(IIF)),
        oif=number(found.get(OIF)),
        network=found.get(NETWORK_HEADER, b""),
        transport=found.get(TRANSPORT_HEADER, b""),
        mark=number(found.get(MARK)),
    )


class _Said(NamedTuple):
    """What a message says of a rule: the same for all packets that it decides alike."""

    family: str
    table: str
    chain: str
    kind: str
    verdict: Verdict
    handle: int
    target: str


@functools.lru_cache(4096)
def _rule(body: bytes) -> _Said:
    """What is said in the ``body`` of a message without the attributes that are the packet's."""
    family, _, _ = HEADER.unpack_from(body)
    found = dict(attributes(memoryview(body)[HEADER.size :]))
    handle = number(found.get(RULE_HANDLE))
    verdict = dict(attributes(found.get(VERDICT, _NOTHING)))
    code = _S32.unpack(verdict.get(VERDICT_CODE) or found.get(POLICY) or _CONTINUE)[0]
    return _Said(
        family=family_name(family),
        table=string(found.get(TABLE)),
        chain=string(found.get(CHAIN)),
        kind="policy" if number(found.get(TYPE)) == NFT_TRACETYPE_POLICY else "rule" if handle else "return",
        verdict=Verdict(verdict_name(code)),
        handle=handle,
        target=string(verdict.get(VERDICT_CHAIN)),
    )
