"""Flows of real sockets and what a packet leaves behind: what fits, and what is reported when it does not."""

from __future__ import annotations

import struct

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.judge.expectations import judge
from harness.judge.flow import describe_connection, fits, refuse_contradiction
from harness.model.observation import Connection, Delivery, Direction, Drop, Flow, Observation, ObservedPacket, Verdict
from harness.reading.decision import decisive, ended, outcome
from harness.scenario.models.expect import Expect, Tracked
from tests.builders import PASSED, changed, dropped, frame, hop, observation, place, rule, step

CONNECTED = Flow(result="connected", host="client", by="server", src="10.0.2.1", sport=40000, dst="10.0.2.2", dport=443)
TIMED_OUT = Flow(result="timeout", host="client")
ENTRY = Connection(
    protocol=6,
    original=Direction(src="203.0.113.5", dst="10.0.2.2", sport=40000, dport=443),
    reply=Direction(src="10.0.2.2", dst="10.0.2.1", sport=443, dport=40000),
    state="ESTABLISHED",
    status=("SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT"),
    mark=16,
)
OTHER = msgspec.structs.replace(ENTRY, original=Direction(src="10.9.9.9", dst="10.0.2.2", sport=1, dport=443))


def said(yaml: dict[str, object], packet: ObservedPacket = PASSED, **more: object) -> list[str]:
    seen = msgspec.structs.replace(observation(packet), **more)
    return [
        f"{one.key}: {one.expected} / {one.seen}" + (f" / {one.note}" if one.note else "")
        for one in judge(msgspec.convert(yaml, Expect), seen, packet, at=place)
    ]


class TestFailedCall:
    """The kernel of the calling host refused the call, so that there was no packet."""

    FLOW = Flow(result="unsent", host="client", error="ENETUNREACH")
    UNSENT = changed(
        frame=b"", hops=(), steps=(), deliveries=(), drop=Drop(host="client", function="connect", reason="ENETUNREACH")
    )

    @pytest.mark.parametrize(
        "expected", ["unsent", {"error": "ENETUNREACH"}, {"result": "unsent", "error": "ENETUNREACH"}]
    )
    def test_it_can_be_expected(self, expected: object) -> None:
        assert said({"flow": expected, "verdict": "undecided"}, self.UNSENT, flow=self.FLOW) == []

    def test_the_errno_is_said(self) -> None:
        for other in ("connected", "timeout", "unreachable"):
            assert said({"flow": other}, self.UNSENT, flow=self.FLOW) == [
                f"expect.flow: {other} / unsent / the call failed at once: ENETUNREACH (Network is unreachable)"
            ]
        assert said({"flow": {"error": "EPERM"}}, self.UNSENT, flow=self.FLOW) == [
            "expect.flow.error: EPERM / ENETUNREACH"
        ]
        assert said({"flow": {"error": "EPERM"}}, flow=CONNECTED) == ["expect.flow.error: EPERM / none"]
        assert ended(self.UNSENT, outcome(self.UNSENT, "device"), "device") == (
            "not sent: the call of the program on client failed at once with ENETUNREACH (Network is unreachable)"
        )

    def test_no_icmp_error_need_have_come(self) -> None:
        refuse_contradiction(msgspec.structs.replace(observation(self.UNSENT), flow=self.FLOW))


