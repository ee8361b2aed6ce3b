"""The nf_tables trace of a loaded ruleset, from frames sent through a lab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from harness.lab.inject import Wire
from harness.lab.lab import Lab
from harness.model.observation import Step, Verdict
from harness.packets.headers import fields
from harness.ruleset.listing import Chain
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace import TraceMessage, TraceSocket
from harness.ruleset.nftrace_chains import TraceChains, commands, unused_table
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.wait import wait_until

EDGE = """flush ruleset
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "wan0" jump from_wan
	}
	chain from_wan {
		tcp dport 443 accept
		tcp dport 22 reject with tcp reset
		tcp dport 23 return
	}
}
table ip raw {
	chain first {
		type filter hook prerouting priority -2147483648; policy accept;
		tcp dport 7 drop
	}
}
"""


class Edge:
    """A lab with a traced ruleset, and packets from the client."""

    def __init__(self, lab: Lab, ruleset: Ruleset) -> None:
        self.lab = lab
        self.tracing = TraceChains(lab.device, ruleset)
        self._sender = Wire(lab.hosts["client"], "eth0")
        ours, device = (lab.network.hosts[name].interfaces[at] for name, at in (("client", "eth0"), ("device", "wan0")))
        self._ether = Ether(src=ours.mac, dst=device.mac)

    def inject(self, port: int, *, src: str = "203.0.113.5", dst: str = "10.0.2.2") -> None:
        """Send a SYN from the client."""
        self._sender.send(bytes(self._ether / IP(src=src, dst=dst) / TCP(dport=port)))

    def messages(self, last: str) -> list[tuple[TraceMessage, Step | None]]:
        """What the trace says of a packet whose last step is, in words, ``last``."""
        found: list[tuple[TraceMessage, Step | None]] = []

        def ended() -> bool:
            found.extend(self.tracing.read())
            return any(step and reported(step) == last for _, step in found)

        wait_until(ended, 5, f"the step {last!r}")
        return found

    def steps(self, port: int, *, last: str) -> list[str]:
        """The ruleset's steps in words."""
        self.inject(port)
        return [reported(step) for _, step in self.messages(last) if step]


def headers(step: Step) -> tuple[str, str, str | int | None]:
    found = fields(bytes(12) + b"\x08\x00" + step.headers) if step.headers else {}
    return step.iif, step.oif, found.get("dport")


def reported(step: Step) -> str:
    place = step.rule.position.line if step.rule and step.rule.position else step.kind
    chain = "" if step.chain.startswith("__chain") else f" {step.chain}"  # of a block: numbered
    return f"{step.hook}:{chain} {place} {step.verdict}"


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    file = tmp_path / "edge.nft"
    file.write_text(EDGE)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.build(Network.of(LABS["router"])))
        yield Edge(lab, Ruleset.load(lab.device, file))


@pytest.mark.kernel
def test_an_accepted_packet_shows_each_rule_on_its_way(edge: Edge) -> None:
    assert edge.steps(443, last="forward: from_wan 8 accept") == [
        "prerouting: first return continue",
        "prerouting: first policy accept",
        "forward: forward 5 jump",
        "forward: from_wan 8 accept",
    ]


@pytest.mark.kernel
def test_a_packet_that_no_rule_takes_meets_the_policy(edge: Edge) -> None:
    assert edge.steps(80, last="forward: forward policy drop")[2:] == [
        "forward: forward 5 jump",
        "forward: from_wan return continue",
        "forward: forward return continue",
        "forward: forward policy drop",
    ]


@pytest.mark.kernel
def test_a_return_by_a_rule_is_told_with_the_rule(edge: Edge) -> None:
    assert edge.steps(23, last="forward: forward policy drop")[2:] == [
        "forward: forward 5 jump",
        "forward: from_wan 10 return",
        "forward: forward return continue",
        "forward: forward policy drop",
    ]


@pytest.mark.kernel
def test_a_rejected_packet_is_dropped_by_the_rule_that_rejects(edge: Edge) -> None:
    last = "forward: from_wan 9 drop"
    assert edge.steps(22, last=last)[-1] == last


