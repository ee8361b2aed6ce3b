"""Paths that are exactly so, and entries that may be left out."""

from __future__ import annotations

import pytest

from harness.model.observation import Hop, ObservedPacket
from harness.reading.path import align, functions
from harness.scenario.models.expect import Expect, HopDetail
from tests.builders import FORWARD, changed, complaints, hop, step

RCV, FORWARDED, OUT = hop("ip_rcv"), hop("ip_forward_finish"), hop("__dev_queue_xmit", "Xmit", device="lan0")
PREROUTING = hop("nft_do_chain", "Netfilter", chain="inet filter prerouting", verdict="accept")
CHAIN = hop("nft_do_chain", "Netfilter", chain=FORWARD, verdict="accept")
HOOK = hop("nf_hook_slow", "Netfilter")
PUSH = hop("skb_push", "Buffer")
MAYBE = {"nf_hook_slow": {"optional": True}}
MAY = ("nf_hook_slow", "skb_push")


def way(*hops: Hop) -> ObservedPacket:
    chains = [one.detail["chain"] for one in hops if "chain" in one.detail]
    return changed(hops=hops, steps=tuple(step("accept", chain=chain) for chain in chains), deliveries=())


class TestOptional:
    @pytest.mark.parametrize("hops", [(RCV, HOOK, OUT), (RCV, OUT), (RCV, OUT, HOOK)])
    def test_met_or_not(self, hops: tuple[Hop, ...]) -> None:
        assert complaints({"path": ["ip_rcv", MAYBE, "__dev_queue_xmit"]}, way(*hops)) == []

    def test_at_the_end(self) -> None:
        assert complaints({"path": ["ip_rcv", MAYBE]}, way(RCV)) == []

    def test_the_others_must_be_met_in_order(self) -> None:
        assert complaints({"path": ["ip_rcv", MAYBE, "__dev_queue_xmit"]}, way(OUT, HOOK, RCV)) == [
            "expect.path[2]: __dev_queue_xmit / not met after ip_rcv / met earlier: the order differs"
        ]

    def test_one_that_no_kernel_traces_here_is_no_error(self) -> None:
        assert complaints({"path": ["ip_rcv", {"ip_sublist_rcv": {"optional": True}}]}, way(RCV)) == []

    def test_the_report_does_not_miss_it(self) -> None:
        path = ["ip_rcv", {"nf_hook_slow": HopDetail(optional=True)}, "__dev_queue_xmit"]
        assert all(row.met for row in align(path, way(RCV, OUT), "device"))
        rows = align(path, way(RCV, HOOK, OUT), "device")
        assert [row.expected is not None for row in rows] == [True, True, True]


class TestAlign:
    """What the report shows beside each other: the expected function, the one seen, whether it is that one."""

    def rows(self, path: list[str], *hops: Hop) -> list[tuple[str, str, bool]]:
        rows = align(path, way(*hops), "device")
        return [(str(row.expected or ""), row.hop.function if row.hop else "", row.met) for row in rows]

    def test_all_met(self) -> None:
        assert self.rows(["ip_rcv", "ip_forward_finish"], RCV, HOOK, FORWARDED) == [
            ("ip_rcv", "ip_rcv", True),
            ("", "nf_hook_slow", True),
            ("ip_forward_finish", "ip_forward_finish", True),
        ]

    def test_the_first_is_missing(self) -> None:
        assert self.rows(["ip_forward", "__dev_queue_xmit"], RCV, OUT) == [
            ("ip_forward", "ip_rcv", False),
            ("__dev_queue_xmit", "__dev_queue_xmit", True),
        ]

    def test_a_helper_takes_no_place(self) -> None:
        assert self.rows(["ip_rcv", "ip_forward", "__dev_queue_xmit"], RCV, HOOK, OUT) == [
            ("ip_rcv", "ip_rcv", True),
            ("", "nf_hook_slow", True),
            ("ip_forward", "", False),
            ("__dev_queue_xmit", "__dev_queue_xmit", True),
        ]

    def test_a_drop_takes_the_place_of_what_did_not_come(self) -> None:
        free = hop("kfree_skb_reason", "Free", reason="NETFILTER_DROP")
        assert self.rows(["ip_rcv", "ip_forward", "ip_output"], RCV, free) == [
            ("ip_rcv", "ip_rcv", True),
            ("ip_forward", "kfree_skb_reason", False),
            ("ip_output", "", False),
        ]

    def test_nothing_came(self) -> None:
        assert self.rows(["ip_rcv"]) == [("ip_rcv", "", False)]


