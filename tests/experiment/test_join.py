"""The join, fed by hand: a client (namespace 1), the device (2) and a server (3)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.experiment.join import JoinContext, observe
from harness.lab.capture import Captured
from harness.model.observation import Delivery, Drop, Loss, Observation, Step, Verdict
from harness.ruleset.nftrace import TraceMessage
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind
from harness.tracer.tracer import TraceData

CLIENT, DEVICE, SERVER = 1, 2, 3
HOSTS = {CLIENT: "client", DEVICE: "device", SERVER: "server"}
NAMES = [
    *("ip_rcv", "nft_do_chain", "nft_do_chain_inet", "nft_trace_notify", "packet_rcv", "nf_hook_slow"),
    *("kfree_skb_reason", "ip_local_deliver_finish"),
]
FUNCTIONS = tuple(
    Function(
        name=name,
        kernel_name=name,
        position=0,
        carries="nft_pktinfo" if name.startswith(("nft_do", "nft_trace")) else "sk_buff",
        layer="IPv4",
        priority=0,
    )
    for name in NAMES
)
USERS, OURS = 0xC0, 0xC1
CHAINS = {USERS: "inet filter forward", OURS: "inet harness-trace forward"}
SENDING, CAPTURING = 77, 88
"""Cookies of sockets."""
FORWARD = 2 << 8 | 2
FRAME = b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0"
ID = 0x0A0B0C0D

SCENE = JoinContext(
    device="device",
    tracing_table="harness-trace",
    host=lambda inum: HOSTS.get(inum, ""),
    interface=lambda inum, index: f"eth{index}" if index else "",
    drop_reasons={2: "NOT_SPECIFIED", 7: "NETFILTER_DROP"},
    kernel="6.12",
    engine="kprobe.multi",
    traced=frozenset(NAMES),
)


class Tape:
    """Events in the order in which they are written here, one each microsecond."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(
        self, kind: EventKind, function: str = "ip_rcv", *, a: int = 0, b: int = 0, netns: int = DEVICE, packet: int = 5
    ) -> None:
        self.events.append(
            Event(
                time=1_000_000 + 1000 * len(self.events),
                skb=0xFFFF0000 + packet,
                a=a,
                b=b,
                packet=packet,
                netns=netns,
                ifindex=1,
                function=NAMES.index(function),
                kind=kind,
                cpu=0,
            )
        )

    def born(self, packet: int = 5, *, cookie: int = SENDING, netns: int = CLIENT) -> None:
        self.add(EventKind.BIRTH, a=cookie, netns=netns, packet=packet)

    def chain(self, chain: int, verdict: int) -> None:
        self.add(EventKind.HOP, "nft_do_chain_inet")
        self.add(EventKind.HOP, "nft_do_chain", a=chain, b=FORWARD)
        self.add(EventKind.RETURN, "nft_do_chain", a=verdict)


def joined(
    tape: Tape,
    messages: Sequence[tuple[TraceMessage, Step | None]] = (),
    captured: Sequence[Captured] = (),
    *,
    injected: Sequence[bytes] | None = (FRAME,),
    loss: Loss | None = None,
    trace_lost: int = 0,
) -> Observation:
    (seen,) = all_joined(tape, messages, captured, injected=injected, loss=loss, trace_lost=trace_lost)
    return seen


def all_joined(
    tape: Tape,
    messages: Sequence[tuple[TraceMessage, Step | None]] = (),
    captured: Sequence[Captured] = (),
    *,
    injected: Sequence[bytes] | None = (FRAME,),
    loss: Loss | None = None,
    trace_lost: int = 0,
) -> tuple[Observation, ...]:
    recording = TraceData(
        events=tape.events,
        functions=FUNCTIONS,
        chains=CHAINS,
        symbol=lambda address: {0xABC: "nf_hook_slow"}[address],
        loss=loss or Loss(entered=len(tape.events), received=len(tape.events)),
    )
    return observe(SCENE, recording, messages, captured, injected=injected, sender="client", trace_lost=trace_lost)


