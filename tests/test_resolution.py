"""What is made of neighbours that were resolved, or not, beside a flow."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.judge.flow import refuse_contradiction
from harness.lab.neighbours import Query
from harness.observation import Delivery, Flow, Observation, PacketSeen
from harness.resolution import explain, silent, unreached, without_resolution
from harness.scenario.labs import LABS
from harness.scenario.network import Network
from tests.judge.test_judge import PASSED, changed, dropped, frame, hop, observation, step

ARP = bytes.fromhex("ffffffffffff020000000101 0806 0001 0800 06 04 0001") + bytes(20)
SOLICITATION = bytes(12) + bytes.fromhex("86dd 60000000 0020 3aff") + bytes(32) + bytes.fromhex("8700") + bytes(30)
RESET = frame()[:47] + b"\x14" + frame()[48:]
UNREACHABLE = bytes(12) + bytes.fromhex("0800 45000038000000004001 0000") + bytes(8) + b"\x03\x03" + bytes(26)
ASKED = Query("client", "eth0", IPv4Address("203.0.113.1"))
ASKED_6 = Query("client", "eth0", IPv6Address("2001:db8:113::1"), IPv6Address("2001:db8:113::5"))
NETWORK = Network.of(LABS["router"])


def flow(result: str, *others: PacketSeen, **more: object) -> Observation:
    ended = Flow(result=result, host="client")
    return msgspec.structs.replace(observation(PASSED), packets=(PASSED, *others), flow=ended, **more)


def other(seen: bytes, **more: object) -> PacketSeen:
    return changed(number=1, injected=False, frame=seen, deliveries=(), **more)


class TestApart:
    @pytest.mark.parametrize("message", [ARP, SOLICITATION])
    def test_packets_of_kernels_that_resolve_are_left_out(self, message: bytes) -> None:
        arrived = Delivery(time=1, host="client", device="eth0", frame=message)
        assert without_resolution(flow("timeout", other(message), replies=(arrived,))) == flow("timeout")

    def test_so_are_those_whose_bytes_nobody_saw(self) -> None:
        unknown = other(b"", hops=(hop("ndisc_send_skb"),))
        assert without_resolution(flow("timeout", unknown)).packets == (PASSED,)

    def test_all_others_stay(self) -> None:
        seen = flow("refused", other(RESET, hops=()), other(UNREACHABLE, hops=()))
        assert without_resolution(seen) == seen


class TestUnreached:
    def test_the_callers_neighbour_makes_a_timeout(self) -> None:
        seen = flow("unreachable")
        assert unreached(seen, [ASKED]) == [ASKED]
        quiet = silent(seen, ("why",), by_caller=True)
        assert (quiet.flow and quiet.flow.result, quiet.unresolved) == ("timeout", ("why",))

    def test_that_of_a_router_is_told_by_icmp(self) -> None:
        beyond = ASKED._replace(host="device")
        assert unreached(flow("unreachable"), [beyond]) == []
        waiting = changed(hops=(msgspec.structs.replace(hop("neigh_resolve_output"), host="device"),))
        seen = msgspec.structs.replace(flow("unreachable"), packets=(waiting,))
        assert unreached(seen, [beyond]) == [beyond]
        told = silent(seen, ("why",), by_caller=False)
        assert told.flow
        assert told.flow.result == "unreachable"

    def test_a_caller_whose_own_ruleset_rejects_is_told_by_that(self) -> None:
        rejected = dropped(step("reject"))
        seen = msgspec.structs.replace(flow("unreachable"), packets=(rejected,))
        told = silent(seen, ("why",), by_caller=True)
        assert told.flow
        assert told.flow.result == "unreachable"

    def test_what_succeeded_needs_no_reason(self) -> None:
        assert unreached(flow("connected"), [ASKED]) == []

    def test_in_words(self) -> None:
        refused = dropped(step("drop"))
        said = explain(ASKED_6, observation(refused), NETWORK)
        assert said.startswith(
            "client:eth0 could not resolve its neighbour 2001:db8:113::1 (device): its neighbour soli"
        )
        assert said.endswith("; accept icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }")
        assert "dropped on device by" in said
        answer = msgspec.structs.replace(refused, sender="device")
        assert ": the ARP reply was dropped on device by" in explain(ASKED, observation(answer), NETWORK)
        assert explain(ASKED, None, NETWORK).endswith("203.0.113.1 (device): no ARP reply came")


class TestContradiction:
    @pytest.mark.parametrize(
        ("result", "answers"),
        [("refused", [RESET]), ("unreachable", [UNREACHABLE]), ("timeout", []), ("timeout", [UNREACHABLE])],
    )
    def test_flows_that_packets_confirm(self, result: str, answers: list[bytes]) -> None:
        refuse_contradiction(flow(result, *map(other, answers)))

    @pytest.mark.parametrize(
        ("result", "answers"), [("refused", []), ("refused", [UNREACHABLE]), ("unreachable", [RESET])]
    )
    def test_flows_that_they_do_not(self, result: str, answers: list[bytes]) -> None:
        with pytest.raises(BrokenMeasurement, match=f"saw the flow {result}, but no "):
            refuse_contradiction(flow(result, *map(other, answers)))

    def test_what_was_not_seen_contradicts_nothing(self) -> None:
        refuse_contradiction(flow("refused", other(b"")))
        refuse_contradiction(flow("refused", whole=False))