class TestFlow:
    @pytest.mark.parametrize(
        "expected",
        [
            "connected",
            {"result": "connected"},
            {"by": "server"},
            {"result": "connected", "by": "server", "src": "10.0.2.1", "sport": 40000, "dst": "10.0.2.2", "dport": 443},
        ],
    )
    def test_as_expected(self, expected: object) -> None:
        assert said({"flow": expected}, flow=CONNECTED) == []

    def test_one_of_several_is_enough(self) -> None:
        several = {"by": "backup | server", "dst": "10.0.2.3 | 10.0.2.2", "dport": "80 | 443"}
        assert said({"flow": several}, flow=CONNECTED) == []
        assert said({"flow": {"dport": "80 | 81"}}, flow=CONNECTED) == ["expect.flow.dport: 80 | 81 / 443"]

    def test_addresses_may_be_written_otherwise(self) -> None:
        flow = msgspec.structs.replace(CONNECTED, src="2001:db8::1")
        assert said({"flow": {"src": "2001:DB8:0:0::1"}}, flow=flow) == []

    @pytest.mark.parametrize(
        ("expected", "flow", "reported"),
        [
            ("refused", TIMED_OUT, "expect.flow: refused / timeout / nothing came"),
            (
                {"result": "connected", "by": "server"},
                TIMED_OUT,
                "expect.flow.result: connected / timeout / nothing came",
            ),
            (
                {"by": "server"},
                msgspec.structs.replace(TIMED_OUT, result="refused"),
                "expect.flow: a program of the lab is called / refused / a TCP reset came",
            ),
            ({"src": "203.0.113.5"}, CONNECTED, "expect.flow.src: 203.0.113.5 / 10.0.2.1"),
            ({"by": "device", "dport": 443}, CONNECTED, "expect.flow.by: device / server"),
            (
                "connected",
                msgspec.structs.replace(TIMED_OUT, result="half-open"),
                "expect.flow: connected / half-open / only the caller has the connection",
            ),
        ],
    )
    def test_otherwise(self, expected: object, flow: Flow, reported: str) -> None:
        assert said({"flow": expected}, flow=flow) == [reported]

    def test_the_reply_is_the_callers_even_if_another_packet_decided(self) -> None:
        answer = dropped(step("drop"), number=1, sender="server", injected=False)
        assert said({"reply": "none", "verdict": "drop"}, answer, flow=TIMED_OUT) == []
        replies = (Delivery(time=0, host="client", device="eth0", frame=frame()),)
        assert said({"reply": {"tcp": {}}}, answer, flow=TIMED_OUT, replies=replies) == []

    @pytest.mark.parametrize(
        ("answer", "host", "meaning"),
        [
            (3, "client", "only an ICMP error came, which programs do not see here (RFC 1122 section 4.2.3.9)"),
            (3, "server", "nothing came"),
            (0, "client", "nothing came"),
        ],
    )
    def test_what_a_timeout_means(self, answer: int, host: str, meaning: str) -> None:
        replies = (Delivery(time=0, host=host, device="eth0", frame=icmp(answer)),)
        reported = f"expect.flow: connected / timeout / {meaning}"
        assert said({"flow": "connected"}, flow=TIMED_OUT, replies=replies) == [reported]

    def answered(self, *sources: str, injected: bool = False, **changes: object) -> list[str]:
        """What is said of a timeout, though packets from ``sources`` came to the caller's host."""
        arrivals = [
            Delivery(time=0, host="client", device="eth0", frame=answer(one, "203.0.113.5", **changes))
            for one in sources
        ]
        answers = [changed(number=n, injected=injected, deliveries=(one,)) for n, one in enumerate(arrivals, 1)]
        seen = (PASSED, *answers)
        return said({"flow": "connected"}, flow=TIMED_OUT, packets=seen)

    def test_answers_that_did_not_reach_the_program(self) -> None:
        came = "expect.flow: connected / timeout / no answer reached the program; what came to client: "
        (reported,) = self.answered("10.0.2.2")
        assert reported.startswith(came + "10.0.2.2:443 → 203.0.113.5:40000 tcp")
        assert "more" not in reported
        assert reported.endswith("bytes)")
        (reported,) = self.answered("10.0.2.2", "10.0.2.2")
        assert reported.endswith(", and 1 more")
        (reported,) = self.answered("10.0.2.2", "10.0.2.2", "10.0.2.2")
        assert reported.endswith(", and 2 more")

    def test_an_answer_from_another_address_than_was_called(self) -> None:
        reported = "expect.flow: connected / timeout / an answer came, but from 10.0.2.9, and 10.0.2.2 was called"
        assert self.answered("10.0.2.9") == [reported]

    def test_what_the_caller_sent_is_no_answer(self) -> None:
        nothing = ["expect.flow: connected / timeout / nothing came"]
        assert self.answered("10.0.2.2", injected=True) == nothing
        assert self.answered("10.0.2.2", dport=40001) == nothing

    def test_a_neighbour_that_was_not_resolved_explains_a_timeout(self) -> None:
        reported = "expect.flow: connected / timeout / a neighbour could not be resolved"
        assert said({"flow": "connected"}, flow=TIMED_OUT, unresolved=("who has 10.0.2.2",)) == [reported]
        refused = msgspec.structs.replace(TIMED_OUT, result="refused")
        reported = "expect.flow: connected / refused / a TCP reset came"
        assert said({"flow": "connected"}, flow=refused, unresolved=("who has 10.0.2.2",)) == [reported]


