"""Netlink messages, as bytes and against the kernel's route socket, which needs no root to answer."""

from __future__ import annotations

import struct

import pytest

from harness.linux.netlink import CHANGE, Netlink, NetlinkError, Request, attribute, attributes, messages, nested, text

NETLINK_ROUTE, RTM_NEWLINK, RTM_GETLINK = 0, 16, 18
LINK = struct.Struct("=BxHiII")


def test_attributes_come_back_as_they_were_packed() -> None:
    packed = attribute(3, b"abcde") + nested(7, text(1, "veth"), attribute(2, b""))
    (kind, payload), (outer, inside) = attributes(memoryview(packed))
    assert (kind, bytes(payload)) == (3, b"abcde")
    assert outer == 7
    assert [(one, bytes(held)) for one, held in attributes(inside)] == [(1, b"veth\0"), (2, b"")]


def test_a_cut_attribute_ends_the_list() -> None:
    packed = attribute(1, b"whole") + attribute(2, b"cut off")[:-4]
    assert [kind for kind, _ in attributes(memoryview(packed))] == [1]


def test_messages_of_a_datagram_are_told_apart() -> None:
    datagram = struct.pack("=IHHII3sx", 19, 20, 0, 1, 0, b"abc") + struct.pack("=IHHII", 16, 3, 2, 2, 0)
    assert [(one.type, one.flags, one.sequence, bytes(one.body)) for one in messages(datagram)] == [
        (20, 0, 1, b"abc"),
        (3, 2, 2, b""),
    ]


def test_a_dump_tells_of_the_loopback_interface() -> None:
    with Netlink(NETLINK_ROUTE) as link:
        indexes = [LINK.unpack_from(one.body)[2] for one in link.dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0), "links")]
    assert 1 in indexes


def test_what_is_refused_is_named_with_the_kernels_reason() -> None:
    missing = Request(RTM_NEWLINK, CHANGE, LINK.pack(0, 0, 0x7FFFFFFF, 0, 0), "interface 2147483647")
    with Netlink(NETLINK_ROUTE) as link, pytest.raises(NetlinkError) as refused:
        link.ask([missing])
    assert refused.value.what == "interface 2147483647"
    assert refused.value.strerror
