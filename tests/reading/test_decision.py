"""What the ruleset decided about a packet, and where its oracles contradict each other."""

from __future__ import annotations

import pytest

from harness.errors import BrokenMeasurement
from harness.model.observation import Drop, Verdict
from harness.reading.decision import Outcome, ended, outcome
from harness.reading.path import routed_to
from tests.builders import FORWARD, changed, dropped, frame, hop, rule, step

SIX = frame("2001:db8::1", "2001:db8::2")


@pytest.mark.parametrize(
    ("family", "text", "sent", "answer"),
    [
        ("ip", "reject", frame(), "icmp port-unreachable"),
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