def answer(src: str, dst: str, *, sport: int = 443, dport: int = 40000) -> bytes:
    """The frame of a TCP segment back to a caller."""
    made = frame(src, dst)
    return made[:34] + struct.pack(">HH", sport, dport) + made[38:]


def icmp(kind: int, version: int = 4) -> bytes:
    """The frame of an ICMP or ICMPv6 message."""
    header = bytes([kind, 0]) + bytes(6)
    if version == 6:
        ip = frame("2001:db8::1", "2001:db8::2")[:54]
        return ip[:20] + b"\x3a" + ip[21:] + header
    ip = frame()[:34]
    return ip[:23] + b"\x01" + ip[24:] + header


class TestContradiction:
    """A flow ended by what was not among its packets: one of the two was not observed right."""

    RESET = frame()[:47] + b"\x14" + frame()[48:]

    def refuse(self, result: str, *frames: bytes, whole: bool = True) -> None:
        packets = tuple(changed(frame=one, deliveries=()) for one in frames)
        flow = msgspec.structs.replace(TIMED_OUT, result=result)
        refuse_contradiction(msgspec.structs.replace(observation(PASSED), packets=packets, flow=flow, whole=whole))

    def test_a_reset_came(self) -> None:
        self.refuse("refused", frame(), self.RESET)

    def test_no_reset_came(self) -> None:
        with pytest.raises(BrokenMeasurement, match="client saw the flow refused, but no TCP reset was seen"):
            self.refuse("refused", frame(), icmp(3))

    @pytest.mark.parametrize(("kind", "version"), [*((one, 4) for one in (3, 4, 11, 12)), (1, 6), (127, 6)])
    def test_an_icmp_error_came(self, kind: int, version: int) -> None:
        self.refuse("unreachable", frame(), icmp(kind, version))

    @pytest.mark.parametrize(("kind", "version"), [*((one, 4) for one in (0, 5, 8, 13)), (128, 6), (135, 6)])
    def test_no_icmp_error_came(self, kind: int, version: int) -> None:
        with pytest.raises(BrokenMeasurement, match="client saw the flow unreachable, but no ICMP error was seen"):
            self.refuse("unreachable", self.RESET, icmp(kind, version))

    def test_what_another_end_says_needs_no_packet(self) -> None:
        self.refuse("timeout", frame())
        self.refuse("connected", frame())

    def test_nothing_is_said_where_not_everything_is_known(self) -> None:
        self.refuse("refused", frame(), b"")
        self.refuse("refused", frame(), whole=False)

    def test_a_packet_is_looked_at_as_it_arrived_too(self) -> None:
        arrived = Delivery(time=1, host="client", device="eth0", frame=self.RESET)
        packets = (changed(deliveries=(arrived,)),)
        flow = msgspec.structs.replace(TIMED_OUT, result="refused")
        refuse_contradiction(msgspec.structs.replace(observation(PASSED), packets=packets, flow=flow))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "tcp ESTABLISHED 203.0.113.5:40000 → 10.0.2.2:443 reply 10.0.2.2:443 → 10.0.2.1:40000 mark 0x10"),
        ({"mark": 0, "zone": 3, "helper": "ftp"}, "tcp ESTABLISHED {} zone 3 helper ftp"),
        ({"mark": 0, "protocol": 1}, "icmp ESTABLISHED {}"),
        ({"mark": 0, "protocol": 17, "state": "", "status": ("ASSURED",)}, "udp {} ASSURED"),
        ({"mark": 0, "protocol": 58}, "icmpv6 ESTABLISHED {}"),
        ({"mark": 0, "protocol": 132}, "sctp ESTABLISHED {}"),
        ({"mark": 0, "protocol": 250}, "250 ESTABLISHED {}"),
        (
            {"mark": 0, "original": Direction(src="2001:db8::1", dst="2001:db8::2", sport=1, dport=53)},
            "tcp ESTABLISHED [2001:db8::1]:1 → [2001:db8::2]:53 reply 10.0.2.2:443 → 10.0.2.1:40000",
        ),
        (
            {"mark": 0, "original": Direction(src="2001:db8::1", dst="2001:db8::2")},
            "tcp ESTABLISHED 2001:db8::1 → 2001:db8::2 reply 10.0.2.2:443 → 10.0.2.1:40000",
        ),
    ],
)
def test_an_entry_of_connection_tracking_in_words(changes: dict[str, object], words: str) -> None:
    ways = "203.0.113.5:40000 → 10.0.2.2:443 reply 10.0.2.2:443 → 10.0.2.1:40000"
    one = msgspec.structs.replace(ENTRY, **{"status": (), **changes})
    assert describe_connection(one) == words.format(ways)


