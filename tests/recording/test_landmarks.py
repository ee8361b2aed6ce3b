"""What is recorded of a packet's path: functions that other kernels have as well, and layers."""

from __future__ import annotations

import pytest

from harness.model.observation import Hop
from harness.model.result import PacketResult
from harness.recording.edit import KeptEntry
from harness.recording.landmarks import common, common_path, landmarks, relayered, repathed, telling_layers
from harness.recording.sample import Sample
from tests.builders import FORWARD, changed, hop, observation


def sample(*hops: Hop) -> Sample:
    sent = PacketResult(action=0, summary="", packet=0, observation=observation(changed(hops=hops)))
    return Sample(sent=sent, rules=(), where="here")


CHAIN = hop("nft_do_chain", "Netfilter", chain=FORWARD, hook="forward", verdict="accept")
ROUTED = (
    hop("ip_rcv", host="client", device="eth0"),
    hop("netif_receive_skb", "Device"),
    hop("ip_rcv"),
    hop("ip_rcv_core"),
    CHAIN,
    hop("ip_forward"),
    hop("ip_output"),
    hop("__dev_queue_xmit", "Xmit", device="br0"),
    hop("__dev_queue_xmit", "Xmit", device="lan0"),
    hop("ip_rcv", host="server", device="eth0"),
)
PATH = (
    "ip_rcv",
    {"nft_do_chain": {"chain": FORWARD, "verdict": "accept"}},
    "ip_forward",
    "ip_output",
    {"__dev_queue_xmit": {"device": "lan0"}},
)


def test_landmarks_are_those_of_the_device_and_the_last_interface() -> None:
    assert landmarks(sample(*ROUTED)) == PATH


def test_what_follows_the_input_hook_depends_on_programs() -> None:
    local = (hop("ip_rcv"), hop("ip_local_deliver"), hop("tcp_v4_rcv"), hop("ip_output"))
    assert landmarks(sample(*local)) == ("ip_rcv", "ip_local_deliver")
    assert telling_layers(sample(*local)) == ("IPv4",)


@pytest.mark.parametrize("function", ["kfree_skb_reason", "sk_skb_reason_drop"])
def test_a_drop_is_recorded_in_the_words_of_every_kernel(function: str) -> None:
    drop = hop(function, "Free", reason="NETFILTER_DROP")
    assert landmarks(sample(hop("ip_rcv"), drop))[1:] == ("kfree_skb_reason | sk_skb_reason_drop",)
    assert landmarks(sample(hop("ip_rcv"), hop(function, "Free")))[1:] == ()


def test_a_function_that_comes_twice_in_a_row_is_one_landmark() -> None:
    assert landmarks(sample(hop("ip_rcv"), hop("ip_rcv"), hop("ip_forward"), hop("ip_rcv"))) == (
        *("ip_rcv", "ip_forward", "ip_rcv"),
    )


@pytest.mark.parametrize(
    ("ways", "same"),
    [
        (["abc"], "abc"),
        (["abcd", "acd", "abd"], "ad"),
        (["ab", "cd"], ""),
        (["aab", "ab"], "ab"),
    ],
)
def test_what_stands_in_all_ways_in_the_same_order(ways: list[str], same: str) -> None:
    assert "".join(common(ways)) == same


def test_of_two_kernels_only_what_both_met_is_recorded() -> None:
    other = sample(*(one for one in ROUTED if one.function != "ip_output"))
    assert common_path([sample(*ROUTED), other]) == tuple(one for one in PATH if one != "ip_output")


def test_landmarks_take_the_place_of_functions_that_are_not_met_any_more() -> None:
    change = repathed(["ip_rcv", "ip_local_deliver", "ip_output"], [sample(*ROUTED)])
    assert change.value == (KeptEntry(0), PATH[1], "ip_forward", KeptEntry(2))
    change = repathed(["ip_rcv", "ip6_output"], [sample(*ROUTED)])
    assert change.value == (KeptEntry(0), *PATH[1:])


def test_a_path_of_which_nothing_is_met_is_written_anew() -> None:
    assert repathed(["ip6_output"], [sample(*ROUTED)]).value == list(PATH)


def test_layers_that_are_still_passed_stay() -> None:
    assert relayered(["Device", "Bridge", "Xmit"], [sample(*ROUTED)]).value == (KeptEntry(0), KeptEntry(2))
    assert relayered(["Xmit", "Device"], [sample(*ROUTED)]).value == (KeptEntry(0),)
    assert relayered(["Bridge"], [sample(*ROUTED)]).value == list(telling_layers(sample(*ROUTED)))
