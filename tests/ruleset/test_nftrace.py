"""Messages of nf_tables' trace, packed as the kernel does."""

from __future__ import annotations

import struct

import pytest

from harness.linux.nfnetlink import NFT_MSG_TRACE
from harness.model.observation import Verdict
from harness.ruleset import nftrace
from harness.ruleset.nftrace import decode, decoded
from harness.untrusted import Malformed
from tests.ruleset.builders import attribute, message, nest, s32, u32

INET, IPV4, CONTINUE, JUMP, GOTO = 1, 2, -1, -3, -4
WHERE = (attribute(nftrace.TABLE, b"filter\0"), attribute(nftrace.CHAIN, b"forward\0"), attribute(nftrace.ID, u32(7)))


def handle(number: int) -> bytes:
    return attribute(nftrace.RULE_HANDLE, struct.pack(">Q", number))


def verdict(code: int, chain: bytes = b"") -> bytes:
    target = [attribute(nftrace.VERDICT_CHAIN, chain)] if chain else []
    return nest(nftrace.VERDICT, attribute(nftrace.VERDICT_CODE, s32(code)), *target)


def kind(number: int) -> bytes:
    return attribute(nftrace.TYPE, u32(number))


POLICY, RETURN, RULE = 1, 2, 3  # enum nft_trace_types


@pytest.mark.parametrize(
    ("attributes", "seen"),
    [
        ((kind(RULE), handle(9), verdict(1)), ("rule", 9, Verdict.ACCEPT, "")),
        ((kind(RULE), handle(9), verdict(0)), ("rule", 9, Verdict.DROP, "")),
        ((kind(RULE), handle(9), verdict(JUMP, b"web\0")), ("rule", 9, Verdict.JUMP, "web")),
        ((kind(RULE), handle(9), verdict(GOTO, b"web\0")), ("rule", 9, Verdict.GOTO, "web")),
        ((kind(RETURN), verdict(CONTINUE)), ("return", 0, Verdict.CONTINUE, "")),
        ((kind(RETURN), handle(9), verdict(-5)), ("rule", 9, Verdict.RETURN, "")),  # what names a rule is about that
        ((kind(POLICY), attribute(nftrace.POLICY, u32(0))), ("policy", 0, Verdict.DROP, "")),
        ((kind(POLICY), attribute(nftrace.POLICY, u32(1))), ("policy", 0, Verdict.ACCEPT, "")),
        ((), ("return", 0, Verdict.CONTINUE, "")),
    ],
)
def test_what_a_message_says(attributes: tuple[bytes, ...], seen: tuple[str, int, Verdict, str]) -> None:
    found = decode(message(NFT_MSG_TRACE, INET, *WHERE, *attributes), "device")
    assert (found.kind, found.handle, found.verdict, found.target) == seen
    assert (found.host, found.family, found.table, found.chain, found.id) == ("device", "inet", "filter", "forward", 7)


def test_the_packet_is_that_of_each_message_although_the_rule_is_remembered() -> None:
    def of(mark: int, network: bytes) -> nftrace.TraceMessage:
        more = (
            attribute(nftrace.MARK, u32(mark)),
            attribute(nftrace.IIF, u32(mark + 1)),
            attribute(nftrace.OIF, u32(mark + 2)),
            attribute(nftrace.NFPROTO, u32(IPV4)),
            attribute(nftrace.NETWORK_HEADER, network),
            attribute(nftrace.TRANSPORT_HEADER, network[::-1]),
        )
        return decode(message(NFT_MSG_TRACE, INET, *WHERE, kind(RULE), handle(9), verdict(1), *more), "device")

    for mark, network in ((1, b"one"), (2, b"other")):
        found = of(mark, network)
        assert (found.mark, found.iif, found.oif) == (mark, mark + 1, mark + 2)
        assert (found.network, found.transport, found.packet_family) == (network, network[::-1], "ip")


def test_each_message_has_its_own_id_although_all_else_is_remembered() -> None:
    def of(number: int) -> nftrace.TraceMessage:
        attributes = (attribute(nftrace.NFPROTO, u32(IPV4)), kind(RULE), attribute(nftrace.ID, u32(number)))
        return decode(message(NFT_MSG_TRACE, INET, *attributes, *WHERE[:2], handle(9), verdict(1)), "device")

    for number in (1, 2):
        found = of(number)
        assert (found.id, found.handle, found.chain, found.packet_family) == (number, 9, "forward", "ip")


def test_a_message_that_is_cut_off_says_what_is_left() -> None:
    whole = message(NFT_MSG_TRACE, INET, *WHERE, kind(RULE), handle(9))
    found = decode(whole._replace(body=whole.body[:-6]), "device")
    assert (found.chain, found.handle) == ("forward", 0)


def datagram(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_of_a_datagram_the_messages_of_the_trace_are_taken() -> None:
    body = bytes(message(NFT_MSG_TRACE, INET, *WHERE, kind(RULE), handle(9), verdict(1)).body)
    found = decoded([datagram(NFT_MSG_TRACE, body) + datagram(NFT_MSG_TRACE - 1, body)], "device")
    assert [one.handle for one in found] == [9]


def test_what_no_kernel_sends_is_refused() -> None:
    with pytest.raises(Malformed, match="a message of nf_tables' trace cannot be read"):
        decoded([datagram(NFT_MSG_TRACE, b"\1")], "device")
