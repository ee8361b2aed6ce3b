"""The join, fed by hand: a client (namespace 1), the device (2) and a server (3)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from harness.errors import BrokenMeasurement, Unsupported
from harness.experiment.join import JoinContext, observe
from harness.lab.capture import Captured
from harness.model.observation import Delivery, Drop, Hop, Loss, Observation, Step, Verdict
from harness.ruleset.nftrace import TraceMessage
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind
from harness.tracer.session import TraceData

CLIENT, DEVICE, SERVER = 1, 2, 3
HOSTS = {CLIENT: "client", DEVICE: "device", SERVER: "server"}
NAMES = [
    *("ip_rcv", "nft_do_chain", "nft_do_chain_inet", "nft_trace_notify", "packet_rcv", "nf_hook_slow"),
    *("kfree_skb_reason", "ip_local_deliver_finish", "__nft_trace_packet"),
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
    interface=lambda inum, index: f"eth{index}" if inum in HOSTS else "",
    drop_reasons={2: "NOT_SPECIFIED", 7: "NETFILTER_DROP"},
    kernel="6.12",
    engine="kprobe.multi",
    traced=frozenset(NAMES),
    untraceable={"ip_gone": "the kernel has no such function"},
    epoch=1_000_000_000,
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
                cpu=netns,
            )
        )

    def born(self, packet: int = 5, *, cookie: int = SENDING, netns: int = CLIENT) -> None:
        self.add(EventKind.BIRTH, a=cookie, netns=netns, packet=packet)

    def chain(self, chain: int, verdict: int, *, hook: int = FORWARD) -> None:
        self.add(EventKind.HOP, "nft_do_chain_inet")
        self.add(EventKind.HOP, "nft_do_chain", a=chain, b=hook)
        self.add(EventKind.RETURN, "nft_do_chain", a=verdict)


def joined(
    tape: Tape,
    messages: Sequence[tuple[TraceMessage, Step | None]] = (),
    captured: Sequence[Captured] = (),
    **more: Any,
) -> Observation:
    """The one observation of :func:`all_joined`."""
    (seen,) = all_joined(tape, messages, captured, **more)
    return seen


def all_joined(
    tape: Tape,
    messages: Sequence[tuple[TraceMessage, Step | None]] = (),
    captured: Sequence[Captured] = (),
    *,
    injected: Sequence[bytes] | None = (FRAME,),
    loss: Loss | None = None,
    trace_lost: int = 0,
    whole: bool = True,
    failed: str = "",
    sockets: Mapping[int, tuple[str, str]] = MappingProxyType({}),
    later: Sequence[Event] = (),
) -> tuple[Observation, ...]:
    recording = TraceData(
        events=tape.events,
        functions=FUNCTIONS,
        chains=CHAINS,
        symbol=lambda address: {0xABC: "nf_hook_slow"}[address],
        loss=loss or Loss(entered=len(tape.events), received=len(tape.events)),
        later=later,
        whole=whole,
    )
    more = ({"failed": failed} if failed else {}) | ({"trace_lost": trace_lost} if trace_lost else {})
    scene = SCENE._replace(sockets=sockets)
    return observe(scene, recording, messages, captured, injected=injected, sender="client", **more)


def message(handle: int = 4, number: int = ID, *, host: str = "device") -> tuple[TraceMessage, Step]:
    reported = TraceMessage(
        host=host,
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
        host=host,
        hook="forward",
        family="inet",
        table="filter",
        chain="forward",
        kind="rule",
        verdict=Verdict.ACCEPT,
    )
    return reported, step


def captured(cookie: int = CAPTURING) -> Captured:
    return Captured(host="server", device="eth0", time=0, frame=FRAME, cookie=cookie)


def notified(tape: Tape, handle: int = 4, number: int = ID, packet: int = 5, netns: int = DEVICE) -> None:
    # The kernel's number is not in network byte order.
    swapped = int.from_bytes(number.to_bytes(4, "big"), sys.byteorder)
    tape.add(EventKind.RULE, "nft_trace_notify", a=handle, b=swapped, packet=packet, netns=netns)


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
        assert hop.cpu == DEVICE
        assert packet.born == 1_001_000_000, "nanoseconds of CLOCK_REALTIME"

    def test_an_observation_says_what_saw_it(self) -> None:
        tape = Tape()
        tape.born()
        assert joined(tape, trace_lost=0) == Observation(
            packets=joined(tape).packets,
            loss=Loss(entered=1, received=1),
            kernel="6.12",
            engine="kprobe.multi",
            device="device",
            traced=frozenset(NAMES),
            untraceable={"ip_gone": "the kernel has no such function"},
            whole=True,
        )

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
        with pytest.raises(BrokenMeasurement, match=f"1 packet sent from client, {births} seen at birth"):
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

    def test_a_fragment_that_becomes_the_whole_packet_returns_from_its_own_call(self) -> None:
        tape = Tape()
        tape.born(5)
        tape.born(6)
        tape.add(EventKind.HOP, "nf_hook_slow", packet=6)
        tape.add(EventKind.RETURN, "nf_hook_slow", a=1, packet=6)
        tape.events[-1] = tape.events[-1]._replace(packet=5)  # by skb_morph() its address is that of packet 5
        whole, last = joined(tape, injected=None).packets
        assert ([hop.detail for hop in last.hops], whole.hops) == ([{"result": "1"}], ())

    def test_a_call_at_an_address_that_is_used_again_is_of_the_packet_that_has_it_now(self) -> None:
        tape = Tape()
        tape.born(5)
        tape.born(6, cookie=0)
        for packet in (5, 6):  # of the first nothing returns: it was queued, or stolen
            tape.add(EventKind.HOP, "nf_hook_slow", packet=packet)
            tape.events[-1] = tape.events[-1]._replace(skb=0xDDDD)
        tape.add(EventKind.RETURN, "nf_hook_slow", a=1, packet=6)
        tape.events[-1] = tape.events[-1]._replace(skb=0xDDDD)
        first, second = joined(tape).packets
        assert [hop.detail for hop in first.hops] == [{}]
        assert [hop.detail for hop in second.hops] == [{"result": "1"}]

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

    @pytest.mark.parametrize(
        ("value", "verdict"),
        [(0, "drop"), (2, "stolen"), (1 << 16 | 2, "drop"), (5 << 16 | 3, "queue"), (4, "4"), (5, "5")],
    )
    def test_verdicts_are_those_of_netfilter(self, value: int, verdict: str) -> None:
        tape = Tape()
        tape.born()
        tape.chain(USERS, value)
        assert joined(tape).packets[0].hops[-1].detail["verdict"] == verdict

    def test_a_chain_without_a_name_in_a_hook_of_bridges(self) -> None:
        tape = Tape()
        tape.born()
        tape.chain(0xC9, 1, hook=7 << 8 | 5)
        hop = joined(tape).packets[0].hops[-1]
        assert hop.detail == {"chain": "", "hook": "brouting", "verdict": "accept"}


class TestTracingChain:
    def test_what_the_kernel_runs_to_trace_is_left_out(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_rcv")
        tape.add(EventKind.HOP, "__nft_trace_packet")
        tape.add(EventKind.HOP, "nft_trace_notify")
        assert [hop.function for hop in joined(tape).packets[0].hops] == ["ip_rcv"]

    @pytest.mark.parametrize("before", [[], ["ip_rcv"], ["nft_do_chain_inet", "nft_do_chain_inet", "ip_rcv"]])
    def test_only_the_call_just_before_it_is_left_out_with_it(self, before: list[str]) -> None:
        tape = Tape()
        tape.born()
        for name in before:
            tape.add(EventKind.HOP, name)
        tape.add(EventKind.HOP, "nft_do_chain", a=OURS, b=FORWARD)
        tape.add(EventKind.RETURN, "nft_do_chain", a=1)
        assert [hop.function for hop in joined(tape).packets[0].hops] == before

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

    def test_of_messages_with_one_number_that_of_the_host_is_taken(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape, netns=SERVER)
        notified(tape)
        steps = joined(tape, [message(), message(host="server")]).packets[0].steps
        assert [(step.time, step.host) for step in steps] == [(1000, "server"), (2000, "device")]

    def test_a_packet_may_have_left_its_host_when_the_rule_is_reported(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape, netns=SERVER)
        assert [step.host for step in joined(tape, [message()]).packets[0].steps] == ["device"]

    def test_a_call_without_its_message(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape)
        with pytest.raises(BrokenMeasurement, match="1 call of nft_trace_notify, but 0 messages of the trace"):
            joined(tape)

    def test_a_message_without_its_call(self) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(BrokenMeasurement, match="0 calls of nft_trace_notify, but 1 message of the trace"):
            joined(tape, [message()])

    @pytest.mark.parametrize("read", [0, 1, 2])
    def test_messages_of_later_calls_may_have_been_read(self, read: int) -> None:
        """As of a retransmission that begins when the recording ends."""
        tape, after = Tape(), Tape()
        tape.born()
        notified(tape, 4)
        notified(after, 5)
        notified(after, 6)
        messages = [message(4), message(5), message(6)][: 1 + read]
        (packet,) = joined(tape, messages, later=after.events).packets
        assert len(packet.steps) == 1

    def test_a_message_without_its_call_beside_later_ones(self) -> None:
        tape, after = Tape(), Tape()
        tape.born()
        notified(after)
        with pytest.raises(BrokenMeasurement, match="1 call of nft_trace_notify, but 2 messages of the trace"):
            joined(tape, [message(), message()], later=after.events)

    def test_a_message_that_is_missing_beside_later_ones(self) -> None:
        tape, after = Tape(), Tape()
        tape.born()
        notified(tape)
        notified(after)
        with pytest.raises(BrokenMeasurement, match="1 call of nft_trace_notify, but 0 messages of the trace"):
            joined(tape, later=after.events)

    def test_a_message_about_another_rule(self) -> None:
        tape = Tape()
        tape.born()
        notified(tape, handle=4)
        with pytest.raises(BrokenMeasurement, match=r"reports rule 6 in inet filter forward .* for rule 4"):
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

    def test_only_calls_hand_a_frame_over(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.COPY, "packet_rcv", a=CAPTURING, netns=SERVER)
        with pytest.raises(BrokenMeasurement, match="server received 0 frames at eth0, but captured 1"):
            joined(tape, captured=[captured()])

    def test_frames_that_left_are_among_those_that_arrived(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        left = msgspec.structs.replace(captured(), outgoing=True)
        deliveries = joined(tape, captured=[left, captured()]).packets[0].deliveries
        assert [one.time for one in deliveries] == [2000]

    def test_a_frame_that_no_function_saw(self) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(BrokenMeasurement, match="server received 0 frames at eth0, but captured 1"):
            joined(tape, captured=[captured()])

    @pytest.mark.parametrize("read", [0, 1])
    def test_frames_of_later_calls_may_have_been_read(self, read: int) -> None:
        tape, after = Tape(), Tape()
        tape.born()
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        after.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        (packet,) = joined(tape, captured=[captured()] * (1 + read), later=after.events).packets
        assert len(packet.deliveries) == 1

    @pytest.mark.parametrize(("read", "called"), [(0, 1), (3, 2)])
    def test_frames_that_later_calls_do_not_explain(self, read: int, called: int) -> None:
        tape, after = Tape(), Tape()
        tape.born()
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        after.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        scene = {CAPTURING: ("server", "eth0")}
        with pytest.raises(BrokenMeasurement, match=rf"received {called} frames? at eth0, but captured {read}"):
            joined(tape, captured=[captured()] * read, later=after.events, sockets=scene)

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
        tape.add(EventKind.HOP, "ip_rcv")
        tape.add(EventKind.HOP, "kfree_skb_reason")
        tape.add(EventKind.DROP, a=0xABC, b=7)
        (packet,) = joined(tape).packets
        assert packet.drop == Drop(host="device", function="nf_hook_slow", reason="NETFILTER_DROP")
        assert [hop.detail for hop in packet.hops] == [{}, {"reason": "NETFILTER_DROP"}]

    def test_a_reason_without_a_name_is_a_number(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.DROP, a=0xABC, b=999)
        drop = joined(tape).packets[0].drop
        assert drop
        assert drop.reason == "999"

    def test_a_drop_on_the_host_that_sent_it_is_reported(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.DROP, a=0xABC, b=7, netns=CLIENT)
        assert joined(tape).packets[0].drop == Drop(host="client", function="nf_hook_slow", reason="NETFILTER_DROP")

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

    def test_the_remedy_is_that_of_the_engine(self) -> None:
        with pytest.raises(BrokenMeasurement) as raised:
            joined(Tape(), loss=Loss(entered=2, received=1, refused=1))
        assert "--nft-tracer kprobe" in raised.value.remedy

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
        reported, step = message()
        reported = msgspec.structs.replace(reported, network=bytes([first, 1]), transport=b"tt")
        (packet,) = joined(tape, [(reported, step)], injected=None).packets
        assert packet.frame == bytes(12) + kind + bytes([first, 1]) + b"tt"

    def test_else_it_is_not_known(self) -> None:
        tape = Tape()
        tape.born()
        assert joined(tape, injected=None).packets[0].frame == b""

    def test_a_call_of_which_no_packet_was_seen(self) -> None:
        tape = Tape()
        tape.born(cookie=0)
        with pytest.raises(BrokenMeasurement, match="a program on client sent something, but no packet of it was seen"):
            joined(tape, injected=None)

    def test_a_call_that_the_kernel_refused_has_no_packet_but_a_reason(self) -> None:
        (packet,) = joined(Tape(), injected=None, failed="ENETUNREACH").packets
        assert (packet.number, packet.injected, packet.sender, packet.frame) == (0, True, "client", b"")
        assert packet.drop == Drop(host="client", function="connect", reason="ENETUNREACH")
        sent = Tape()
        sent.born()
        (packet,) = joined(sent, injected=None, failed="EPERM").packets  # there was one, and it says more
        assert packet.drop is None


class TestWithoutProbes:
    """Tracepoints alone: what calls nft_do_chain() and packet_rcv() is not seen."""

    def test_chains_are_those_of_the_trace(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.HOP, "ip_rcv")
        tape.add(EventKind.HOP, "nft_do_chain", a=USERS, b=FORWARD)  # of a stack, without a result
        notified(tape, handle=0)
        tape.add(EventKind.HOP, "nf_hook_slow")
        reported, step = message()  # of a rule that the call does not name
        step = msgspec.structs.replace(step, verdict=Verdict.REJECT)
        seen = joined(tape, [(reported, step)], whole=False)
        assert not seen.whole
        assert [(hop.function, hop.time) for hop in seen.packets[0].hops] == [
            *(("ip_rcv", 1000), ("nft_do_chain", 3000), ("nf_hook_slow", 4000)),
        ]
        assert seen.packets[0].hops[1] == Hop(
            time=3000,
            cpu=0,
            host="device",
            device="",
            function="nft_do_chain",
            layer="Netfilter",
            detail={"chain": "inet filter forward", "hook": "forward", "verdict": "drop"},
        )

    def test_a_chain_is_called_once_for_all_its_steps(self) -> None:
        tape = Tape()
        tape.born()
        for _ in range(3):
            notified(tape)
        reported, step = message()
        steps = [*(msgspec.structs.replace(step, verdict=Verdict.CONTINUE),) * 2, step]
        (hop,) = joined(tape, [(reported, one) for one in steps], whole=False).packets[0].hops
        assert (hop.time, hop.detail["verdict"]) == (1000, "accept")

    def test_frames_are_those_that_came_in_by_their_interface(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.RECEIVED, netns=CLIENT)
        tape.add(EventKind.RECEIVED, netns=SERVER)
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        arrived = msgspec.structs.replace(captured(), device="eth1")
        left = msgspec.structs.replace(arrived, outgoing=True)
        deliveries = joined(tape, captured=[arrived, left], whole=False).packets[0].deliveries
        assert deliveries == (Delivery(time=2000, host="server", device="eth1", frame=FRAME),)

    def test_an_interface_without_a_tracepoint_is_unsupported(self) -> None:
        tape = Tape()
        tape.born()
        with pytest.raises(Unsupported, match="no tracepoint reports what arrives at eth0 of server") as error:
            joined(tape, captured=[captured()], whole=False)
        assert "--nft-tracer auto" in error.value.remedy

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_socket_that_captured_nothing_of_what_it_was_called_for_breaks_the_measurement(self, whole: bool) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.RECEIVED, netns=SERVER)
        tape.add(EventKind.HOP, "packet_rcv", a=CAPTURING, netns=SERVER)
        joined(tape, whole=whole)  # who is not known to capture is a stranger
        with pytest.raises(BrokenMeasurement, match="server received 1 frame at eth1, but captured 0"):
            joined(tape, whole=whole, sockets={CAPTURING: ("server", "eth1")})

    def test_fewer_receptions_than_frames_break_the_measurement(self) -> None:
        tape = Tape()
        tape.born()
        tape.add(EventKind.RECEIVED, netns=SERVER)
        arrived = msgspec.structs.replace(captured(), device="eth1")
        with pytest.raises(BrokenMeasurement, match="server received 1 frame at eth1, but captured 2"):
            joined(tape, captured=[arrived, arrived], whole=False)