@pytest.mark.kernel
def test_even_a_chain_of_the_lowest_priority_is_traced(edge: Edge) -> None:
    last = "prerouting: first 16 drop"
    assert edge.steps(7, last=last) == [last]


@pytest.mark.kernel
def test_the_first_message_of_a_hook_carries_the_packet(edge: Edge) -> None:
    edge.inject(443)
    message, step = edge.messages("prerouting: first policy accept")[0]
    assert step is None  # of the chain that switches the trace on
    assert (message.family, message.packet_family, message.oif) == ("ip", "ip", 0)
    assert IP(message.network).dst == "10.0.2.2"
    assert TCP(message.transport).dport == 443
    assert message.iif


@pytest.mark.kernel
def test_the_messages_of_one_packet_share_an_id(edge: Edge) -> None:
    edge.inject(443)
    assert len({message.id for message, _ in edge.messages("forward: from_wan 8 accept")}) == 1


@pytest.mark.kernel
def test_a_jump_names_its_target(edge: Edge) -> None:
    edge.inject(443)
    steps = [step for _, step in edge.messages("forward: from_wan 8 accept") if step]
    assert [step.target for step in steps if step.verdict is Verdict.JUMP] == ["from_wan"]


@pytest.mark.kernel
def test_lost_messages_are_counted(edge: Edge) -> None:
    narrow = TraceSocket(edge.lab.device, buffer=4096)
    for _ in range(20):
        edge.inject(443)
    edge.messages("forward: from_wan 8 accept")
    narrow.read()
    assert narrow.overruns
    assert not edge.tracing.overruns


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["blocks", "commands", "includes", "families", "inline"])
def test_any_ruleset_can_be_traced(name: str) -> None:
    with Lab.build(Network.of(LABS["router"])) as lab:
        ruleset = Ruleset.load(lab.device, Path(__file__).parent / "zoo" / f"{name}.nft")
        assert TraceChains(lab.device, ruleset).read() == []


@pytest.mark.kernel
def test_a_rule_in_a_block_is_known() -> None:
    with Lab.build(Network.of(LABS["router"])) as lab:
        ruleset = Ruleset.load(lab.device, Path(__file__).parent / "zoo" / "inline.nft")
        edge = Edge(lab, ruleset)
        edge.inject(22, src="192.0.2.1", dst="203.0.113.1")
        steps = [step for _, step in edge.messages("input: 5 accept") if step]
        assert [step.rule.comment for step in steps if step.rule] == ["inline.nft:4", "inline.nft:5"]


def test_one_chain_for_each_hook_and_device_in_use() -> None:
    chains = [
        Chain(family="inet", table="a", name="one", hook="input"),
        Chain(family="inet", table="b", name="two", hook="input", priority=5),
        Chain(family="netdev", table="a", name="three", hook="ingress", devices=("wan0", "lan0")),
        Chain(family="ip", table="a", name="no hook"),
    ]
    added = [line for line in commands(Ruleset(chains, []), "ours").splitlines() if line.startswith("add chain")]
    first = "priority -2147483648; policy accept; }"
    assert added == [
        f"add chain inet ours input0 {{ type filter hook input {first}",
        f'add chain netdev ours ingress1 {{ type filter hook ingress device "wan0" {first}',
        f'add chain netdev ours ingress2 {{ type filter hook ingress device "lan0" {first}',
    ]


def test_the_tracing_table_has_a_name_of_its_own() -> None:
    taken = [Chain(family="ip", table="nft_harness", name="c"), Chain(family="ip", table="nft_harness_", name="c")]
    assert unused_table([Ruleset(taken, [])]) == "nft_harness__"


@pytest.mark.kernel
def test_the_first_step_of_each_base_chain_has_the_headers(edge: Edge) -> None:
    edge.inject(443)
    steps = [step for _, step in edge.messages("forward: from_wan 8 accept") if step]
    assert [headers(step) for step in steps] == [
        ("wan0", "", 443),
        ("", "", None),
        ("wan0", "lan0", 443),
        ("", "", None),
    ]


@pytest.mark.kernel
def test_a_policy_is_known_by_its_place(edge: Edge) -> None:
    edge.inject(80)
    policy = [step for _, step in edge.messages("forward: forward policy drop") if step][-1]
    assert policy.position
    assert policy.position.line == 4
