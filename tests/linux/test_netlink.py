"""Netlink messages, as bytes and as the kernel's route socket, which needs no root, answers."""

from __future__ import annotations

import struct

import pytest

from harness.linux.netlink import Netlink, attributes, messages

NETLINK_ROUTE, RTM_GETLINK = 0, 18
LINK = struct.Struct("=BxHiII")


def attribute(kind: int, payload: bytes) -> bytes:
    """As the kernel packs it (nla_put in lib/nlattr.c)."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def test_attributes_are_told_apart() -> None:
    packed = attribute(3, b"abcde") + attribute(0x8000 | 7, attribute(1, b"veth\0") + attribute(2, b""))
    (kind, payload), (outer, inside) = attributes(memoryview(packed))
    assert (kind, bytes(payload)) == (3, b"abcde")
    assert outer == 7
    assert [(one, bytes(held)) for one, held in attributes(inside)] == [(1, b"veth\0"), (2, b"")]


def test_a_cut_attribute_ends_the_list() -> None:
    packed = attribute(1, b"whole") + attribute(2, b"cut off")[:-4]
    assert [kind for kind, _ in attributes(memoryview(packed))] == [1]


def test_messages_of_a_datagram_are_separated() -> None:
    datagram = struct.pack("=IHHII3sx", 19, 20, 0, 1, 0, b"abc") + struct.pack("=IHHII", 16, 3, 2, 2, 0)
    assert [(one.type, one.flags, one.sequence, bytes(one.body)) for one in messages(datagram)] == [
        (20, 0, 1, b"abc"),
        (3, 2, 2, b""),
    ]


def test_a_dump_lists_the_loopback_interface() -> None:
    with Netlink(NETLINK_ROUTE) as link:
        indexes = [LINK.unpack_from(one.body)[2] for one in link.dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))]
    assert 1 in indexes


def test_a_refused_dump_is_an_error_of_the_system() -> None:
    with Netlink(NETLINK_ROUTE) as link, pytest.raises(OSError, match="Operation not supported"):
        list(link.dump(1000, b""))
