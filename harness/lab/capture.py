"""Frames that arrive at hosts of a lab, byte for byte. See packet(7)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from harness.errors import BrokenMeasurement
from harness.lab.inject import cookie_of
from harness.lab.lab import Host

ETH_P_ALL: Final = 0x0003
SOL_PACKET: Final = 263
PACKET_STATISTICS, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 6, 8, 23
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
ETH_P_8021Q: Final = 0x8100
ETHER_ADDRESSES: Final = 12
"""Bytes before the place of a VLAN tag."""

BUFFER: Final = 8 << 20
"""Receive buffer of each interface, bytes."""
LARGEST: Final = 1 << 17
"""Bytes of the longest frame: the largest MTU of a virtual wire is 65535."""
ANCILLARY: Final = 256
"""Bytes for what comes with a frame: time and VLAN tag."""

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
    """From the Ethernet header on."""
    cookie: int
    """SO_COOKIE of the socket that captured it; the tracer sees the same in ``packet_rcv``."""
    outgoing: bool = False
    """Whether the host sent it there."""


class Capture:
    """Captures at the interfaces of ``hosts`` what arrives there from now on.

    Of an endpoint that speaks it captures what the host sends as well: nobody else knows those bytes.
    Each interface has a socket of its own: one for all interfaces would be shown the frames of
    every namespace, only to drop them, and that would be seen on the way of packets elsewhere.
    """

    def __init__(self, hosts: Iterable[Host]) -> None:
        self._sockets = [
            (host, interface, _listening(host, interface))
            for host in hosts
            for interface in host.interfaces
            if interface not in _ports(host)
        ]

    def read(self) -> list[Captured]:
        """What has arrived since the last call, per interface in the order of arrival; it does not wait.

        Raises :class:`~harness.errors.BrokenMeasurement` when frames were lost for want of room.
        """
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        frames: list[Captured] = []
        for host, interface, listening in self._sockets:
            frames += _arrived(host, interface, listening, realtime)
            _, lost = _STATISTICS.unpack(listening.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
            if lost:
                raise BrokenMeasurement(f"{lost} frames that arrived at {host.name} were lost before they were read")
        return frames


def _ports(host: Host) -> set[str]:
    """Ports of bridges: a frame passes them on its way, and arrives elsewhere or at the bridge's own interface."""
    return {port for bridge in host.plan.bridges.values() for port in bridge.ports}


def _listening(host: Host, interface: str) -> socket.socket:
    listening = host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    listening.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    listening.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    listening.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, host.plan.silent or host.plan.forwarding)
    listening.bind((interface, ETH_P_ALL))
    return listening


def _arrived(host: Host, interface: str, listening: socket.socket, realtime: int) -> Iterator[Captured]:
    """What the socket holds; ``realtime`` is how far that clock is ahead of the monotonic one, in ns."""
    cookie = cookie_of(listening)
    while True:
        try:
            frame, ancillary, flags, address = listening.recvmsg(LARGEST, ANCILLARY)
        except BlockingIOError:
            return
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise BrokenMeasurement(f"a frame that arrived at {host.name} is longer than {LARGEST} bytes")
        stamp = 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(payload)
                stamp = seconds * 1_000_000_000 + nanoseconds - realtime
            elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                frame = _with_vlan(frame, payload)
        yield Captured(
            host=host.name,
            device=interface,
            time=stamp,
            frame=frame,
            cookie=cookie,
            outgoing=address[2] == socket.PACKET_OUTGOING,
        )


def _with_vlan(frame: bytes, auxdata: bytes) -> bytes:
    """The frame with the VLAN tag that the kernel took out of it (net/core/skbuff.c, skb_vlan_untag)."""
    status, _, _, _, _, tag, protocol = _AUXDATA.unpack(auxdata)
    if not status & TP_STATUS_VLAN_VALID:
        return frame
    if not status & TP_STATUS_VLAN_TPID_VALID:
        protocol = ETH_P_8021Q
    return frame[:ETHER_ADDRESSES] + struct.pack("!HH", protocol, tag) + frame[ETHER_ADDRESSES:]
