"""Why connection tracking considers a packet invalid, and what is not translated because it is not tracked."""

from __future__ import annotations

import msgspec
import pytest

from harness.judge.diagnoses.tracking import needs_connections, should_be_translated
from harness.judge.evidence import Evidence
from harness.model.observation import Connection, Delivery, Direction, Flow, ObservedPacket, Rule, Step
from harness.reading.decision import outcome
from harness.scenario.models.expect import Expect
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import advice, at, changed, dropped, ethernet, headers, hop, observation, rule, step

PASS = {"verdict": "accept", "delivered": "server"}
INVALID = step("drop", rule("ct state invalid drop", line=9))
SYN, RST, ACK, FIN = 2, 4, 16, 1
CONSIDERED = "conntrack considers the packet invalid: "


def packet(flags: int = ACK, *steps: Step) -> ObservedPacket:
    return dropped(*(steps or (INVALID,)), frame=ethernet(headers(flags=flags)))


def icmp(version: int, kind: int) -> ObservedPacket:
    """An ICMP message without the checksum that it should have, behind a fragment header that hides that."""
    if version == 4:
        ip = bytearray(headers()[:20] + bytes((kind, 0, (0xFF - kind) & 0xFF, 0xFF)) + bytes(4))
        ip[9], ip[3] = 1, 28
        return dropped(INVALID, frame=ethernet(bytes(ip)))
    ip = bytes((0x60, 0, 0, 0, 0, 8, 58, 64)) + bytes(32)
    total = (kind << 8) + 8 + 58
    ip += bytes((kind, 0)) + (0xFFFF - total).to_bytes(2, "big") + bytes(4)
    return dropped(INVALID, frame=bytes(12) + b"\x86\xdd" + ip)


def entry(state: str, *status: str) -> Connection:
    return Connection(
        protocol=6,
        original=Direction(src="203.0.113.5", dst="10.0.2.2", sport=40000, dport=443),
        reply=Direction(src="10.0.2.2", dst="203.0.113.5", sport=443, dport=40000),
        state=state,
        status=status,
    )


UNFIT = "and the flags R or the numbers of the packet do not fit that"
LINE = "203.0.113.5:40000 → 10.0.2.2:443 reply 10.0.2.2:443 → 203.0.113.5:40000"


