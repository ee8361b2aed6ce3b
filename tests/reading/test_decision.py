"""What the ruleset decided about a packet, and where its oracles contradict each other."""

from __future__ import annotations

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.model.observation import Drop, Flow, Hop, ObservedPacket, Verdict
from harness.reading.decision import Outcome, decisive, ended, outcome
from harness.reading.path import routed_to
from tests.builders import FORWARD, PASSED, arrival, changed, dropped, frame, hop, observation, rule, step

SIX = frame("2001:db8::1", "2001:db8::2")


@pytest.mark.parametrize(
    ("family", "text", "sent", "answer"),
    [
        ("ip", "reject", frame(), "icmp port-unreachable"),
        ("ip", "reject", b"", "icmp port-unreachable"),
        ("ip6", "reject", b"", "icmpv6 port-unreachable"),
        ("ip6", "reject", SIX, "icmpv6 port-unreachable"),
        ("inet", "reject", frame(), "icmp port-unreachable"),
        ("inet", "reject", SIX, "icmpv6 port-unreachable"),
        ("inet", "reject", b"", "icmpx port-unreachable"),
        ("inet", "reject with icmpx type admin-prohibited", SIX, "icmpv6 admin-prohibited"),
        ("ip", "reject with icmp type host-unreachable", frame(), "icmp host-unreachable"),
        ("ip", "tcp dport 22 reject with tcp reset", frame(), "tcp reset"),
    ],
)
def test_the_answer_of_a_reject_in_full(family: str, text: str, sent: bytes, answer: str) -> None:
    chain = f"{family} filter forward"
    seen = outcome(dropped(step("drop", rule(text, chain=chain), chain=chain), frame=sent), "device")
    assert (seen.verdict, seen.with_) == (Verdict.REJECT, answer)


@pytest.mark.parametrize("count", [2, 3])
def test_functions_and_trace_tell_of_another_number_of_evaluations(count: int) -> None:
    calls = tuple(hop("nft_do_chain", "Netfilter", chain=FORWARD, verdict="accept") for _ in range(count))
    ran = {2: "twice", 3: "3 times"}[count]
    with pytest.raises(BrokenMeasurement, match=rf"ran {ran} for chain inet filter forward, .* reports it once"):
        outcome(changed(hops=calls), "device")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("queue", "queued on device by inet filter forward, rulesets/edge.nft:18"),
        ("stolen", "stolen on device by inet filter forward, rulesets/edge.nft:18"),
        ("accept", "last seen on device in ip_forward_finish"),
    ],
)
def test_the_end_of_a_packet_that_did_not_arrive(verdict: str, words: str) -> None:
    first, last = rule("ip saddr 10.0.0.0/8 accept", line=17), rule("queue to 1")
    steps = (step("accept", first, chain="inet filter prerouting"), step(verdict, last))
    packet = changed(steps=steps, deliveries=(), hops=(hop("ip_rcv"), hop("ip_forward_finish")))
    assert ended(packet, outcome(packet, "device"), "device").startswith(words)


def test_the_end_of_a_packet_that_nothing_saw() -> None:
    assert ended(changed(steps=(), deliveries=(), hops=()), Outcome(), "device") == "not observed after that"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("IP_RPFILTER", "delivered to server, then dropped by the kernel on edge in ip_error: IP_RPFILTER ("),
        ("NO_SUCH", "delivered to server, then dropped by the kernel on edge in ip_error: NO_SUCH"),
    ],
)
def test_the_end_of_a_packet_that_the_kernel_dropped_behind(reason: str, words: str) -> None:
    packet = changed(drop=Drop(host="edge", function="ip_error", reason=reason), hops=())
    reported = ended(packet, outcome(packet, "device"), "device")
    assert reported.startswith(words)
    assert reported.endswith(")") == (reason == "IP_RPFILTER")


def test_the_interface_of_a_packet_that_is_routed_but_was_not_output() -> None:
    assert routed_to(changed(hops=(hop("ip_rcv"), hop("ip_rcv"))), "device") == ""


def test_what_nothing_saw_names_its_remedy() -> None:
    with pytest.raises(BrokenMeasurement) as raised:
        outcome(changed(steps=(), deliveries=(), hops=()), "device")
    assert raised.value.remedy == "check that its interface is up and part of the lab"


def ran(chain: str, verdict: str = "") -> Hop:
    return hop("nft_do_chain", "Netfilter", chain=chain, **({"verdict": verdict} if verdict else {}))


def test_functions_and_trace_agree() -> None:
    rejected = changed(hops=(ran(FORWARD, "drop"),), steps=(step("reject", rule("reject")),), deliveries=())
    assert outcome(rejected, "device").verdict is Verdict.REJECT
    assert outcome(changed(hops=(ran(FORWARD),)), "device").verdict is Verdict.ACCEPT, "what it returned is not known"


