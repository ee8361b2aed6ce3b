"""Frames that arrive at hosts of a lab, byte for byte. See packet(7)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from harness.errors import BrokenMeasurement
from harness.lab.inject import cookie_of
from harness.lab.lab import Host
from harness.packets.headers import framed
from harness.text import counted

ETH_P_ALL: Final = 0x0003
SOL_PACKET: Final = 263
PACKET_STATISTICS, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 6, 8, 23
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
ETH_P_8021Q: Final = 0x8100
ETHER_ADDRESSES: Final = 12
"""Bytes before a VLAN tag."""

WITHOUT_ETHERNET: Final = (768, 778)
"""ARPHRD_TUNNEL and ARPHRD_IPGRE of linux/if_arp.h: packets there begin with their IP header."""

BUFFER: Final = 8 << 20
"""Receive buffer of each interface, bytes."""
LARGEST: Final = 1 << 17
"""Bytes of the longest frame: the largest MTU of a virtual wire is 65535."""
ANCILLARY: Final = 256
"""Bytes of a frame's control messages: timestamp and VLAN tag."""

_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_TIMESPEC = struct.Struct("=qq")
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that arrived at an interface."""

    host: str
    device: str
    """Name of the interface."""
    time: int
    """Nanoseconds of CLOCK_MONOTONIC, as ``bpf_ktime_get_ns`` gives them."""
    frame: bytes
    """Bytes from the Ethernet header on; an empty one at a tunnel for IP."""
    cookie: int
    """SO_COOKIE of the socket that captured it; the tracer sees the same in ``packet_rcv``."""
    outgoing: bool = False
    """Whether the host itself sent it."""


class Capture:
    """Captures the frames that arrive at the interfaces of ``hosts`` from now on.

    Of an endpoint that runs programs it also captures what the host sends, which is known from nowhere else.
    Each interface has a socket of its own: a socket on all interfaces would be called for the frames of
    every namespace, and those calls would appear in the paths of other packets.
    """

    def __init__(self, hosts: Iterable[Host]) -> None:
        self._sockets = [
            _Listening(host, interface, opened := _opened(host, interface), cookie_of(opened))
            for host in hosts
            for interface in host.interfaces
            if interface not in _ports(host)
        ]

    @property
    def sockets(self) -> dict[int, tuple[str, str]]:
        """Host and interface of each socket, by its SO_COOKIE."""
        return {one.cookie: (one.host.name, one.interface) for one in self._sockets}

    def read(self) -> list[Captured]:
        """The frames that have arrived since the last call, per interface in order of arrival; does not wait.

        Raises :class:`~harness.errors.BrokenMeasurement` when frames were lost because the receive buffer was full.
        """
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        frames: list[Captured] = []
        for one in self._sockets:
            frames += _arrived(one, realtime)
            _, lost = _STATISTICS.unpack(one.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
            if lost:
                raise BrokenMeasurement(
                    f"the capture at {one.host.name} lost {counted(lost, 'frame')}: the receive buffer was full"
                )
        return frames


def _ports(host: Host) -> set[str]:
    """Ports of bridges: frames only pass through them, and arrive elsewhere or at the bridge's own interface."""
    return {port for bridge in host.plan.bridges.values() for port in bridge.ports}


class _Listening(NamedTuple):
    host: Host
    interface: str
    socket: socket.socket
    cookie: int


def _opened(host: Host, interface: str) -> socket.socket:
    listening = host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    listening.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    listening.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    listening.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, host.plan.silent or host.plan.forwarding)
    listening.bind((interface, ETH_P_ALL))
    return listening


def _arrived(listening: _Listening, realtime: int) -> Iterator[Captured]:
    """The frames queued at the socket; ``realtime`` is the offset of CLOCK_REALTIME to CLOCK_MONOTONIC, in ns."""
    while True:
        try:
            frame, ancillary, flags, address = listening.socket.recvmsg(LARGEST, ANCILLARY)
        except BlockingIOError:
            return
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise BrokenMeasurement(f"a frame that arrived at {listening.host.name} is longer than {LARGEST} bytes")
        stamp = 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(payload)
                stamp = seconds * 1_000_000_000 + nanoseconds - realtime
            elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                frame = _with_vlan(frame, payload)
        if address[3] in WITHOUT_ETHERNET:
            frame = framed(frame)
        yield Captured(
            host=listening.host.name,
            device=listening.interface,
            time=stamp,
            frame=frame,
            cookie=listening.cookie,
            outgoing=address[2] == socket.PACKET_OUTGOING,
        )


def _with_vlan(frame: bytes, auxdata: bytes) -> bytes:
    """The frame with the VLAN tag that the kernel removed from it (net/core/skbuff.c, skb_vlan_untag)."""
    status, _, _, _, _, tag, protocol = _AUXDATA.unpack(auxdata)
    if not status & TP_STATUS_VLAN_VALID:
        return frame
    if not status & TP_STATUS_VLAN_TPID_VALID:
        protocol = ETH_P_8021Q
    return frame[:ETHER_ADDRESSES] + struct.pack("!HH", protocol, tag) + frame[ETHER_ADDRESSES:]
