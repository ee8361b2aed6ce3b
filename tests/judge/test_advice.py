"""What to do about a failure is said where its cause is known, and nothing is said otherwise."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import msgspec
import pytest

from harness.errors import Position
from harness.judge.advice import PAGE, advise, symptom
from harness.judge.evidence import Evidence
from harness.model.mismatch import Mismatch
from harness.model.observation import Delivery, Drop, ObservedPacket, Rule
from harness.packets.resolving import pair
from harness.reading.decision import outcome
from harness.scenario.models.expect import Expect
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import changed, dropped, frame, hop, observation, rule, step

ROUTER = Network.of(LABS["router"])
IN = hop("ip_rcv")
"""On the device, by wan0."""


def advice(
    expect: dict[str, object], packet: ObservedPacket, *rules: Rule, network: Network | None = None
) -> list[str]:
    wanted, seen = msgspec.convert(expect, Expect), outcome(packet, "device")
    return list(advise(Evidence(wanted, seen, observation(packet), packet, rules, network=network)))


def test_nothing_is_said_where_a_rule_drops_as_it_reads() -> None:
    assert advice({"verdict": "accept"}, dropped(step("drop", rule("tcp dport 22 drop")))) == []


@pytest.mark.parametrize("key", ["rule", "rules"])
def test_the_key_that_names_a_rule_which_is_not_there(key: str) -> None:
    wanted = {key: "tcp dport 23 accept" if key == "rule" else ["tcp dport 23 accept"], "verdict": "accept"}
    assert advice(wanted, dropped(step("drop")), rule("tcp dport 22 accept")) == [
        f"the ruleset has no such rule as the scenario expects: add it, or correct `{key}`"
    ]


def test_the_rule_that_should_have_accepted_what_the_policy_refused() -> None:
    ssh = rule("tcp dport 22 accept", line=7)
    expect = {"rule": ssh.text, "verdict": "accept"}
    assert advice(expect, dropped(step("drop")), ssh) == [
        "look at rulesets/edge.nft:7, the rule that the scenario expects: it did not match"
    ]
    elsewhere = rule(ssh.text, line=8, chain="inet filter input")
    assert advice(expect, dropped(step("drop")), elsewhere) == [
        "look at rulesets/edge.nft:8, the rule that the scenario expects: it was not reached"
    ]


def test_what_a_reason_means_depends_on_the_function() -> None:
    given_up = dropped(drop=Drop(host="device", function="ip_error", reason="IP_INADDRERRORS"))
    assert advice({"verdict": "accept"}, changed(given_up, hops=(IN,))) == [
        "set `forwarding: true` on this host of the lab"
    ]


class TestInterface:
    EXPECTED = rule('iifname "ppp*" accept', line=20, handle=12)

    def advice(self, packet: ObservedPacket, expected: Rule = EXPECTED) -> list[str]:
        return advice({"rule": expected.text}, packet, expected)

    def test_the_packet_came_in_by_another(self) -> None:
        packet = changed(hops=(hop("nft_do_chain", device=""), IN), steps=())
        assert self.advice(packet) == ["the expected rule asks for the interface ppp*, and the packet came in by wan0"]

    def test_it_came_in_by_that_one(self) -> None:
        assert self.advice(changed(hops=(hop("ip_rcv", device="ppp0"),), steps=())) == []

    def test_the_rule_asks_for_none(self) -> None:
        assert self.advice(changed(hops=(IN,), steps=()), rule("tcp dport 22 accept")) == []

    def test_the_packet_came_in_by_none(self) -> None:
        assert self.advice(changed(hops=(hop("ip_output", device=""),), steps=())) == []
        assert self.advice(changed(hops=(IN,), steps=(), sender="device")) == []


class TestDestination:
    NOBODY = "check the destination: no host of the lab has "

    def advice(self, packet: ObservedPacket, reason: str = "IP_INADDRERRORS", function: str = "ip_error") -> list[str]:
        drop = Drop(host="device", function=function, reason=reason)
        return advice({"delivered": "server"}, changed(packet, hops=(IN,), drop=drop), network=ROUTER)

    def test_as_it_was_sent(self) -> None:
        packet = changed(frame=frame(dst="192.168.10.20"), steps=(), deliveries=())
        assert self.advice(packet) == [f"{self.NOBODY}192.168.10.20"]
        assert self.advice(packet, "SOMETHING_ELSE", "ip6_forward") == [f"{self.NOBODY}192.168.10.20"]
        assert self.NOBODY not in "".join(self.advice(packet, "SOMETHING_ELSE"))

    def test_as_it_was_seen_last(self) -> None:
        """NAT has given it another one in between: what the trace or an interface saw later counts."""
        later = msgspec.structs.replace(step("accept"), time=7, headers=frame(dst="192.168.10.21")[14:])
        arrived = Delivery(time=5, host="client", device="eth0", frame=frame(dst="192.168.10.22"))
        packet = changed(frame=frame(dst="192.168.10.20"), steps=(later,), deliveries=(arrived,))
        assert self.advice(packet) == [f"{self.NOBODY}192.168.10.21"]
        earlier = msgspec.structs.replace(later, time=0)
        assert self.advice(changed(packet, steps=(earlier,))) == [f"{self.NOBODY}192.168.10.22"]
        assert self.advice(changed(packet, steps=(earlier,), deliveries=())) == [f"{self.NOBODY}192.168.10.21"]

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            ("10.0.2.99", "no host of the lab has 10.0.2.99, for which device asked"),
            ("2001:db8:2::99", "no host of the lab has 2001:db8:2::99, for which device asked"),
            ("192.168.10.20", f"{NOBODY}192.168.10.20"),
            ("10.0.2.2", f"{NOBODY}192.168.10.20"),
        ],
    )
    def test_a_next_hop_that_nobody_has(self, target: str, expected: str) -> None:
        asking = ROUTER.hosts["device"].interfaces["lan0"]
        question, answer = pair(asking, "02:00:00:00:00:03", ip_address(target), IPv6Address("2001:db8:2::1"))
        drop = Drop(host="device", function="neigh_invalidate", reason="NEIGH_FAILED")
        packet = changed(frame=frame(dst="192.168.10.20"), steps=(), deliveries=(), hops=(IN,), drop=drop)
        replies = tuple(Delivery(time=5, host="server", device="eth0", frame=one) for one in (answer, question))
        seen = msgspec.structs.replace(observation(packet), replies=replies)
        wanted = msgspec.convert({"delivered": "server"}, Expect)
        (said,) = advise(Evidence(wanted, outcome(packet, "device"), seen, packet, (), network=ROUTER))
        assert said.startswith(expected)

    def test_over_ipv6(self) -> None:
        headers = frame("2001:db8:113::5", "2001:db8:99::9")[14:]
        packet = changed(frame=b"", steps=(msgspec.structs.replace(step("accept"), headers=headers),), deliveries=())
        assert self.advice(packet) == [f"{self.NOBODY}2001:db8:99::9"]

    @pytest.mark.parametrize("dst", ["10.0.2.2", "224.0.0.1", "255.255.255.255"])
    def test_one_that_is_somebodys_or_everybodys(self, dst: str) -> None:
        packet = changed(frame=frame(dst=dst), steps=(), deliveries=())
        assert self.NOBODY not in "".join(self.advice(packet))

    def test_none_that_is_known(self) -> None:
        assert self.NOBODY not in "".join(self.advice(changed(frame=b"", steps=(), deliveries=())))
        arp = b"\xff" * 6 + bytes(6) + b"\x08\x06" + bytes.fromhex("0001080006040001") + bytes(20)
        assert self.NOBODY not in "".join(self.advice(changed(frame=arp, steps=(), deliveries=())))


TEXT = (Path(__file__).parents[2] / PAGE).read_text("utf-8")
HEADINGS = {
    re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-") for line in TEXT.splitlines() if line[:3] == "## "
}


def mismatch(*keys: str, expected: str = "x") -> Mismatch:
    return Mismatch(keys=("expect", *keys), position=Position("a.yaml", 1), expected=expected, seen="y")


@pytest.mark.parametrize(
    ("mismatches", "part"),
    [
        ([mismatch("verdict", expected="accept")], "my-packet-is-accepted-but-does-not-arrive"),
        ([mismatch("delivered", "to", expected="server")], "my-packet-is-accepted-but-does-not-arrive"),
        ([mismatch("verdict", expected="drop"), mismatch("rule")], "my-packet-should-have-been-dropped"),
        ([mismatch("verdict", expected="reject")], "my-packet-should-have-been-dropped"),
        ([mismatch("rules", "0")], "my-rule-is-not-reached"),
        ([mismatch("flow", "result")], "no-answer-comes-back"),
        ([mismatch("reply")], "no-answer-comes-back"),
        ([mismatch("delivered", "sees", "src")], "my-packet-is-not-translated"),
        ([mismatch("rule")], "my-rule-is-not-reached"),
        ([mismatch("mark")], ""),
        ([mismatch("delivered", expected="nowhere")], ""),
    ],
)
def test_a_failure_names_the_part_about_its_symptom(mismatches: list[Mismatch], part: str) -> None:
    assert symptom(mismatches) == part
    assert not part or part in HEADINGS


def test_a_failure_names_the_part_about_what_conntrack_considers_invalid() -> None:
    drop = [mismatch("verdict", expected="accept")]
    assert symptom(drop, ["conntrack considers the packet invalid: its TCP checksum is wrong"]) in HEADINGS
    assert symptom(drop, ["conntrack considers the packet invalid: its TCP checksum is wrong"]) != symptom(drop)
    assert symptom(drop, ["device does not forward IPv6"]) == symptom(drop)