class TestDecisive:
    def several(self, *packets: ObservedPacket, flow: Flow | None = CONNECTED) -> Observation:
        return msgspec.structs.replace(observation(packets[0]), packets=packets, flow=flow)

    def test_the_first_that_was_refused(self) -> None:
        answer = dropped(step("drop"), number=1, sender="server", injected=False)
        again = dropped(step("drop"), number=2, injected=True)
        assert decisive(self.several(PASSED, answer, again)) is answer

    def test_else_the_first_that_was_sent(self) -> None:
        made = changed(number=0, injected=False)
        first = changed(number=1)
        assert decisive(self.several(made, first, changed(number=2))) is first

    def test_of_frames_the_injected_one(self) -> None:
        answer = dropped(step("drop"), number=1, injected=False)
        assert decisive(self.several(PASSED, answer, flow=None)) is PASSED

    def test_what_another_host_refused_does_not_decide(self) -> None:
        elsewhere = msgspec.structs.replace(step("drop"), host="edge")
        other = changed(number=1, steps=(elsewhere,), injected=False)
        assert decisive(self.several(PASSED, other)) is PASSED


class TestConntrack:
    @pytest.mark.parametrize(
        "expected",
        [
            {"state": "ESTABLISHED"},
            {"status": ["ASSURED", "!DST_NAT"], "mark": 16, "zone": 0},
            {"original": {"src": "203.0.113.5", "dport": 443}, "reply": {"dst": "10.0.2.1"}},
        ],
    )
    def test_as_expected(self, expected: object) -> None:
        assert said({"conntrack": expected}, connections=(OTHER, ENTRY)) == []

    def test_an_answer_goes_through_the_same_entry(self) -> None:
        back = changed(frame=frame("10.0.2.2", "10.0.2.1"))
        entry = msgspec.structs.replace(ENTRY, reply=Direction(src="10.0.2.2", dst="10.0.2.1", sport=40000, dport=443))
        assert said({"conntrack": {"state": "ESTABLISHED"}}, back, connections=(entry,)) == []

    def test_a_protocol_without_ports(self) -> None:
        ping = changed(frame=frame()[:23] + b"\x01" + frame()[24:34] + b"\x08\0" + bytes(6))
        way = Direction(src="203.0.113.5", dst="10.0.2.2")
        entry = Connection(protocol=1, original=way, reply=Direction(src=way.dst, dst=way.src))
        assert said({"conntrack": {"status": ["!ASSURED"]}}, ping, connections=(ENTRY, entry)) == []

    def test_none(self) -> None:
        assert said({"conntrack": "none"}, connections=(OTHER,)) == []
        (reported,) = said({"conntrack": "none"}, connections=(ENTRY,))
        assert reported.startswith(
            "expect.conntrack: none / tcp ESTABLISHED 203.0.113.5:40000 → 10.0.2.2:443 reply 10.0"
        )

    def test_addresses_and_ports_must_be_the_packets(self) -> None:
        ports = msgspec.structs.replace(
            ENTRY,
            original=msgspec.structs.replace(ENTRY.original, sport=40001),
            reply=msgspec.structs.replace(ENTRY.reply, dport=40001),
        )
        way = Direction(src="10.9.9.9", dst="10.0.2.2", sport=40000, dport=443)
        addresses = msgspec.structs.replace(ENTRY, original=way, reply=way)
        assert said({"conntrack": "none"}, connections=(ports, addresses)) == []

    def test_entries_of_a_packet_in_several_zones(self) -> None:
        zoned = tuple(msgspec.structs.replace(ENTRY, zone=zone, status=(), mark=0) for zone in (1, 2))
        ways = "tcp ESTABLISHED 203.0.113.5:40000 → 10.0.2.2:443 reply 10.0.2.2:443 → 10.0.2.1:40000"
        both = f"{ways} zone 1; {ways} zone 2"
        assert said({"conntrack": "none"}, connections=zoned) == [f"expect.conntrack: none / {both}"]
        elsewhere = changed(frame=frame("192.0.2.1"), deliveries=())
        assert said({"conntrack": {"mark": 1}}, elsewhere, connections=zoned) == [
            f"expect.conntrack: an entry / none / there are others: {both}"
        ]

    def test_of_several_entries_the_one_that_differs_least(self) -> None:
        first = msgspec.structs.replace(ENTRY, mark=0, zone=1)
        second = msgspec.structs.replace(ENTRY, state="SYN_SENT", zone=2)
        wanted = {"state": "ESTABLISHED", "mark": 16, "zone": 2}
        for several in ((first, second), (second, first)):
            assert said({"conntrack": wanted}, connections=several) == [
                "expect.conntrack.state: ESTABLISHED / SYN_SENT"
            ]

    def test_no_entry(self) -> None:
        assert said({"conntrack": {"mark": 1}}) == ["expect.conntrack: an entry / none / there is none at all"]
        (reported,) = said({"conntrack": {"mark": 1}}, connections=(OTHER,))
        assert "/ none / there are others: tcp ESTABLISHED 10.9.9.9:1 → 10.0.2.2:443" in reported

    def test_every_difference(self) -> None:
        expected = {
            "state": "SYN_SENT",
            "mark": 1,
            "helper": "ftp",
            "status": ["ASSURED", "!SRC_NAT", "DST_NAT"],
            "original": {"dport": 80},
            "reply": {"dst": "203.0.113.5"},
        }
        reported = said({"conntrack": expected}, connections=(ENTRY,))
        assert [one.rpartition(" / ")[0] for one in reported] == [
            "expect.conntrack.state: SYN_SENT / ESTABLISHED",
            "expect.conntrack.mark: 1 / 16",
            "expect.conntrack.helper: ftp / none",
            "expect.conntrack.status[1]: !SRC_NAT / SEEN_REPLY ASSURED CONFIRMED SRC_NAT",
            "expect.conntrack.status[2]: DST_NAT / SEEN_REPLY ASSURED CONFIRMED SRC_NAT",
            "expect.conntrack.original.dport: 80 / 443",
            "expect.conntrack.reply.dst: 203.0.113.5 / 10.0.2.1",
        ]


