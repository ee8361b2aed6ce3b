"""Packets sent from a host: frames byte for byte from an interface, or IP packets through its kernel.

A silent host sends frames through a packet socket, packet(7), which bypasses the hooks of its IP
stack. The device under test, or a router, sends its own packets through a raw socket with the IP
header included, raw(7) and ipv6(7): routed, and through output and postrouting, like a program's
packets.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Final, Protocol

from harness.errors import HarnessError
from harness.lab.lab import Host
from harness.packets.frames import Frame, SendPath

SO_COOKIE: Final = 57
"""Linux commit 5daab9db7b65 ("New getsockopt option to get socket cookie") (in v4.12)."""
ETHERNET: Final = 14
"""Bytes of an Ethernet header."""


class Sender(Protocol):
    """An open socket to send from; it receives nothing.

    Keep it open while its packets are in flight: the tracer identifies them by its cookie.
    """

    cookie: int
    """What ``skb->sk->sk_cookie`` is for every packet sent here."""

    def send(self, frame: bytes) -> None:
        """Send ``frame``, which is given from the Ethernet header on.

        Raises :class:`~harness.errors.HarnessError` when the host cannot send it.
        """


def sender(host: Host, frame: Frame) -> Sender:
    """What sends ``frame`` from ``host``."""
    if frame.through == "output":
        return Output(host, frame.interface, family=frame.family)
    return Wire(host, frame.interface)


class Senders:
    """What sends frames from ``hosts``, by their names; each socket stays open, for those that leave the same way."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._open: dict[tuple[str, SendPath], Sender] = {}

    def of(self, frame: Frame) -> Sender:
        """The one that sends ``frame``."""
        key = frame.sender, frame.way
        if key not in self._open:
            self._open[key] = sender(self._hosts[frame.sender], frame)
        return self._open[key]


class Wire:
    """A packet socket on ``interface`` of ``host``: sends frames unchanged."""

    def __init__(self, host: Host, interface: str) -> None:
        self.host = host
        self.interface = interface
        # Protocol 0 in both calls: the socket then receives nothing.
        self._socket = host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((interface, 0))
        self.cookie = cookie_of(self._socket)

    def send(self, frame: bytes) -> None:
        """Send ``frame``, from the Ethernet header on, unchanged."""
        try:
            self._socket.send(frame)
        except OSError as refused:
            # The egress hook dropped it: NET_XMIT_DROP from nf_hook_egress() in include/linux/netfilter_netdev.h.
            if refused.errno != errno.ENOBUFS:
                raise _refused(f"{self.host.name}:{self.interface}", "a frame", len(frame), refused) from None


class Output:
    """A raw socket of ``host``: an IP packet of version ``family`` goes through its kernel, from the output hook on.

    The kernel routes it, and writes IPv4's length and checksum; ``interface`` is the output interface for
    multicast and link-local destinations.
    """

    def __init__(self, host: Host, interface: str, *, family: int) -> None:
        self.host = host
        self.family = family
        self._index = host.interfaces.get(interface, 0)  # 0 for lo
        version = socket.AF_INET if family == 4 else socket.AF_INET6
        # IPPROTO_RAW: the header is included, and nothing is received.
        self._socket = host.namespace.socket(version, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if family == 4:
            request = struct.pack("=8xi", self._index)  # struct ip_mreqn
            self._socket.setsockopt(socket.SOL_IP, socket.IP_MULTICAST_IF, request)
        self.cookie = cookie_of(self._socket)

    def send(self, frame: bytes) -> None:
        """Send the IP packet in ``frame``; its Ethernet header is ignored, the kernel writes its own."""
        packet = frame[ETHERNET:]
        try:
            self._socket.sendto(packet, self._destination(packet))
        except OSError as refused:
            # A program gets an error when the output hook drops its packet: NF_DROP_GETERR() in net/netfilter/core.c.
            if refused.errno != errno.EPERM:
                raise _refused(self.host.name, "a packet", len(packet), refused) from None

    def _destination(self, packet: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
        if self.family == 4:
            return socket.inet_ntop(socket.AF_INET, packet[16:20]), 0
        address = IPv6Address(packet[24:40])
        narrow = address.is_link_local or address.is_multicast
        return str(address), 0, 0, self._index if narrow else 0


def _refused(who: str, what: str, size: int, error: OSError) -> HarnessError:
    return HarnessError(f"{who} could not send {what} of {size} bytes: {os.strerror(error.errno or 0)}")


def cookie_of(opened: socket.socket) -> int:
    """SO_COOKIE of a socket: unique since boot."""
    cookie: int = struct.unpack("=Q", opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]
    return cookie
