"""Attributes of nf_tables' messages, missing ones too."""

from __future__ import annotations

from harness.linux import nfnetlink


def test_numbers_are_in_network_byte_order() -> None:
    assert nfnetlink.number(b"\0\0\1\2") == 258
    assert nfnetlink.number(memoryview(b"\xff" * 8)) == (1 << 64) - 1
    assert nfnetlink.number(None) == 0


def test_texts_end_before_their_zeros() -> None:
    assert nfnetlink.string(memoryview(b"inet\0\0")) == "inet"
    assert nfnetlink.string(None) == ""


def test_types_of_messages_are_those_of_nf_tables() -> None:
    # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE
    assert nfnetlink.NFT_MSG_TRACE == 0x0A11
    assert nfnetlink.HEADER.pack(2, 0, 0) == b"\2\0\0\0"
