"""Functions that a packet must meet, in order, and those that it must not."""

from __future__ import annotations

import msgspec
import pytest

from harness.errors import Position, ScenarioError, Unsupported
from harness.judge.expectations import judge
from harness.scenario.models.expect import Expect
from tests.builders import (
    PASSED,
    WAY,
    changed,
    complaints,
    dropped,
    hop,
    observation,
    place,
    step,
)


def test_path_names_the_first_function_not_met() -> None:
    assert complaints({"path": ["netif_receive_skb", "ip_local_deliver", "__dev_queue_xmit"]}) == [
        "expect.path[1]: ip_local_deliver / never met"
    ]


def test_path_is_ordered() -> None:
    assert complaints({"path": ["ip_forward_finish", "ip_rcv"]}) == [
        "expect.path[1]: ip_rcv / not met after ip_forward_finish / met earlier: the order differs"
    ]


def test_path_looks_at_the_device_or_the_host_named() -> None:
    assert complaints({"path": ["dev_queue_xmit"]}) == [
        "expect.path[0]: dev_queue_xmit / not met on device / met on client only; `host:` names another host"
    ]
    assert (
        complaints({"path": [{"dev_queue_xmit": {"host": "client"}}, "ip_rcv", {"ip_rcv": {"host": "server"}}]}) == []
    )


def test_path_details() -> None:
    wrong = {"nft_do_chain": {"chain": "inet filter input", "verdict": "drop"}}
    assert complaints({"path": [wrong]}) == [
        (
            "expect.path[0]: nft_do_chain inet filter input → drop / not met on device / "
            "met with chain inet filter forward, verdict accept"
        )
    ]
    assert complaints({"path": [{"__dev_queue_xmit": {"device": "lan0"}}]}) == []


def test_a_function_that_was_met_otherwise() -> None:
    met = (
        hop("ip_rcv", host="client"),
        hop("ip_rcv", host="server"),
        hop("ip_forward_finish"),
        hop("ip_forward_finish", device=""),
    )
    packet = changed(hops=met)
    assert complaints({"path": ["ip_rcv"]}, packet) == [
        "expect.path[0]: ip_rcv / not met on device / met on client, server only; `host:` names another host"
    ]
    assert complaints({"path": [{"ip_forward_finish": {"device": "lan0"}}]}, packet) == [
        "expect.path[0]: ip_forward_finish device lan0 / not met on device / met with device wan0; with device unknown"
    ]


def test_reasons_with_and_without_the_kernels_prefix() -> None:
    packet = dropped(step("drop"))
    packet = changed(packet, hops=(hop("sk_skb_reason_drop", reason="NETFILTER_DROP"),))
    for reason in ("NETFILTER_DROP", "SKB_DROP_REASON_NETFILTER_DROP"):
        assert complaints({"path": [{"sk_skb_reason_drop": {"reason": reason}}]}, packet) == []


def test_never() -> None:
    assert complaints({"never": ["ip_forward_finish"]}) == [
        (
            "expect.never[0]: never ip_forward_finish / ip_forward_finish met on device, "
            "after nft_do_chain inet filter forward → accept"
        )
    ]
    assert complaints({"never": ["dev_queue_xmit"]}) == [], "the client's functions are not the device's"


def test_layers_are_ordered() -> None:
    assert complaints({"layers": ["Device", "Xmit", "Netfilter"]}) == [
        "expect.layers[2]: Netfilter / Device IPv4 Netfilter IPv4 Xmit / not passed after Xmit"
    ]
    assert complaints({"layers": ["Bridge"]}) == [
        "expect.layers[0]: Bridge / Device IPv4 Netfilter IPv4 Xmit / not passed at all"
    ]


def test_a_packet_without_a_device_is_still_with_its_sender() -> None:
    packet = changed(sender="device", hops=(hop("ip_local_deliver", host="", device=""), *WAY[4:6]))
    assert complaints({"path": ["ip_local_deliver", "ip_forward_finish"]}, changed(packet, steps=())) == []