class TestExactly:
    def exactly(self, *entries: object, **more: object) -> dict[str, object]:
        return {"path": {"exactly": list(entries), **more}}

    def test_other_functions_do_not_matter(self) -> None:
        expect = self.exactly("ip_rcv", {"nft_do_chain": {"chain": FORWARD}})
        assert complaints(expect, way(RCV, HOOK, CHAIN, OUT)) == []

    def test_one_call_too_many(self) -> None:
        expect = self.exactly("ip_rcv", {"nft_do_chain": {"chain": FORWARD}})
        note = "the first place where seen and expected part"
        wanted, seen = f"exactly nft_do_chain {FORWARD}", "nft_do_chain inet filter prerouting → accept on device"
        assert complaints(expect, way(RCV, PREROUTING, CHAIN)) == [
            f"expect.path.exactly[1]: {wanted} / {seen} / {note}"
        ]
        assert complaints(expect, way(RCV, CHAIN, RCV)) == [
            f"expect.path.exactly[1]: nothing more of these functions / ip_rcv on device / {note}"
        ]

    def test_one_call_too_few(self) -> None:
        expect = self.exactly("ip_rcv", "ip_forward_finish", "ip_rcv")
        assert complaints(expect, way(RCV, FORWARDED)) == [
            "expect.path.exactly[2]: ip_rcv / not met after ip_forward_finish / met earlier: the order differs"
        ]

    def test_nothing_came_of_what_is_named(self) -> None:
        expect = self.exactly("ip_rcv", MAYBE, "ip_forward_finish")
        (reported,) = complaints(expect, way(RCV))
        assert reported.startswith("expect.path.exactly[2]: ip_forward_finish / never met")

    def test_optional_entries_may_be_left_out(self) -> None:
        expect = self.exactly("ip_rcv", MAYBE, "__dev_queue_xmit", MAYBE)
        for hops in ((RCV, OUT), (RCV, HOOK, OUT), (RCV, OUT, HOOK), (RCV, HOOK, OUT, HOOK)):
            assert complaints(expect, way(*hops)) == []
        assert len(complaints(expect, way(RCV, HOOK, HOOK, OUT))) == 1

    def test_a_call_is_that_of_the_entry_which_needs_it(self) -> None:
        twice = self.exactly({"ip_rcv": {"optional": True}}, "ip_rcv", "__dev_queue_xmit")
        assert complaints(twice, way(RCV, OUT)) == []
        assert complaints(twice, way(RCV, RCV, RCV, OUT)) != []

    def test_a_whole_layer(self) -> None:
        expect = self.exactly({"nft_do_chain": {"chain": FORWARD}}, layers=["Netfilter"])
        assert complaints(expect, way(RCV, CHAIN, OUT)) == []
        (reported,) = complaints(expect, way(RCV, HOOK, CHAIN, OUT))
        assert reported.startswith(
            "expect.path.exactly[0]: exactly nft_do_chain inet filter forward / nf_hook_slow on dev"
        )

    def test_only_on_the_hosts_named(self) -> None:
        elsewhere = hop("ip_rcv", host="server", device="eth0")
        assert complaints(self.exactly("ip_rcv"), way(RCV, elsewhere)) == []
        expect = self.exactly("ip_rcv", {"ip_rcv": {"host": "server"}})
        assert complaints(expect, way(RCV, elsewhere)) == []
        assert len(complaints(expect, way(RCV, elsewhere, elsewhere))) == 1


class TestWalk:
    """Where optional entries are looked for."""

    def expected(self, path: list[object], *hops: Hop) -> list[tuple[str, bool]]:
        rows = align([{one: HopDetail(optional=True)} if one in MAY else one for one in path], way(*hops), "device")
        return [(row.hop.function if row.hop else "", row.expected is not None) for row in rows]

    def test_before_the_next_that_is_not_optional(self) -> None:
        assert self.expected(["ip_rcv", "nf_hook_slow", "__dev_queue_xmit"], RCV, OUT, HOOK) == [
            ("ip_rcv", True),
            ("__dev_queue_xmit", True),
            ("nf_hook_slow", False),
        ]

    def test_at_the_end_behind_the_last(self) -> None:
        assert self.expected(["ip_rcv", "nf_hook_slow"], HOOK, RCV) == [("nf_hook_slow", False), ("ip_rcv", True)]
        assert self.expected(["ip_rcv", "nf_hook_slow"], RCV, HOOK) == [("ip_rcv", True), ("nf_hook_slow", True)]

    def test_several_in_their_order(self) -> None:
        path: list[object] = ["nf_hook_slow", "skb_push", "nf_hook_slow", "__dev_queue_xmit"]
        assert self.expected(path, HOOK, PUSH, OUT) == [
            ("nf_hook_slow", True),
            ("skb_push", True),
            ("__dev_queue_xmit", True),
        ]
        assert self.expected(path, PUSH, HOOK, HOOK, OUT) == [
            ("skb_push", False),
            ("nf_hook_slow", True),
            ("nf_hook_slow", True),
            ("__dev_queue_xmit", True),
        ]


def test_a_call_without_the_detail_that_is_expected() -> None:
    assert complaints({"path": [{"ip_rcv": {"reason": "NO_SOCKET"}}]}, way(RCV)) == [
        "expect.path[0]: ip_rcv NO_SOCKET / not met on device / met with reason unknown"
    ]
    hooked = hop("nft_do_chain", "Netfilter", chain=FORWARD, hook="forward", verdict="accept")
    assert complaints({"path": [{"nft_do_chain": {"hook": "input"}}]}, way(hooked)) == [
        "expect.path[0]: nft_do_chain input / not met on device / met with hook forward"
    ]


def test_the_functions_that_an_expectation_needs() -> None:
    assert functions(Expect(path=["ip_rcv | ipv6_rcv"], never=["ip_forward"])) == {"ip_rcv", "ipv6_rcv", "ip_forward"}
    assert functions(Expect(log="x")) == {"nf_log_packet"}
    assert functions(Expect(route="lan0")) == {
        *("ip_output", "ip6_output", "ip_mc_output", "__dev_queue_xmit", "dev_queue_xmit")
    }
    assert functions(Expect(verdict="accept")) == set()
