"""The device's own answers that its ruleset drops, and answers from another address."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from harness.model.observation import Delivery, Flow, ObservedPacket, Step
from tests.builders import PASSED, advice, at, changed, complaints, dropped, ethernet, frame, headers, hop, rule, step

REPLY = {"reply": {"tcp": {"flags": "RA"}}}
CALLED = {"flow": "connected"}
TIMED_OUT = Flow(result="timeout", host="client")


def made(*steps: Step, sender: str = "device", frame: bytes = b"", **more: object) -> ObservedPacket:
    """What a kernel made by itself."""
    return ObservedPacket(number=1, sender=sender, frame=frame, injected=False, steps=steps, **more)


def refused(ip: bytes, hook: str = "output") -> Step:
    return at(step("drop", rule("tcp flags rst drop", line=3, chain=f"inet f {hook}"), hook=hook), headers=ip)


class TestOwnAnswer:
    @pytest.mark.parametrize(
        ("flags", "hook", "kind"),
        [(4, "output", "a TCP reset"), (18, "postrouting", "a SYN-ACK"), (16, "output", "a TCP packet")],
    )
    def test_is_dropped(self, flags: int, hook: str, kind: str) -> None:
        answer = refused(headers("10.0.2.2", "203.0.113.5", flags=flags), hook)
        (sentence,) = advice(REPLY, PASSED, made(at(answer, family="inet", table="f", chain=hook)))
        assert sentence == (
            f"device made the answer, {kind}, and its own ruleset dropped it: inet f {hook}, rulesets/edge.nft:3, "
            f"at hook {hook}; accept it there"
        )

    def test_fragmentation_needed_is_called_that(self) -> None:
        icmp = headers("203.0.113.1", "203.0.113.5")[:20] + bytes((3, 4, 0, 0, 0, 0, 5, 0))
        icmp = icmp[:9] + b"\x01" + icmp[10:]
        (sentence,) = advice({"reply": {"icmp": {}}}, PASSED, made(refused(icmp)))
        assert sentence.startswith("device made the answer, ICMP frag-needed, and its own ruleset dropped it")

    @pytest.mark.parametrize(
        ("kind", "code", "name"),
        [
            (1, 4, "ICMPv6 port-unreachable"),
            (3, 0, "ICMPv6 time-exceeded"),
            (200, 0, "ICMPv6 200"),
            (1, 99, "ICMPv6 99"),
        ],
    )
    def test_of_icmpv6(self, kind: int, code: int, name: str) -> None:
        addresses = ip_address("2001:db8::1").packed + ip_address("2001:db8::5").packed
        error = bytes((0x60, 0, 0, 0, 0, 8, 58, 64)) + addresses + bytes((kind, code)) + bytes(6)
        asked = changed(frame=frame("2001:db8::5", "2001:db8:2::2"))
        (sentence,) = advice({"reply": {"icmpv6": {}}}, asked, made(refused(error)))
        assert sentence.startswith(f"device made the answer, {name}, and its own ruleset dropped it")

    def test_its_headers_are_those_that_a_chain_of_the_device_saw(self) -> None:
        reset = refused(headers("10.0.2.2", "203.0.113.5", flags=4))
        (sentence,) = advice(REPLY, PASSED, made(step("continue", hook="output"), reset))
        assert "made the answer, a TCP reset, and" in sentence

    def test_without_those_they_are_what_was_captured_at_birth(self) -> None:
        data = ethernet(headers("10.0.2.2", "203.0.113.5", flags=18))
        (sentence,) = advice(REPLY, PASSED, made(at(step("drop"), hook="output"), frame=data))
        assert "made the answer, a SYN-ACK, and" in sentence

    @pytest.mark.parametrize(
        ("yaml", "other"),
        [
            ({"mark": 3}, made(refused(headers("10.0.2.2", "203.0.113.5", flags=4)))),  # no answer is asked for
            ({"reply": "none"}, made(refused(headers("10.0.2.2", "203.0.113.5", flags=4)))),
            (REPLY, made(refused(headers("10.0.2.2", "192.0.2.9", flags=4)))),  # to somebody else
            (REPLY, made(refused(headers("10.0.2.2", "203.0.113.5", flags=4)), sender="server")),
            (REPLY, made(at(refused(headers("10.0.2.2", "203.0.113.5", flags=4)), hook="forward"))),
            (REPLY, made(at(step("accept", hook="output"), headers=headers("10.0.2.2", "203.0.113.5")))),
        ],
    )
    def test_near_misses(self, yaml: dict[str, object], other: ObservedPacket) -> None:
        assert advice(yaml, PASSED, other) == []


def answer(
    src: str, dst: str = "203.0.113.5", *, sport: int = 443, dport: int = 40000, **more: object
) -> ObservedPacket:
    frame = ethernet(headers(src, dst, flags=18, sport=sport, dport=dport))
    came = Delivery(time=9, host="client", device="eth0", frame=frame)
    return made(sender="server", frame=frame, deliveries=(came,), **more)


class TestAnotherAddress:
    DNAT = changed(steps=(step("accept", rule("dnat to 192.0.2.20", line=2), hook="prerouting"),))

    def test_the_answer_went_past_the_device(self) -> None:
        assert advice(CALLED, self.DNAT, answer("192.0.2.20"), flow=TIMED_OUT) == [
            (
                "server answered from 192.0.2.20, and 10.0.2.2 was called: rulesets/edge.nft:2 translated the "
                "destination, but the answer was not routed by device, so it was not translated back; masquerade what "
                "device sends there, so that it gets the answers"
            )
        ]

    @pytest.mark.parametrize(("whole", "hops"), [(False, ()), (True, (hop("ip_forward"),))])
    def test_the_reason_is_left_out_where_it_is_not_proved(self, whole: bool, hops: tuple[object, ...]) -> None:
        other = answer("192.0.2.20", hops=hops)
        assert advice(CALLED, self.DNAT, other, flow=TIMED_OUT, whole=whole) == [
            "server answered from 192.0.2.20, and 10.0.2.2 was called: the answer was not translated back"
        ]

    def test_a_host_that_answers_from_elsewhere_by_itself(self) -> None:
        assert advice(CALLED, PASSED, answer("192.0.2.20"), flow=TIMED_OUT) == [
            (
                "server answered from 192.0.2.20, and 10.0.2.2 was called; a program takes answers only from where it "
                "has called"
            )
        ]

    def test_another_port_is_elsewhere_too(self) -> None:
        other = answer("10.0.2.2", sport=5353)
        assert advice(CALLED, PASSED, other, flow=TIMED_OUT) == [
            (
                "server answered from port 5353, and port 443 was called; a program takes answers only from where it "
                "has called"
            )
        ]
        (line,) = complaints(CALLED, packets=(PASSED, other), flow=TIMED_OUT)
        assert line.endswith("an answer came, but from port 5353, and port 443 was called")

    @pytest.mark.parametrize(
        "other", [answer("10.0.2.2"), answer("192.0.2.20", dport=40001), answer("192.0.2.20", "203.0.113.6")]
    )
    def test_near_misses(self, other: ObservedPacket) -> None:
        assert advice(CALLED, PASSED, other, flow=TIMED_OUT) == []

    def test_a_timeout_is_not_called_silence_when_something_came(self) -> None:
        packets = (PASSED, answer("192.0.2.20"))
        assert complaints(CALLED, packets=packets, flow=TIMED_OUT) == [
            "expect.flow: connected / timeout / an answer came, but from 192.0.2.20, and 10.0.2.2 was called"
        ]
        (line,) = complaints(CALLED, packets=(PASSED, answer("10.0.2.2")), flow=TIMED_OUT)
        assert "no answer reached the program; what came to client: 10.0.2.2:443 → 203.0.113.5:40000 tcp SA" in line
        assert complaints(CALLED, packets=(PASSED,), flow=TIMED_OUT) == [
            "expect.flow: connected / timeout / nothing came"
        ]

    def test_not_where_the_flow_went_well_or_no_answer_is_expected(self) -> None:
        other = answer("192.0.2.20")
        went_well = Flow(result="connected", host="client")
        assert advice({**CALLED, "verdict": "accept"}, self.DNAT, other, flow=went_well) == []
        assert advice({"mark": 3}, self.DNAT, other, flow=TIMED_OUT) == []


def test_a_packet_that_was_dropped_is_no_answer_from_elsewhere() -> None:
    assert not [line for line in advice(CALLED, dropped(step("drop")), flow=TIMED_OUT) if "answered from" in line]