class TestInvalid:
    @pytest.mark.parametrize(
        ("flags", "state", "reason"),
        [
            (
                ACK,
                "SYN_SENT",
                (
                    f"its connection is tcp SYN_SENT {LINE}: the device has seen the SYN but not the SYN-ACK, which "
                    "may have taken another way"
                ),
            ),
            (
                ACK,
                "ESTABLISHED",
                (
                    f"its connection is tcp ESTABLISHED {LINE}, and its sequence or acknowledgement number is out of "
                    "the window"
                ),
            ),
            (
                RST,
                "ESTABLISHED",
                f"its connection is tcp ESTABLISHED {LINE}, {UNFIT}",
            ),
        ],
    )
    def test_of_a_connection(self, flags: int, state: str, reason: str) -> None:
        assert advice(PASS, packet(flags), connections=(entry(state),), listed=True) == [CONSIDERED + reason]

    @pytest.mark.parametrize(
        ("flags", "state"),
        [
            *((SYN, "SYN_SENT"), (RST, "SYN_SENT"), (SYN | ACK, "SYN_SENT"), (RST | ACK, "SYN_SENT")),
            *((SYN | ACK, "ESTABLISHED"), (RST | ACK, "ESTABLISHED"), (ACK, "TIME_WAIT"), (SYN, "ESTABLISHED")),
        ],
    )
    def test_whose_state_the_flags_do_not_fit(self, flags: int, state: str) -> None:
        (found,) = advice(PASS, packet(flags), connections=(entry(state),), listed=True)
        assert found.startswith(f"{CONSIDERED}its connection is tcp {state} {LINE}, and the flags ")
        assert found.endswith(" or the numbers of the packet do not fit that")

    def test_flags_that_conntrack_leaves_aside(self) -> None:
        (found,) = advice(PASS, packet(ACK | 8), connections=(entry("ESTABLISHED"),), listed=True)
        assert found.endswith("and its sequence or acknowledgement number is out of the window")

    def test_of_several_connections(self) -> None:
        own = (entry("ESTABLISHED"), entry("TIME_WAIT"))
        assert advice(PASS, packet(RST), connections=own, listed=True) == [
            f"{CONSIDERED}it does not fit its connection: tcp ESTABLISHED {LINE}; tcp TIME_WAIT {LINE}"
        ]

    def test_without_any_flag(self) -> None:
        (found,) = advice(PASS, packet(0))
        assert found == f"{CONSIDERED}no TCP packet has the flags none together"

    def test_of_another_protocol_or_cut_off(self) -> None:
        udp = bytearray(ethernet(headers()))
        udp[23] = 132
        for data in (bytes(udp), ethernet(headers()[:24])):
            (found,) = advice(PASS, dropped(INVALID, frame=data))
            assert found == f"{CONSIDERED}it fits no connection, and cannot begin one"

    def test_without_a_connection(self) -> None:
        said = "no connection that it belongs to, and the flags R do not begin one"
        other = msgspec.structs.replace(entry("ESTABLISHED"), original=Direction(src="203.0.113.9", dst="10.0.2.2"))
        other = msgspec.structs.replace(other, reply=Direction(src="10.0.2.2", dst="203.0.113.9"))
        for connections in ((), (other,)):
            (found,) = advice(PASS, packet(RST), connections=connections, listed=True)
            assert found == f"{CONSIDERED}the device tracks {said}"
        (found,) = advice(PASS, packet(RST))
        assert found == f"{CONSIDERED}it fits no connection that the device tracks, and the flags R do not begin one"

    def test_flags_that_make_no_sense(self) -> None:
        (found,) = advice(PASS, packet(SYN | FIN), connections=(entry("ESTABLISHED"),), listed=True)
        assert found == f"{CONSIDERED}no TCP packet has the flags FS together"

    def test_a_wrong_checksum(self) -> None:
        frame = bytearray(ethernet(headers(flags=ACK)))
        frame[-2] ^= 1
        wrong = msgspec.structs.replace(packet(), frame=bytes(frame))
        (found,) = advice(PASS, wrong, connections=(entry("ESTABLISHED"),), listed=True)
        assert found == f"{CONSIDERED}its TCP checksum is wrong"
        (found,) = advice(PASS, wrong, network=Network.of(LABS["router"]))
        assert found == f"{CONSIDERED}its TCP checksum is wrong"

    def test_a_wrong_checksum_that_conntrack_does_not_verify(self) -> None:
        frame = bytearray(ethernet(headers(flags=ACK)))
        frame[-2] ^= 1
        wrong = msgspec.structs.replace(packet(), frame=bytes(frame))
        device = msgspec.structs.replace(
            LABS["router"].hosts["device"], sysctls={"net.netfilter.nf_conntrack_checksum": 0}
        )
        off = msgspec.structs.replace(LABS["router"], hosts={**LABS["router"].hosts, "device": device})
        for one, more in (
            (wrong, {"network": Network.of(off)}),
            (msgspec.structs.replace(wrong, sender="device"), {}),
            (msgspec.structs.replace(wrong, injected=False), {}),
            (wrong, {"flow": Flow(result="timeout", host="client")}),
        ):
            (found, *_) = advice(PASS, one, **more)
            assert "checksum" not in found

    @pytest.mark.parametrize(
        ("version", "kind", "reason"),
        [
            (
                4,
                3,
                "an ICMP error (destination-unreachable) is valid only if the packet that it quotes",
            ),
            (6, 2, "an ICMP error (packet-too-big) is valid only if the packet that it quotes"),
            (4, 0, "no request is tracked that this echo-reply answers"),
            (6, 129, "no request is tracked that this echo-reply answers"),
            (4, 9, "conntrack does not take router-advertisement for the beginning of a connection"),
            (6, 128, "conntrack does not take echo-request for the beginning of a connection"),
            (4, 200, "conntrack does not take type 200 for the beginning of a connection"),
        ],
    )
    def test_icmp(self, version: int, kind: int, reason: str) -> None:
        (found,) = advice(PASS, icmp(version, kind))
        assert found.startswith(CONSIDERED + reason)

    @pytest.mark.parametrize(
        "text",
        [
            "ct state { invalid, untracked } drop",
            "ct state invalid,new drop",
            "ct state != invalid drop",
            "ct state vmap { established : accept, invalid : drop, new : drop }",
            'log prefix "ct state invalid" drop',
        ],
    )
    def test_not_where_the_rule_matches_other_states_too(self, text: str) -> None:
        assert advice(PASS, packet(ACK, step("drop", rule(text)))) == []

    @pytest.mark.parametrize(
        "text", ["ct state vmap { established : accept, invalid : drop }", "ct state { invalid } counter drop"]
    )
    def test_however_it_is_written(self, text: str) -> None:
        assert advice(PASS, packet(RST, step("drop", rule(text))))[0].startswith(CONSIDERED)

    def test_of_iptables(self) -> None:
        text = 'xt match "conntrack" counter packets 0 bytes 0 drop'
        for written, known in (
            ("--ctstate INVALID", True),
            ("! --ctstate INVALID", False),
            ("--ctstate INVALID,NEW", False),
        ):
            one = msgspec.structs.replace(rule(text), written=f"-A FORWARD -m conntrack {written} -j DROP")
            assert bool(advice(PASS, packet(RST, step("drop", one)))) is known

    def test_not_when_that_is_what_the_scenario_wants(self) -> None:
        assert advice({"verdict": "drop", "rule": "policy"}, packet(RST)) == []