def test_a_function_that_cannot_be_traced_is_named_with_near_ones() -> None:
    with pytest.raises(ScenarioError) as error:
        complaints({"path": ["ip_rcv", "ip_forward_finsh"]})
    assert str(error.value) == (
        "edge.yaml:31:3: expect.path[1]: kernel 6.12 cannot trace ip_forward_finsh (inlined, absent or misspelt); "
        "did you mean ip_forward_finish?"
    )
    with pytest.raises(ScenarioError, match=r"never\[0\].*cannot trace qqq or zzz .*give an alternative"):
        complaints({"never": ["qqq | zzz"]})


def test_the_reason_why_a_function_cannot_be_traced_is_told() -> None:
    seen = msgspec.structs.replace(observation(PASSED), untraceable={"ip_forward_finsh": "it is inlined"})
    with pytest.raises(ScenarioError, match=r"cannot trace ip_forward_finsh: it is inlined; did you mean"):
        judge(Expect(path=["ip_forward_finsh"]), seen, PASSED, at=place)
    seen = msgspec.structs.replace(observation(PASSED), untraceable={"qqq": "it is inlined", "zzz": "it is a stub"})
    with pytest.raises(ScenarioError) as error:
        judge(Expect(path=["qqq | zzz"]), seen, PASSED, at=place)
    assert str(error.value).endswith(
        "cannot trace qqq or zzz: it is inlined; it is a stub; give an alternative that it can: 'a | b'"
    )


def test_one_alternative_that_can_be_traced_is_enough() -> None:
    assert complaints({"path": ["ip_rcv_of_tomorrow | ip_rcv"]}) == []
    assert complaints({"never": ["kfree_skb_reason | sk_skb_reason_drop"]}) == []


def test_functions_expected_but_none_traced() -> None:
    untraced = msgspec.structs.replace(observation(PASSED), traced=frozenset())
    expect = Expect(verdict="accept", layers=["IPv4"])
    with pytest.raises(Unsupported, match=r"edge.yaml:31:1: path, layers, never and route need function tracing"):
        judge(expect, untraced, PASSED, at=place)


def where(keys: tuple[str | int, ...]) -> Position:
    return Position(".".join(map(str, keys)), 1)


def test_without_function_tracing_the_place_and_the_remedy_are_named() -> None:
    untraced = msgspec.structs.replace(observation(PASSED), traced=frozenset())
    with pytest.raises(Unsupported, match=r"^expect:1: path, layers.*; run with --nft-kernel auto$"):
        judge(Expect(layers=["IPv4"]), untraced, PASSED, at=where)


@pytest.mark.parametrize(
    ("expect", "place"),
    [
        ({"path": ["ip_rcv", "qqq"]}, "expect.path.1"),
        ({"path": {"exactly": ["ip_rcv", "qqq"]}}, "expect.path.exactly.1"),
        ({"path": {"exactly": ["ip_rcv"]}, "never": ["qqq"]}, "expect.never.0"),
    ],
)
def test_a_function_that_cannot_be_traced_is_named_where_it_is_written(expect: dict[str, object], place: str) -> None:
    with pytest.raises(ScenarioError) as error:
        judge(msgspec.convert(expect, Expect), observation(PASSED), PASSED, at=where)
    assert error.value.position.file == place


def test_a_packet_that_passed_no_layer() -> None:
    assert complaints({"layers": ["IPv4"]}, changed(hops=())) == [
        "expect.layers[0]: IPv4 / no layer at all / not passed at all"
    ]


def test_each_function_that_must_not_be_met_is_judged_by_itself() -> None:
    assert complaints({"never": [{"dev_queue_xmit": {"host": "client"}}, "ip_local_deliver", "ip_rcv"]}) == [
        "expect.never[0]: never dev_queue_xmit on client / dev_queue_xmit met on client",
        "expect.never[2]: never ip_rcv / ip_rcv met on device, after netif_receive_skb",
    ]
