"""Packets that found no program on the device."""

from __future__ import annotations

import msgspec
import pytest

from harness.model.observation import Delivery, Drop, Flow, ObservedPacket, Step
from harness.topology.network import Network
from harness.topology.spec import LabSpec
from tests.builders import advice, at, base, changed, headers, rule, step

TAKEN = Delivery(time=1, host="device", device="wan0", frame=b"")
INPUT = at(step("accept", chain="inet f input"), headers=headers())
BAD = rule("ip saddr 192.0.2.6 drop", line=4, handle=4, chain="inet f input", comment="bad guy")


def unheard(*steps: Step, reason: str = "NO_SOCKET", function: str = "tcp_v4_rcv") -> ObservedPacket:
    drop = Drop(host="device", function=function, reason=reason)
    return changed(steps=steps or (INPUT,), hops=(), deliveries=(TAKEN,), drop=drop)


class TestNoSocket:
    def test_a_rule_should_have_dropped(self) -> None:
        assert advice({"verdict": "drop", "rule": "bad guy"}, unheard(), rules=(BAD,)) == [
            "look at rulesets/edge.nft:4, which the scenario expects to refuse the packet: it did not match"
        ]

    def test_no_rule_is_named(self) -> None:
        assert advice({"verdict": "drop"}, unheard(), rules=(BAD,)) == [
            (
                "the ruleset accepted the packet (inet f input, policy accept); that device has no socket for it is "
                "not the ruleset's doing: add a rule that refuses it, or expect `verdict: accept`"
            )
        ]

    def test_what_is_known_of_the_rule_comes_first(self) -> None:
        limit = rule("limit rate 3/minute drop", line=4, handle=4, chain="inet f input")
        (said,) = advice({"verdict": "drop", "rule": limit.text}, unheard(), rules=(limit,))
        assert "did not match because its limit was exceeded" in said
        forward = rule("drop", line=4, handle=4, chain="inet f forward")
        (said,) = advice(
            {"verdict": "drop", "rule": "drop"},
            unheard(),
            rules=(forward,),
            policies=(base("inet f input"), base("inet f forward")),
        )
        assert said.endswith("the packet was for device itself: a rule for it belongs at hook input")

    def test_another_host_should_have_got_it(self) -> None:
        expect = {"delivered": "server"}
        where = "the packet was for device itself, where no socket listens, and not for server: "
        assert advice(expect, unheard()) == [f"{where}no rule changed its destination"]
        redirect = step(
            "accept", rule("redirect to :8080", line=2, chain="ip n pre"), chain="ip n pre", hook="prerouting"
        )
        assert advice(expect, unheard(redirect, INPUT)) == [f"{where}rulesets/edge.nft:2 sent it there"]

    def test_an_answer_should_have_come(self) -> None:
        assert advice({"reply": {"tcp": {"flags": "SA"}}}, unheard()) == [
            "no socket of device listens there: start a program in a step before, `listen: {on: device, …}`"
        ]

    @pytest.mark.parametrize(
        ("yaml", "packet"),
        [
            ({"mark": 3}, unheard()),
            ({"reply": {"icmp": {}}}, unheard()),
            ({"delivered": "nowhere"}, unheard()),
            ({"delivered": "server"}, unheard(reason="TCP_CSUM")),
        ],
    )
    def test_near_misses(self, yaml: dict[str, object], packet: ObservedPacket) -> None:
        assert not [line for line in advice(yaml, packet) if "socket" in line]


class TestQueue:
    @pytest.mark.parametrize(("text", "number"), [("queue to 3", " 3"), ("queue num 7", " 7"), ("counter queue", "")])
    def test_no_program_reads_it(self, text: str, number: str) -> None:
        packet = unheard(step("queue", rule(text, line=8)), reason="NOT_SPECIFIED", function="nf_queue")
        assert advice({"verdict": "accept"}, packet) == [
            (
                f"rulesets/edge.nft:8 sent the packet to queue{number}, which no program on device reads or which is "
                "full, so the kernel dropped it; with `flags bypass` it goes on"
            )
        ]

    def test_near_misses(self) -> None:
        queued = step("queue", rule("queue to 3", line=8))
        held = changed(steps=(queued,), hops=(), deliveries=(TAKEN,))
        by_program = unheard(queued, reason="NOT_SPECIFIED", function="nf_reinject")
        for packet in (held, by_program):
            assert not [line for line in advice({"verdict": "accept"}, packet) if "queue" in line]


class TestVrf:
    SPEC = {
        "hosts": {
            "client": {
                "interfaces": {"eth0": ["203.0.113.5/24"], "red": []},
                "vrfs": {"red": {"table": 9, "interfaces": ["eth0"]}},
            },
            "device": {"interfaces": {"wan0": ["203.0.113.1/24"]}},
        },
        "links": [["client:eth0", "device:wan0"]],
    }

    def test_a_program_outside_of_it(self) -> None:
        network = Network.of(msgspec.convert(self.SPEC, LabSpec))
        unsent = changed(
            frame=b"", hops=(), steps=(), deliveries=(), drop=Drop(host="client", function="connect", reason="x")
        )
        for host, error, known in (
            ("client", "ENETUNREACH", True),
            ("device", "ENETUNREACH", False),
            ("client", "EPERM", False),
        ):
            flow = Flow(result="unsent", host=host, error=error)
            said = advice({"flow": "connected"}, unsent, network=network, flow=flow)
            expected = ["the program on client is not bound to the VRF red, so it does not use the routes there"]
            assert said == (expected if known else [])

    def test_one_of_several(self) -> None:
        client = {
            "interfaces": {"eth0": ["203.0.113.5/24"], "eth1": [], "red": [], "blue": []},
            "vrfs": {"red": {"table": 9, "interfaces": ["eth0"]}, "blue": {"table": 8, "interfaces": ["eth1"]}},
        }
        hosts = {**self.SPEC["hosts"], "client": client}
        links = [["client:eth0", "device:wan0"], ["client:eth1", "device:lan0"]]
        hosts["device"] = {"interfaces": {"wan0": ["203.0.113.1/24"], "lan0": []}}
        network = Network.of(msgspec.convert({"hosts": hosts, "links": links}, LabSpec))
        flow = Flow(result="unsent", host="client", error="ENETUNREACH")
        unsent = changed(
            frame=b"", hops=(), steps=(), deliveries=(), drop=Drop(host="client", function="connect", reason="x")
        )
        assert advice({"flow": "connected"}, unsent, network=network, flow=flow) == [
            "the program on client is not bound to the VRF red or blue, so it does not use the routes there"
        ]
