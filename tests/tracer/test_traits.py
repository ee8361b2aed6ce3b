"""Functions that the BPF program treats specially."""

from __future__ import annotations

import pytest

from harness.tracer.contract import Trait
from harness.tracer.discover import Function
from harness.tracer.traits import LIVE_TRAITS, SOURCES, TRAITS, evaluates, is_of_nf_tables


def function(name: str, carries: str = "nft_pktinfo", position: int = 2) -> Function:
    return Function(name=name, kernel_name=name, position=position, carries=carries, layer="Netfilter", priority=1)


@pytest.mark.parametrize(
    ("one", "is_expression"),
    [
        (function("nft_payload_eval"), True),
        (function("nft_match_eval_xt"), True),
        (function("nft_meta_bridge_eval_bridge"), True),
        (function("nft_payload_eval", position=1), False),
        (function("nft_payload_eval", "sk_buff"), False),
        (function("nft_do_chain"), False),
    ],
)
def test_an_expression_of_a_rule_is_known_by_its_arguments_and_name(one: Function, is_expression: bool) -> None:
    assert evaluates(one) is is_expression
    assert is_of_nf_tables(one) is (is_expression or one.name == "nft_do_chain")


def test_what_is_copied_is_followed_and_what_is_copied_from_is_known() -> None:
    copies = {name for name, trait in TRAITS.items() if trait & Trait.COPIES}
    assert {"skb_clone", "skb_copy", "skb_segment", "ip_frag_next"} <= copies
    assert SOURCES.keys() <= copies
    assert all(TRAITS[name] & Trait.COPIES for name, trait in TRAITS.items() if trait & Trait.LISTS)


def test_hooks_other_than_those_of_nf_tables_tell_their_verdict_in_a_live_trace() -> None:
    assert LIVE_TRAITS["nf_nat_ipv4_out"] == Trait.HOOKS | Trait.RETURNS
    assert TRAITS["nf_hook_slow"] | LIVE_TRAITS["nf_hook_slow"] == Trait.HOOKS | Trait.RETURNS
