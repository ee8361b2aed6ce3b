"""What stacks at tracepoints prove of a packet's way, and what they leave open."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.errors import Unsupported
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind, StackEvent
from harness.tracer.stacks import _StackHistory

PASSED_ON = (
    *("__dev_queue_xmit", "dev_hard_start_xmit", "veth_xmit", "netif_rx", "__netif_receive_skb_core"),
    *("__netif_receive_skb", "ip_rcv", "nf_hook_slow", "nft_do_chain", "nft_trace_notify", "ip_forward", "ip_output"),
    *(
        "nf_send_reset",
        "tcp_v4_send_synack",
        "synproxy_send_tcp",
        "ip_local_out",
        "arp_process",
        "arp_xmit",
        "br_dev_xmit",
        "vlan_dev_hard_start_xmit",
        "neigh_resolve_output",
        "ip_do_fragment",
        "kfree_skb_reason",
        "netlink_broadcast_filtered",
        "nlmsg_notify",
    ),
)
OTHERS = (
    "packet_sendmsg",
    "process_backlog",
    "handle_softirqs",
    "neigh_update",
    "raw_sendmsg",
    "ip_push_frames",
    "do_syscall_64",
    "sock_def_readable",
)
NAMES = (*PASSED_ON, *OTHERS)
FUNCTIONS = [
    Function(name=name, kernel_name=name, position=0, carries="sk_buff", layer="IPv4", priority=0) for name in PASSED_ON
]
IN = ("__netif_receive_skb", "process_backlog", "handle_softirqs", "__dev_queue_xmit", "packet_sendmsg")
"""Around all that happens to a packet that came in."""
OURS, ANSWER = 1, 2
CLIENT, DEVICE = 100, 200


class Tale:
    """Visits in order, each a microsecond after the one before."""

    def __init__(self) -> None:
        self.visits: list[StackEvent] = []

    def see(
        self,
        kind: EventKind,
        packet: int,
        *stack: str,
        netns: int = DEVICE,
        a: int = 0,
        ifindex: int = 1,
        ours: bool = True,
        on_ours: bool = False,
        after_ours: bool = False,
    ) -> None:
        """``ours``: of an evaluation, whether the packet that came in last and the process that runs are ours;
        ``on_ours``: only the process is; ``after_ours``: only the packet is."""
        words = (int(ours or after_ours), int(ours or on_ours)) if kind == EventKind.RULE else (a, 0)
        event = Event(1000 * len(self.visits), 0xF0 + packet, *words, packet, netns, ifindex, 0, kind, 0)
        self.visits.append(StackEvent(event.time, event, tuple(NAMES.index(name) * 16 + 8 for name in stack)))

    def send(self) -> None:
        """Our packet leaves the client and reaches the device."""
        self.see(EventKind.BIRTH, OURS, netns=CLIENT, a=7)
        self.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "packet_sendmsg", netns=CLIENT)
        self.see(EventKind.RECEIVED, OURS, "__netif_receive_skb_core", *IN)

    def events(self) -> list[Event]:
        return _StackHistory(FUNCTIONS, lambda address: NAMES[address // 16]).to_events(self.visits)


def hops(events: Iterable[Event], packet: int = OURS) -> list[str]:
    return [PASSED_ON[event.function] for event in events if event.kind == EventKind.HOP and event.packet == packet]


def test_evaluations_of_others_are_left_out() -> None:
    history = Tale()
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_rcv", *IN, ours=False)
    history.send()
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_rcv", *IN)
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_rcv", *IN, ours=False)
    history.see(
        EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_local_out", "raw_sendmsg", ours=False
    )
    assert [(event.packet, event.a, event.b) for event in history.events() if event.kind == EventKind.RULE] == [
        (OURS, 0, 0)
    ]


def test_answers_to_others_on_top_of_our_process_are_left_out() -> None:
    history = Tale()
    history.send()
    within = ("nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_local_out", "ip_push_frames", "ip_rcv")
    history.see(EventKind.RULE, 0, *within, *IN, ours=False, on_ours=True)
    history.see(EventKind.BIRTH, ANSWER)
    history.see(EventKind.VISIT, ANSWER, "__dev_queue_xmit", "ip_output", "ip_push_frames", "ip_rcv", *IN)
    assert not [event for event in history.events() if event.kind == EventKind.RULE]


def test_what_another_process_sends_after_our_packet_was_received_is_left_out() -> None:
    history = Tale()
    history.send()
    sending = ("nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_local_out", "raw_sendmsg", "do_syscall_64")
    history.see(EventKind.RULE, 0, *sending, after_ours=True, ours=False)
    assert not [event for event in history.events() if event.kind == EventKind.RULE]


def test_what_sends_a_message_of_the_trace_has_not_met_the_packet_that_it_is_about() -> None:
    """On kernels whose nft_trace_notify() jumps to nfnetlink_send(), neither is on the stack."""
    history = Tale()
    history.send()
    history.see(
        EventKind.RULE,
        0,
        *("sock_def_readable", "netlink_broadcast_filtered", "nlmsg_notify", "nft_do_chain", "nf_hook_slow", "ip_rcv"),
        *IN,
    )
    history.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "ip_output", *IN, ifindex=2)
    converted = history.events()
    assert hops(converted)[-5:] == ["ip_rcv", "nf_hook_slow", "nft_do_chain", "ip_output", "__dev_queue_xmit"]
    assert [event.packet for event in converted if event.kind == EventKind.RULE] == [OURS]


def test_what_stands_on_the_stack_was_entered_once() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_rcv", *IN)
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_rcv", *IN)
    history.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "ip_output", *IN, ifindex=2)
    converted = history.events()
    assert hops(converted)[1:] == [
        *("__netif_receive_skb", "__netif_receive_skb_core"),
        *("ip_rcv", "nf_hook_slow", "nft_do_chain", "nft_trace_notify"),
        *("ip_output", "__dev_queue_xmit"),
    ]
    assert [event.packet for event in converted if event.kind == EventKind.RULE] == [OURS, OURS]


def test_where_a_packet_went_from_one_interface_to_another_only_the_last_function_has_the_new_one() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "ip_output", *IN, ifindex=2)
    assert [event.ifindex for event in history.events() if event.kind == EventKind.HOP][-2:] == [0, 2]


def test_what_a_packet_entered_between_two_namespaces_is_no_hop() -> None:
    history = Tale()
    history.see(EventKind.BIRTH, OURS, netns=CLIENT, a=7)
    history.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "packet_sendmsg", netns=CLIENT)
    history.see(EventKind.VISIT, OURS, "netif_rx", "veth_xmit", "__dev_queue_xmit", "packet_sendmsg")
    assert hops(history.events()) == ["__dev_queue_xmit", "netif_rx"]


@pytest.mark.parametrize("answers", ["nf_send_reset", "tcp_v4_send_synack", "synproxy_send_tcp", "arp_xmit"])
def test_an_answer_has_not_met_what_its_question_is_in(answers: str) -> None:
    history = Tale()
    history.send()
    inside = (answers, "nft_do_chain", "nf_hook_slow", "ip_rcv", *IN)
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_local_out", *inside)
    history.see(EventKind.BIRTH, ANSWER)
    history.see(EventKind.VISIT, ANSWER, "__dev_queue_xmit", "ip_output", *inside)
    converted = history.events()
    assert hops(converted, ANSWER) == ["__dev_queue_xmit"]
    assert [event.packet for event in converted if event.kind == EventKind.RULE] == [ANSWER]
    birth = next(event for event in converted if event.kind == EventKind.BIRTH and event.packet == ANSWER)
    assert birth.time <= next(event.time for event in converted if event.kind == EventKind.RULE)


def test_a_packet_that_waited_has_not_met_what_brought_the_end_of_its_wait() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.BIRTH, ANSWER, a=0)
    history.see(EventKind.VISIT, ANSWER, "__dev_queue_xmit", "neigh_resolve_output", "ip_output", *IN)
    history.see(EventKind.RECEIVED, ANSWER, "__netif_receive_skb_core", *IN)
    history.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "neigh_resolve_output", "neigh_update", "arp_process", *IN)
    converted = hops(history.events())
    assert converted[-2:] == ["neigh_resolve_output", "__dev_queue_xmit"]
    assert "arp_process" not in converted


def test_what_another_packet_that_came_in_is_in_was_not_met() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.BIRTH, ANSWER)
    history.see(EventKind.VISIT, ANSWER, "__dev_queue_xmit", "packet_sendmsg")
    history.see(EventKind.RECEIVED, ANSWER, "__netif_receive_skb_core", *IN)
    history.see(EventKind.DROP, OURS, "kfree_skb_reason", "ip_rcv", *IN)
    assert hops(history.events())[-1] == "kfree_skb_reason"
    assert "ip_rcv" not in hops(history.events())


def test_a_fragment_is_its_packet() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.BIRTH, 3)
    history.see(EventKind.VISIT, 3, "__dev_queue_xmit", "ip_do_fragment", "ip_output", *IN)
    converted = history.events()
    assert {event.packet for event in converted} == {OURS}
    assert sum(event.kind == EventKind.BIRTH for event in converted) == 1


def test_a_fragment_of_an_unknown_packet_is_refused() -> None:
    history = Tale()
    history.see(EventKind.BIRTH, 3)
    history.see(EventKind.VISIT, 3, "__dev_queue_xmit", "ip_do_fragment", "ip_push_frames")
    with pytest.raises(Unsupported, match="a copy of"):
        history.events()


def test_an_evaluation_of_an_unknown_packet_is_refused() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "ip_push_frames")
    with pytest.raises(Unsupported, match="which packet an evaluation"):
        history.events()


def test_what_is_sent_from_the_device_begins_in_its_output_hook() -> None:
    history = Tale()
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", "raw_sendmsg")
    history.see(EventKind.BIRTH, OURS, a=7)
    history.see(EventKind.VISIT, OURS, "__dev_queue_xmit", "ip_output", "raw_sendmsg")
    converted = history.events()
    assert converted[0].kind == EventKind.BIRTH or converted[0].time == converted[1].time == 0
    assert [event.packet for event in converted if event.kind == EventKind.RULE] == [OURS]


@pytest.mark.parametrize("device", ["br_dev_xmit", "vlan_dev_hard_start_xmit"])
@pytest.mark.parametrize("made", [("raw_sendmsg", "do_syscall_64"), ("nf_send_reset", "nft_do_chain", "ip_rcv", *IN)])
def test_what_a_device_passes_on_is_the_packet_that_it_was_given(device: str, made: tuple[str, ...]) -> None:
    within = ("nft_trace_notify", "nft_do_chain", "nf_hook_slow", device, "dev_hard_start_xmit")
    history = Tale()
    history.send()
    for packet in (ANSWER, 3):
        sent = ("__dev_queue_xmit", "ip_output", *made)
        history.see(EventKind.BIRTH, packet)
        history.see(EventKind.VISIT, packet, "dev_hard_start_xmit", *sent)
        history.see(EventKind.RULE, 0, *within, *sent)
        history.see(EventKind.VISIT, packet, "dev_hard_start_xmit", "__dev_queue_xmit", *within[2:], *sent)
        history.see(EventKind.RULE, 0, *within, *sent)
    rules = [event.packet for event in history.events() if event.kind == EventKind.RULE]
    assert rules == [ANSWER, ANSWER, 3, 3]


def test_an_answer_that_is_made_within_a_device_is_not_what_it_was_given() -> None:
    history = Tale()
    history.send()
    history.see(EventKind.BIRTH, 3)
    sent = ("br_dev_xmit", "dev_hard_start_xmit", "__dev_queue_xmit", "raw_sendmsg")
    history.see(EventKind.VISIT, 3, *sent[1:])
    inside = ("ip_local_out", "nf_send_reset", *sent)
    history.see(EventKind.RULE, 0, "nft_trace_notify", "nft_do_chain", "nf_hook_slow", *inside)
    history.see(EventKind.BIRTH, ANSWER)
    history.see(EventKind.VISIT, ANSWER, "__dev_queue_xmit", *inside)
    assert [event.packet for event in history.events() if event.kind == EventKind.RULE] == [ANSWER]