class TestMark:
    def marked(self, *marks: int) -> ObservedPacket:
        return changed(hops=(), steps=tuple(msgspec.structs.replace(step("accept"), mark=mark) for mark in marks))

    def test_the_last_counts(self) -> None:
        assert said({"mark": 0x20}, self.marked(0x10, 0x20)) == []
        assert said({"mark": 0x20}, self.marked(0x20, 0x10, 0)) == ["expect.mark: 0x20 / 0x0 / it had that mark before"]
        assert said({"mark": 0}, self.marked(0)) == []

    def test_otherwise(self) -> None:
        assert said({"mark": 0x10}, self.marked(0x10, 0)) == ["expect.mark: 0x10 / 0x0 / it had that mark before"]
        assert said({"mark": 1}, self.marked()) == ["expect.mark: 0x1 / no chain saw the packet"]


class TestLog:
    LOGGING = rule('tcp dport 22 log prefix "refused: " group 5 drop')
    CALL = hop("nf_log_packet", "Netfilter")

    def seen(self, text: str, packet: ObservedPacket) -> list[str]:
        return said({"log": text}, packet, traced=observation(packet).traced | {"nf_log_packet"})

    def test_met_and_called(self) -> None:
        packet = changed(steps=(step("drop", self.LOGGING),), hops=(self.CALL,), deliveries=())
        assert self.seen("refused: ", packet) == []

    def test_met_where_the_call_cannot_be_traced(self) -> None:
        assert said({"log": "refused: "}, dropped(step("drop", self.LOGGING))) == []

    def test_another_prefix(self) -> None:
        packet = changed(steps=(step("drop", self.LOGGING),), hops=(self.CALL,), deliveries=())
        assert self.seen("refused", packet) == ["expect.log: refused / refused: "]

    def test_met_but_not_called(self) -> None:
        packet = dropped(step("drop", self.LOGGING))
        assert self.seen("refused: ", packet) == ["expect.log: refused:  / the rule was met, but not nf_log_packet"]

    def test_logged_by_a_rule_that_said_nothing(self) -> None:
        packet = changed(steps=(step("drop"),), hops=(self.CALL,), deliveries=())
        note = "something was logged, by a rule whose later matches did not hold"
        assert self.seen("refused: ", packet) == [f"expect.log: refused:  / no rule with a log prefix was met / {note}"]

    def test_several_prefixes(self) -> None:
        first = rule('log prefix "first: "')
        packet = dropped(step("continue", first), step("drop", self.LOGGING))
        assert said({"log": "second"}, packet) == ["expect.log: second / first: , refused: "]

    def test_where_calls_are_not_traced_nothing_is_said_of_them(self) -> None:
        (found,) = judge(Expect(log="x"), seen := observation(dropped(step("drop"))), seen.packets[0], at=place)
        assert (found.seen, found.note) == ("no rule with a log prefix was met", "")

    def test_a_prefix_in_a_comment_is_none(self) -> None:
        talk = rule('drop comment "log prefix x"')
        assert self.seen("x", dropped(step("drop", talk))) == ["expect.log: x / no rule with a log prefix was met"]


