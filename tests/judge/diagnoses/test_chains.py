"""An accept ends its own base chain only."""

from __future__ import annotations

from tests.builders import advice, dropped, rule, step

LXD = rule("iifname lan0 accept", line=2, chain="inet lxd fwd")
PASS = {"verdict": "accept", "delivered": "server"}
ACCEPTED = step("accept", LXD, chain="inet lxd fwd", hook="forward")
REFUSED = step("drop", chain="ip filter FORWARD", hook="forward")
SAID = (
    "inet lxd fwd accepted the packet (rulesets/edge.nft:2), but an accept ends its own base chain only: "
    "ip filter FORWARD, of the same hook, was evaluated after it and dropped the packet; accept it there too"
)


class TestSameHook:
    def test_both_chains_are_named(self) -> None:
        assert advice(PASS, dropped(ACCEPTED, REFUSED)) == [SAID]

    def test_a_rule_may_refuse_too(self) -> None:
        ban = step("reject", rule("reject", chain="ip filter FORWARD"), chain="ip filter FORWARD", hook="forward")
        (said,) = advice(PASS, dropped(ACCEPTED, ban))
        assert said.endswith("was evaluated after it and rejected the packet; accept it there too")

    def test_the_accept_of_a_called_chain_ends_its_base_chain(self) -> None:
        jump = step("jump", rule("jump web", chain="inet a main"), chain="inet a main", hook="forward", target="web")
        accept = step("accept", rule("accept", line=7, chain="inet a web"), chain="inet a web", hook="forward")
        (said,) = advice(PASS, dropped(jump, accept, REFUSED))
        assert said.startswith("inet a main accepted the packet (rulesets/edge.nft:7), but")

    def test_not_when_only_the_policy_accepted(self) -> None:
        (said,) = advice(PASS, dropped(step("accept", chain="inet lxd fwd", hook="forward"), REFUSED))
        assert said == "no rule of ip filter FORWARD decided, so its policy did: add a rule that accepts this packet"

    def test_not_when_a_drop_is_expected(self) -> None:
        assert advice({"verdict": "drop", "rule": "policy"}, dropped(ACCEPTED, REFUSED)) == []

    def test_not_for_the_forward_hook_of_bridges(self) -> None:
        bridge = step("accept", rule("accept", chain="bridge b forward"), chain="bridge b forward", hook="forward")
        assert not [said for said in advice(PASS, dropped(bridge, REFUSED)) if "accept ends" in said]


class TestLaterHook:
    EARLY = step("accept", rule("accept", line=3, chain="inet f pre"), chain="inet f pre", hook="prerouting")

    def test_the_expected_rule_accepts_at_an_earlier_hook(self) -> None:
        assert advice({**PASS, "rule": "edge.nft:3"}, dropped(self.EARLY, REFUSED)) == [
            (
                "the accept of rulesets/edge.nft:3 ends its own base chain only, at hook prerouting: ip filter "
                "FORWARD, at hook forward, was evaluated after it and dropped the packet; accept it there too"
            )
        ]

    def test_not_for_an_accept_that_nobody_counted_on(self) -> None:
        (said,) = advice(PASS, dropped(self.EARLY, REFUSED))
        assert "add a rule" in said