MASQUERADE = rule('oifname "wan0" masquerade', line=4, handle=4, chain="ip n post")
NOTRACK = step("continue", rule("udp dport 53 notrack", line=2, chain="ip n raw"), chain="ip n raw", hook="prerouting")
WANTED = {"rule": MASQUERADE.text, "delivered": {"to": "server", "sees": {"src": "10.0.2.1"}}}
FORWARDED = step("accept", chain="ip n forward")
WITHOUT = "and only packets of a tracked connection are translated"


def went(*steps: Step, frame: bytes = ethernet(headers(flags=RST)), hops: tuple[object, ...] = ()) -> ObservedPacket:
    came = Delivery(time=9, host="server", device="eth0", frame=frame)
    return changed(steps=steps, hops=hops, frame=frame, deliveries=(came,))


def said(one: ObservedPacket, **more: object) -> list[str]:
    return advice(WANTED, one, rules=(MASQUERADE,), **more)


class TestNotTranslated:
    def test_notrack(self) -> None:
        late = hop("nf_conntrack_in")
        one = went(NOTRACK, FORWARDED, hops=(msgspec.structs.replace(late, time=7),))
        expected = [f"rulesets/edge.nft:2 exempts the packet from connection tracking (notrack), {WITHOUT}"]
        assert said(one, traced=frozenset({"nf_conntrack_in"})) == expected
        seen = step("continue", rule("ct state untracked counter", line=3))
        assert said(went(NOTRACK, seen, FORWARDED)) == expected

    def test_notrack_after_conntrack_changes_nothing(self) -> None:
        early = (msgspec.structs.replace(hop("nf_conntrack_in"), time=7),)
        one = went(at(NOTRACK, time=9), FORWARDED, hops=early)
        assert said(one, traced=frozenset({"nf_conntrack_in"})) == []
        assert said(went(NOTRACK, FORWARDED)) == []  # where no function was traced, nobody knows

    def test_untracked_and_invalid(self) -> None:
        untracked = step("continue", rule("ct state untracked counter", line=3))
        assert said(went(untracked, FORWARDED)) == [f"the packet is untracked (rulesets/edge.nft:3), {WITHOUT}"]
        counted = step("continue", rule("ct state invalid counter", line=9))
        (found,) = said(went(counted, FORWARDED), connections=(entry("SYN_SENT"),), listed=True)
        assert found.startswith(
            f"conntrack considers the packet invalid (rulesets/edge.nft:9), {WITHOUT}; its connection"
        )

    def test_by_the_connections_of_the_device(self) -> None:
        assert said(went(FORWARDED), listed=True) == [
            (
                "the packet was not tracked (the device tracks no connection that it belongs to, and the flags R do "
                f"not begin one), {WITHOUT}"
            )
        ]
        assert said(went(FORWARDED)) == []  # they were not asked
        known = entry("ESTABLISHED", "SEEN_REPLY")
        (found,) = said(went(FORWARDED), listed=True, connections=(known,))
        assert found.startswith(
            "the packet belongs to a connection that was not translated when it began, and chains of"
        )
        for other in (entry("SYN_SENT"), entry("ESTABLISHED", "SEEN_REPLY", "SRC_NAT")):
            assert said(went(FORWARDED), listed=True, connections=(other,)) == []

    def test_not_where_no_translation_is_wanted(self) -> None:
        one = went(NOTRACK, step("continue", rule("ct state untracked counter")), FORWARDED)
        assert advice({"verdict": "drop"}, one, rules=(MASQUERADE,), listed=True) == []
        sees = {"delivered": {"to": "server", "sees": {"src": "203.0.113.5"}}}
        assert advice(sees, one, rules=(MASQUERADE,), listed=True) == []

    def test_what_another_host_considers_does_not_matter(self) -> None:
        there = at(step("continue", rule("ct state invalid counter", line=9)), host="edge")
        assert said(went(there, FORWARDED)) == []

    @pytest.mark.parametrize(("protocol", "why"), [(17, ""), (1, " ("), (132, "")])
    def test_why_it_was_not_tracked(self, protocol: int, why: str) -> None:
        frame = bytearray(ethernet(headers(flags=RST)))
        frame[23] = protocol
        (found,) = said(went(FORWARDED, frame=bytes(frame)), listed=True)
        assert found.startswith(f"the packet was not tracked{why or ', '}")
        assert found.endswith(WITHOUT)

    def test_why_it_was_not_tracked_of_icmpv6(self) -> None:
        (found,) = said(went(FORWARDED, frame=icmp(6, 129).frame), listed=True)
        assert found == f"the packet was not tracked (no request is tracked that this echo-reply answers), {WITHOUT}"

    def test_not_of_a_packet_that_did_not_go_on(self) -> None:
        assert said(msgspec.structs.replace(went(FORWARDED), deliveries=()), listed=True) == []
        refused = msgspec.structs.replace(
            went(step("drop", rule("drop", line=3), chain="ip n forward")), deliveries=(), hops=(hop("ip_rcv"),)
        )
        assert not [line for line in said(refused, listed=True) if "track" in line]


