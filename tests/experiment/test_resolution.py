"""What is made of neighbours that were resolved, or not, beside a flow."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.experiment.resolution import explain, unreached
from harness.judge.flow import refuse_contradiction
from harness.lab.neighbours import Query
from harness.model.observation import Drop, Flow, Observation, ObservedPacket
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import PASSED, changed, dropped, frame, observation, step

RESET = frame()[:47] + b"\x14" + frame()[48:]
UNREACHABLE = bytes(12) + bytes.fromhex("0800 45000038000000004001 0000") + bytes(8) + b"\x03\x03" + bytes(26)
ASKED = Query("client", "eth0", IPv4Address("203.0.113.1"))
ASKED_6 = Query("client", "eth0", IPv6Address("2001:db8:113::1"), IPv6Address("2001:db8:113::5"))
NETWORK = Network.of(LABS["router"])


def flow(result: str, *others: ObservedPacket, **more: object) -> Observation:
    ended = Flow(result=result, host="client")
    return msgspec.structs.replace(observation(PASSED), packets=(PASSED, *others), flow=ended, **more)


def other(seen: bytes, **more: object) -> ObservedPacket:
    return changed(number=1, injected=False, frame=seen, deliveries=(), **more)


class TestUnreached:
    def test_a_packet_was_dropped_for_it(self) -> None:
        waiting = changed(drop=Drop(host="client", function="__neigh_event_send", reason="NEIGH_FAILED"))
        seen = msgspec.structs.replace(flow("timeout"), packets=(waiting,))
        assert unreached(seen, [ASKED, ASKED._replace(host="device")]) == [ASKED]

    def test_others_failed_that_no_packet_needed(self) -> None:
        refused = dropped(step("drop"))
        assert unreached(msgspec.structs.replace(flow("timeout"), packets=(refused,)), [ASKED]) == []
        assert unreached(flow("timeout"), [ASKED._replace(host="device")]) == []

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