class TestRoute:
    @pytest.mark.parametrize(
        ("hops", "reported"),
        [
            ((hop("ip_rcv"), hop("ip_output"), hop("nf_hook_slow", device="lan0")), []),
            ((hop("ip_rcv"), hop("__dev_queue_xmit", device="lan0"), hop("__dev_queue_xmit", device="eth9")), []),
            ((hop("ip_output"), hop("__dev_queue_xmit", device="wan0")), ["expect.route: lan0 / wan0"]),
            ((hop("ip_rcv"), hop("ip_output", host="edge")), ["expect.route: lan0 / not sent on"]),
        ],
    )
    def test_where_it_leaves(self, hops: tuple[object, ...], reported: list[str]) -> None:
        assert said({"route": "lan0"}, changed(hops=hops, steps=())) == reported


def test_the_verdict_of_a_flow_is_that_of_the_packet_that_decided() -> None:
    answer = dropped(step("drop", rule("iif lan0 drop")), number=1, sender="server", injected=False)
    seen = msgspec.structs.replace(observation(PASSED), packets=(PASSED, answer), flow=TIMED_OUT)
    expect = msgspec.convert({"verdict": "drop", "rule": "iif lan0 drop", "flow": "timeout"}, Expect)
    assert judge(expect, seen, decisive(seen), at=place) == ()
    assert decisive(seen).steps[-1].verdict is Verdict.DROP