def test_a_chain_that_functions_did_not_see() -> None:
    steps = (step("accept", chain="inet filter prerouting"), step("accept"))
    with pytest.raises(BrokenMeasurement, match=r"ran never for chain inet filter prerouting, .* reports it once"):
        outcome(changed(hops=(ran(FORWARD, "accept"),), steps=steps), "device")


# --- where a packet ended -----------------------------------------------------------------------


def end(packet: ObservedPacket) -> str:
    return ended(packet, outcome(packet, "device"), "device")


def test_the_end_of_a_refused_packet() -> None:
    refused = dropped(step("drop", rule("drop")))
    assert end(refused) == "dropped on device by inet filter forward, rulesets/edge.nft:18"
    rejected = dropped(step("drop", rule("reject with tcp reset")))
    assert end(rejected) == "rejected with tcp reset on device by inet filter forward, rulesets/edge.nft:18"
    told = changed(refused, drop=Drop(host="device", function="nf_hook_slow", reason="NETFILTER_DROP"))
    assert end(told) == "dropped on device by inet filter forward, rulesets/edge.nft:18 (nf_hook_slow: NETFILTER_DROP)"


def test_the_end_of_a_packet_that_arrived() -> None:
    both = changed(deliveries=(arrival("device"), arrival("server")), hops=())
    assert end(both) == "received by device, then delivered to server"


def test_the_end_of_a_packet_that_the_kernel_gave_up() -> None:
    drop = Drop(host="edge", function="ip_rcv_core", reason="OTHER_REASON")
    lost = changed(steps=(), deliveries=(), hops=(hop("ip_rcv"),), drop=drop)
    assert end(lost) == "dropped by the kernel on edge in ip_rcv_core: OTHER_REASON"
    for function, reason, words in (
        ("ip6_forward", "NOT_SPECIFIED", "not to be forwarded"),
        ("ip_rcv_core", "NOT_SPECIFIED", "the kernel gives no reason"),
        ("ip_error", "IP_INADDRERRORS", "forwarding is off on the interface it came in by"),
    ):
        one = changed(lost, drop=Drop(host="edge", function=function, reason=reason))
        assert end(one) == f"dropped by the kernel on edge in {function}: {reason} ({words})"


def test_the_end_of_a_packet_that_did_not_arrive_is_the_last_of_all() -> None:
    steps = tuple(step("queue", rule("queue", line=line), chain=f"inet filter c{line}") for line in (1, 2, 3))
    packet = changed(steps=steps, deliveries=(), hops=())
    assert end(packet) == "queued on device by inet filter c3, rulesets/edge.nft:3"
    hops = (hop("a", host="client"), hop("b", host="edge"), hop("c", host="device"), hop("d", host="server"))
    assert end(changed(steps=(), deliveries=(), hops=hops)) == "last seen on server in d"


# --- which packet of a flow an expectation is about ---------------------------------------------


def fragment(version: int, *, offset: int = 0, more: bool = False, header: int = 44) -> bytes:
    if version == 6:
        return bytes(12) + b"\x86\xdd" + bytes((0x60, 0, 0, 0, 0, 8, header, 64)) + bytes(40)
    flags = (offset | (0x2000 if more else 0)).to_bytes(2, "big")
    return bytes(12) + b"\x08\x00" + bytes((0x45, 0, 0, 28, 0, 1)) + flags + bytes((64, 17)) + bytes(18)


PIECES = [b"", fragment(6), fragment(4, more=True), fragment(4, offset=1), fragment(4, offset=0x1000)]
WHOLE = [
    fragment(4),
    fragment(4, offset=0x4000),
    fragment(6, header=17),
    bytes(12) + b"\x08\x06" + bytes(6) + b"\xff" * 9,
]
"""The second may not be fragmented; the last is ARP."""


def flow(*packets: ObservedPacket) -> ObservedPacket:
    seen = msgspec.structs.replace(observation(PASSED), packets=packets, flow=Flow(result="answered", host="client"))
    return decisive(seen)


@pytest.mark.parametrize("data", PIECES)
def test_of_pieces_it_is_the_one_that_met_most(data: bytes) -> None:
    first = changed(frame=data, steps=())
    lost = changed(number=1, steps=(step("accept"), step("accept")), deliveries=())
    most = changed(number=2, steps=(step("accept"),))
    in_segments = changed(number=3, steps=most.steps * 2)
    assert flow(first, lost, most, in_segments) is most
    assert flow(changed(first, deliveries=()), lost) == changed(first, deliveries=())


@pytest.mark.parametrize("data", WHOLE)
def test_of_whole_packets_it_is_the_first(data: bytes) -> None:
    first = changed(frame=data, steps=())
    assert flow(first, changed(number=1, steps=(step("accept"),))) is first


def test_it_is_the_first_that_was_refused() -> None:
    refused = dropped(step("drop"), number=1, injected=False)
    assert flow(changed(frame=b"", steps=()), refused, dropped(step("drop"), number=2)) is refused