def evidence(expect: dict[str, object], one: ObservedPacket, *rules: Rule) -> Evidence:
    return Evidence(msgspec.convert(expect, Expect), outcome(one, "device"), observation(one), one, rules)


class TestShouldBeTranslated:
    @pytest.mark.parametrize(
        ("sees", "known"),
        [
            ({"src": "10.0.2.1"}, True),
            ({"dst": "192.0.2.9"}, True),
            ({"src": "203.0.113.5", "dst": "192.0.2.9"}, True),
            ({"src": "203.0.113.5"}, False),
            ({"dst": "10.0.2.2 | 192.0.2.9"}, False),
            ({"dst": "198.51.100.1"}, False),  # as it arrived
            ({"dport": 8080}, False),
        ],
    )
    def test_by_the_addresses_that_are_expected(self, sees: dict[str, object], known: bool) -> None:
        arrived = ethernet(headers(dst="198.51.100.1"))
        one = changed(steps=(FORWARDED,), hops=(), frame=ethernet(headers()), deliveries=())
        came = Delivery(time=9, host="server", device="eth0", frame=arrived if "198" in str(sees) else one.frame)
        one = msgspec.structs.replace(one, deliveries=(came,))
        expect = {"delivered": {"to": "server", "sees": sees}}
        assert should_be_translated(evidence(expect, one)) is known
        assert needs_connections(evidence(expect, one)) is known

    def test_not_what_was_sent_as_it_is_expected(self) -> None:
        one = changed(steps=(FORWARDED,), hops=(), frame=ethernet(headers()))
        came = Delivery(time=9, host="server", device="eth0", frame=ethernet(headers(src="10.0.2.1")))
        expect = {"delivered": {"to": "server", "sees": {"src": "203.0.113.5"}}}
        assert not should_be_translated(evidence(expect, msgspec.structs.replace(one, deliveries=(came,))))

    def test_what_no_header_shows(self) -> None:
        arp = bytes(12) + b"\x88\xb5" + bytes(40)
        expect = {"delivered": {"to": "server", "sees": {"src": "10.0.2.1"}}}
        assert not should_be_translated(evidence(expect, went(FORWARDED, frame=arp)))
        assert not should_be_translated(evidence({"delivered": "server"}, went(FORWARDED)))
        assert not should_be_translated(evidence({"verdict": "drop"}, went(FORWARDED)))

    def test_by_a_rule_that_did_not_match(self) -> None:
        expect = {"rule": MASQUERADE.text}
        assert should_be_translated(evidence(expect, went(FORWARDED), MASQUERADE))
        assert not should_be_translated(evidence(expect, went(FORWARDED)))

    def test_connections_are_needed_for_what_is_invalid(self) -> None:
        counted = step("continue", rule("ct state invalid counter", line=9))
        assert needs_connections(evidence({"verdict": "drop"}, went(counted, FORWARDED)))
        assert not needs_connections(evidence({"verdict": "drop"}, went(FORWARDED)))


ROUTER = Network.of(LABS["router"])


def sent_on(one: ObservedPacket, target: str = "10.0.2.2", network: Network | None = ROUTER) -> str:
    """What is said of a packet that should arrive at the router's server, where a rule translates to ``target``."""
    dnat = rule(f"udp dport 53 dnat to {target}", line=4, handle=4, chain="ip n pre")
    return "; ".join(advice({"delivered": "server"}, one, rules=(dnat,), network=network))


def test_what_is_not_tracked_is_not_sent_on_either() -> None:
    untracked = step("continue", rule("ct state untracked counter", line=3))
    expected = f"rulesets/edge.nft:2 exempts the packet from connection tracking (notrack), {WITHOUT}"
    taken = step("accept", chain="ip n input", hook="input")
    lost = dropped(NOTRACK, untracked, FORWARDED, taken)
    assert expected in sent_on(lost)
    assert expected in sent_on(lost, "10.0.2.2:5353")
    assert expected not in sent_on(lost, "10.0.2.9")  # that is nobody's
    assert expected not in sent_on(lost, network=None)  # of whom it is, is not known
    assert expected not in sent_on(dropped(NOTRACK, taken))  # perhaps it was tracked before
    assert sent_on(went(NOTRACK, untracked, FORWARDED)) == ""  # it arrived there