class TestConnections:
    """Numbers of connections, and what other hosts track."""

    def test_how_many_the_device_tracks(self) -> None:
        assert said({"connections": 2}, connections=(ENTRY, OTHER)) == []
        (reported,) = said({"connections": 1}, connections=(ENTRY, OTHER))
        assert reported == f"expect.connections: 1 / 2 / {describe_connection(ENTRY)}; {describe_connection(OTHER)}"
        assert said({"connections": {"device": 0}}) == []

    def test_how_many_another_host_tracks(self) -> None:
        there = {"edge": (ENTRY,)}
        assert said({"connections": {"edge": 1, "device": 0}}, elsewhere=there) == []
        (reported,) = said({"connections": {"edge": 0}}, elsewhere=there)
        assert reported.startswith("expect.connections.edge: 0 / 1")

    def test_an_entry_of_another_host(self) -> None:
        there = {"edge": (ENTRY,)}
        assert said({"conntrack": {"host": "edge", "mark": 16}}, connections=(OTHER,), elsewhere=there) == []
        (reported,) = said({"conntrack": {"host": "edge", "mark": 1}}, connections=(OTHER,), elsewhere=there)
        assert reported.startswith("expect.conntrack.mark: 1 / 16")

    def test_an_entry_of_a_packet_that_was_translated_before_it_came(self) -> None:
        public = frame(dst="203.0.113.1")
        translated = changed(PASSED, frame=public)
        assert said({"conntrack": {"mark": 16}}, translated, connections=(ENTRY,)) == []

    def test_no_helper_and_a_remaining_time(self) -> None:
        entry = msgspec.structs.replace(ENTRY, timeout=20)
        assert said({"conntrack": {"helper": "none", "timeout": [1, 30]}}, connections=(entry,)) == []
        assert said({"conntrack": {"timeout": [20, 20]}}, connections=(entry,)) == []
        helped = msgspec.structs.replace(entry, helper="ftp")
        reported = said({"conntrack": {"helper": "none", "timeout": [30, 60]}}, connections=(helped,))
        assert [one.partition(" / tcp")[0] for one in reported] == [
            "expect.conntrack.helper: none / ftp",
            "expect.conntrack.timeout: 30 to 60 s / 20 s",
        ]


@pytest.mark.parametrize(
    ("wanted", "is_it"),
    [
        ({"state": "ESTABLISHED"}, True),
        ({"state": "ESTABLISHED", "mark": 16, "status": ["ASSURED"]}, True),
        ({"state": "ESTABLISHED", "mark": 17}, False),
        ({"status": ["!ASSURED"]}, False),
    ],
)
def test_whether_an_entry_is_as_it_is_waited_for(wanted: dict[str, object], is_it: bool) -> None:
    assert fits(msgspec.convert(wanted, Tracked), ENTRY) is is_it


def test_a_host_of_which_no_connections_were_listed_has_none() -> None:
    assert said({"connections": {"server": 1}}, connections=(ENTRY,)) == ["expect.connections.server: 1 / 0"]
    assert said({"connections": {"server": 0}}, connections=(ENTRY,)) == []


def test_what_was_sent_as_packets_has_no_flow_to_compare() -> None:
    assert said({"flow": "connected"}) == []
    assert said({"verdict": "accept"}, flow=CONNECTED) == []
