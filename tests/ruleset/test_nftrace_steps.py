"""Which steps of a ruleset messages of the trace mean; traced packets are in test_nftrace_chains.py."""

from __future__ import annotations

from harness.errors import Position
from harness.model.observation import Step, Verdict
from harness.ruleset.listing import Chain
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace import TraceMessage
from harness.ruleset.nftrace_steps import TraceSteps
from tests import builders

RULE = builders.rule("tcp dport 443 accept", chain="inet filter from_wan", handle=9)
CHAINS = [
    Chain(
        family="inet", table="filter", name="forward", hook="forward", policy="drop", position=Position("edge.nft", 3)
    ),
    Chain(family="inet", table="filter", name="from_wan"),
]


def steps(*messages: TraceMessage) -> list[Step | None]:
    reading = TraceSteps("device", Ruleset(CHAINS, [RULE]), "ours", {2: "wan0"})
    return [reading.step(one) for one in messages]


def message(chain: str, kind: str, *, number: int = 7, table: str = "filter", handle: int = 0) -> TraceMessage:
    return TraceMessage(
        id=number, family="inet", table=table, chain=chain, kind=kind, verdict=Verdict.ACCEPT, handle=handle, iif=2
    )


def test_a_message_of_a_tracing_chain_means_no_step() -> None:
    assert steps(message("forward0", "rule", table="ours")) == [None]


def test_a_chain_without_a_hook_has_that_of_the_base_chain_that_the_packet_is_in() -> None:
    first, second = steps(message("forward", "rule"), message("from_wan", "rule", handle=9))
    assert first is not None
    assert second is not None
    assert (first.hook, second.hook) == ("forward", "forward")
    assert (second.host, second.rule, second.iif, second.oif) == ("device", RULE, "wan0", "")
    (of_another,) = steps(message("from_wan", "rule", number=8))
    assert of_another is not None
    assert of_another.hook == ""


def test_a_policy_stands_where_its_chain_says_it() -> None:
    policy, ended = steps(message("forward", "policy"), message("forward", "return"))
    assert policy is not None
    assert ended is not None
    assert (policy.position, ended.position) == (Position("edge.nft", 3), None)


def test_a_rule_that_is_not_listed_has_no_text() -> None:
    (unknown,) = steps(message("from_wan", "rule", handle=10))
    assert unknown is not None
    assert (unknown.kind, unknown.rule) == ("rule", None)