def message(handle: int = 4, number: int = ID) -> tuple[TraceMessage, Step]:
    told = TraceMessage(
        host="device",
        id=number,
        family="inet",
        table="filter",
        chain="forward",
        kind="rule",
        verdict=Verdict.ACCEPT,
        handle=handle,
    )
    step = Step(
        time=0,
        host="device",
        hook="forward",
        family="inet",
        table="filter",
        chain="forward",
        kind="rule",
        verdict=Verdict.ACCEPT,
    )
    return told, step


def captured(cookie: int = CAPTURING) -> Captured:
    return Captured(host="server", device="eth0", time=0, frame=FRAME, cookie=cookie)


def notified(tape: Tape, handle: int = 4, number: int = ID, packet: int = 5) -> None:
    # The kernel's number is not in network byte order.
    swapped = int.from_bytes(number.to_bytes(4, "big"), sys.byteorder)
    tape.add(EventKind.RULE, "nft_trace_notify", a=handle, b=swapped, packet=packet)


class TestPackets:
    def test_an_injected_packet_has_its_frame_and_its_sender(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_rcv")
        (packet,) = joined(tape).packets
        assert (packet.sender, packet.frame, packet.injected) == ("client", FRAME, True)
        (hop,) = packet.hops
        assert (hop.function, hop.host, hop.device, hop.layer) == ("ip_rcv", "device", "eth1", "IPv4")
        assert hop.time == 1000, "nanoseconds since birth"

    def test_an_answer_of_the_kernel_is_another_packet(self) -> None:
        tape = Tape()
        tape.born()
        tape.born(9, cookie=0, netns=DEVICE)
        tape.add(EventKind.HOP, "ip_rcv", packet=9)
        ours, answer = joined(tape).packets
        assert ours.hops == ()
        assert (answer.sender, answer.frame, answer.injected) == ("device", b"", False)
        assert [hop.function for hop in answer.hops] == ["ip_rcv"]

    def test_a_copy_goes_on_as_the_same_packet(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_rcv")
        tape.add(EventKind.COPY, a=0xFFFF0005)
        tape.events[-1] = tape.events[-1]._replace(skb=0xDDDD)
        tape.add(EventKind.HOP, "nf_hook_slow")
        tape.events[-1] = tape.events[-1]._replace(skb=0xDDDD)
        (packet,) = joined(tape).packets
        assert [hop.function for hop in packet.hops] == ["ip_rcv", "nf_hook_slow"]

    @pytest.mark.parametrize("births", [0, 2])
    def test_a_packet_not_seen_at_birth_or_twice_breaks_the_measurement(self, births: int) -> None:
        tape = Tape()
        for number in range(births):
            tape.born(number)
        with pytest.raises(BrokenMeasurement, match=f"1 packets were sent from client, {births} seen at birth"):
            joined(tape)

    def test_a_packet_in_nobodys_namespace_is_on_no_host(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_rcv", netns=99)
        assert joined(tape).packets[0].hops[0].host == ""

    def test_each_of_several_packets_has_an_observation_of_its_own(self) -> None:
        tape = Tape()
        tape.born(5)
        tape.born(9, cookie=0, netns=DEVICE)
        tape.born(6)
        tape.born(10, cookie=0, netns=DEVICE)
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER, packet=9)
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER, packet=10)
        tape.add(EventKind.HOP, "ip_rcv", packet=6)
        frames = [FRAME, FRAME[::-1]]
        first, second = all_joined(tape, captured=[captured(), captured()], injected=frames)
        assert [packet.frame for packet in (*first.injected, *second.injected)] == frames
        assert [[packet.number for packet in one.packets] for one in (first, second)] == [[0, 1], [2, 3]]
        assert [hop.function for hop in second.injected[0].hops] == ["ip_rcv"]
        assert len(first.replies) == len(second.replies) == 1


class TestReturns:
    def test_a_result_is_told_at_the_call(self) -> None:
        tape = Tape()
        tape.born()
        tape.chain(USERS, 1)
        hop = joined(tape).packets[0].hops[-1]
        assert hop.function == "nft_do_chain"
        assert hop.detail == {"chain": "inet filter forward", "hook": "forward", "verdict": "accept"}

    def test_calls_in_calls_return_in_their_order(self) -> None:
        tape = Tape()
        tape.born()
        for _ in range(2):
            tape.add(EventKind.HOP, "nf_hook_slow")
        tape.add(EventKind.RETURN, "nf_hook_slow", a=1)
        tape.add(EventKind.RETURN, "nf_hook_slow", a=0xFFFFFFFF)
        outer, inner = joined(tape).packets[0].hops
        assert (outer.detail["result"], inner.detail["result"]) == ("-1", "1")

    def test_a_drop_with_a_reason_of_its_own_is_a_drop(self) -> None:
        tape = Tape()
        tape.born()
        tape.chain(USERS, 13 << 16 | 2)  # NF_DROP_REASON(): stolen, with an error above
        assert joined(tape).packets[0].hops[-1].detail["verdict"] == "drop"

    def test_a_return_of_what_was_not_entered_breaks_the_measurement(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.RETURN, "nft_do_chain", a=1)
        with pytest.raises(BrokenMeasurement, match="nft_do_chain returned, but was not entered"):
            joined(tape)


class TestTracingChain:
    def test_the_harness_own_chain_is_left_out(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_rcv")
        tape.add(EventKind.HOP, "nft_do_chain_inet")
        tape.add(EventKind.HOP, "nft_do_chain", a=OURS, b=FORWARD)
        notified(tape)
        tape.add(EventKind.HOP, "nf_hook_slow")
        tape.add(EventKind.RETURN, "nft_do_chain", a=1)
        tape.chain(USERS, 0)
        (packet,) = joined(tape, [(message()[0], None)]).packets
        assert [hop.function for hop in packet.hops] == ["ip_rcv", "nft_do_chain_inet", "nft_do_chain"]
        assert packet.hops[-1].detail["chain"] == "inet filter forward"
        assert packet.steps == ()


class TestSteps:
    def test_a_message_belongs_to_the_packet_whose_call_made_it(self) -> None:
        tape = Tape()
        tape.born()
        tape.born(9, cookie=0, netns=DEVICE)
        notified(tape, packet=9, number=1)
        notified(tape, packet=5, number=2)
        # Of two CPUs the second one's message may arrive first.
        ours, answer = joined(tape, [message(number=2), message(number=1)]).packets
        assert [step.time for step in ours.steps] == [3000]
        assert [step.time for step in answer.steps] == [1000]

    def test_before_there_were_numbers_order_decides(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.RULE, "nft_trace_notify", a=4)
        tape.add(EventKind.RULE, "nft_trace_notify", a=6)
        assert len(joined(tape, [message(4), message(6)]).packets[0].steps) == 2

    def test_a_call_without_its_message(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape)
        with pytest.raises(BrokenMeasurement, match="called 1 times, but 0 messages arrived"):
            joined(tape)

    def test_a_message_without_its_call(self) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(BrokenMeasurement, match="called 0 times, but 1 messages arrived"):
            joined(tape, [message()])

    def test_a_message_about_another_rule(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape, handle=4)
        with pytest.raises(BrokenMeasurement, match=r"tells of rule 6 in inet filter forward .* for rule 4"):
            joined(tape, [message(handle=6)])

    def test_a_message_about_another_packet(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape, number=1)
        with pytest.raises(BrokenMeasurement, match="called for packet 00000001, of which no message arrived"):
            joined(tape, [message(number=2)])


class TestDeliveries:
    def test_a_frame_belongs_to_the_packet_that_was_handed_to_its_socket(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        seen = joined(tape, captured=[captured()])
        assert seen.packets[0].deliveries == (Delivery(time=1000, host="server", device="eth0", frame=FRAME),)
        assert seen.replies == ()

    def test_a_frame_of_the_kernels_is_a_reply(self) -> None:
        tape = Tape()
        tape.born()
        tape.born(9, cookie=0, netns=DEVICE)
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER, packet=9)
        seen = joined(tape, captured=[captured()])
        assert [reply.frame for reply in seen.replies] == [FRAME]
        assert [[one.frame for one in packet.deliveries] for packet in seen.packets] == [[], [FRAME]]

    def test_somebody_elses_capture_does_not_disturb(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING + 1, netns=SERVER)
        assert joined(tape).packets[0].deliveries == ()

    def test_a_frame_that_no_function_saw(self) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(BrokenMeasurement, match="server was handed 0 frames at eth0, but captured 1"):
            joined(tape, captured=[captured()])

    def test_the_device_takes_a_packet_in(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_local_deliver_finish")
        assert joined(tape).packets[0].deliveries == (Delivery(time=1000, host="device", device="eth1", frame=b""),)

    def test_another_host_that_takes_it_in_is_told_by_its_capture_alone(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_local_deliver_finish", netns=SERVER)
        assert joined(tape).packets[0].deliveries == ()


class TestDrops:
    def test_the_kernels_word_stands_at_the_last_hop(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "kfree_skb_reason")
        tape.add(EventKind.DROP, a=0xABC, b=7)
        (packet,) = joined(tape).packets
        assert packet.drop == Drop(host="device", function="nf_hook_slow", reason="NETFILTER_DROP")
        assert packet.hops[-1].detail == {"reason": "NETFILTER_DROP"}

    def test_a_reason_without_a_name_is_a_number(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.DROP, a=0xABC, b=999)
        drop = joined(tape).packets[0].drop
        assert drop
        assert drop.reason == "999"

    def test_that_a_silent_host_drops_what_reached_it_is_not_told(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.DROP, a=0xABC, b=2, netns=SERVER)
        assert joined(tape).packets[0].drop is None

    def test_a_drop_on_another_host_with_a_ruleset_is_told_unless_the_device_has_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules[__name__], "SCENE", SCENE._replace(ruled=frozenset({"server"})))
        tape = Tape()
        tape.born()
        tape.add(EventKind.DROP, a=0xABC, b=7, netns=SERVER)
        assert joined(tape).packets[0].drop == Drop(host="server", function="nf_hook_slow", reason="NETFILTER_DROP")
        tape.add(EventKind.DROP, a=0xABC, b=2)
        assert joined(tape).packets[0].drop == Drop(host="device", function="nf_hook_slow", reason="NOT_SPECIFIED")


class TestLoss:
    @pytest.mark.parametrize(
        "loss",
        [
            Loss(entered=3, received=2),
            Loss(entered=2, received=1, refused=1),
            Loss(entered=1, received=1, missed=1),
            Loss(entered=1, received=1, untracked=1),
        ],
    )
    def test_any_loss_breaks_the_measurement(self, loss: Loss) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(BrokenMeasurement, match=r"lost \d of \d"):
            joined(tape, loss=loss)

    def test_an_overrun_of_the_trace_does_too(self) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(BrokenMeasurement, match="lost"):
            joined(tape, trace_lost=1)


class TestFlow:
    """What programs send: nobody knows beforehand which packets, or how many."""

    def test_all_packets_are_one_observation(self) -> None:
        tape = Tape()
        tape.born(5)
        tape.born(6, cookie=0, netns=SERVER)
        tape.born(7)
        seen = joined(tape, injected=None)
        assert [(packet.sender, packet.injected) for packet in seen.packets] == [
            ("client", True),
            ("server", False),
            ("client", True),
        ]

    def test_what_the_caller_sent_is_captured_where_it_left(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=CLIENT)
        left = Captured(host="client", device="eth0", time=0, frame=FRAME, cookie=CAPTURING, outgoing=True)
        (packet,) = joined(tape, captured=[left], injected=None).packets
        assert packet.frame == FRAME
        assert packet.deliveries == ()

    @pytest.mark.parametrize(("first", "kind"), [(0x45, b"\x08\x00"), (0x60, b"\x86\xdd")])
    def test_else_its_headers_are_those_of_the_trace(self, first: int, kind: bytes) -> None:
        tape = Tape()
        tape.born()
        notified(tape)
        told, step = message()
        told = msgspec.structs.replace(told, network=bytes([first, 1]), transport=b"tt")
        (packet,) = joined(tape, [(told, step)], injected=None).packets
        assert packet.frame == bytes(12) + kind + bytes([first, 1]) + b"tt"

    def test_a_call_of_which_no_packet_was_seen(self) -> None:
        tape = Tape()
        tape.born(cookie=0)
        with pytest.raises(BrokenMeasurement, match="a program on client called, but no packet of it was seen"):
            joined(tape, injected=None)
