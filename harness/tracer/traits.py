"""Functions that the BPF program treats specially, by name; what each trait means: :class:`Trait`."""

from __future__ import annotations

from harness.tracer.contract import Trait
from harness.tracer.discover import Function

NOTIFY = "nft_trace_notify"

TRAITS = {
    NOTIFY: Trait.NOTIFIES,
    "nft_do_chain": Trait.RETURNS | Trait.CHAIN,
    "nf_hook_slow": Trait.RETURNS,
    "ip_route_input_noref": Trait.RETURNS,
    "packet_rcv": Trait.CAPTURES,
    "tpacket_rcv": Trait.CAPTURES,
    "skb_clone": Trait.COPIES,
    "skb_copy": Trait.COPIES,
    "skb_copy_expand": Trait.COPIES,
    "__pskb_copy_fclone": Trait.COPIES,
    "skb_morph": Trait.COPIES,
    "ip_frag_next": Trait.COPIES,
    "ip6_frag_next": Trait.COPIES,
    "skb_segment": Trait.COPIES | Trait.LISTS,
    "skb_segment_list": Trait.COPIES | Trait.LISTS,
    "skb_release_head_state": Trait.RELEASES,
    "__kfree_skb": Trait.RELEASES,
    "kfree_skbmem": Trait.RELEASES,
    "skb_attempt_defer_free": Trait.RELEASES,  # another CPU frees it, once that receives something
}
"""Traits of functions by name; of others only that the packet met them is recorded."""

LIVE_TRAITS = {
    **dict.fromkeys(("ip_route_input_noref", "ip6_route_input"), Trait.ROUTES),
    "nf_hook_slow": Trait.HOOKS,
    "kfree_skbmem": Trait.FREES,
    **dict.fromkeys(
        (
            *("ipv4_conntrack_defrag", "ipv6_defrag"),
            *("ipv4_conntrack_in", "ipv4_conntrack_local", "ipv6_conntrack_in", "ipv6_conntrack_local"),
            *("nf_confirm", "ipv4_confirm", "ipv6_confirm", "nf_ct_bridge_pre", "nf_ct_bridge_post"),
            *("nf_nat_ipv4_pre_routing", "nf_nat_ipv4_in", "nf_nat_ipv4_local_in", "nf_nat_ipv4_local_fn"),
            *("nf_nat_ipv4_out", "nf_nat_ipv6_in", "nf_nat_ipv6_local_in", "nf_nat_ipv6_local_fn", "nf_nat_ipv6_out"),
            *("ipt_do_table", "ip6t_do_table", "arpt_do_table", "ebt_do_table"),
            *("ipv4_synproxy_hook", "ipv6_synproxy_hook", "nf_flow_offload_ip_hook", "nf_flow_offload_ipv6_hook"),
            *("br_nf_pre_routing", "br_nf_forward_ip", "br_nf_forward", "br_nf_post_routing", "br_nf_local_in"),
            *("selinux_ip_forward", "selinux_ip_postroute", "selinux_ip_output"),
        ),
        Trait.HOOKS | Trait.RETURNS,
    ),
}
"""Traits that functions have in a live trace in addition; most are netfilter hooks other than those of nf_tables."""

SOURCES = {"skb_morph": 1}
"""The argument that is copied from, for functions where that is not the first ``struct sk_buff *``."""

ALLOCATORS = ("__alloc_skb", "__build_skb", "build_skb", "slab_build_skb", "napi_build_skb")
"""Functions that allocate an sk_buff; only the first exists on every kernel."""


def evaluates(function: Function) -> bool:
    """Whether it is an expression of a rule: ``void eval(expr, regs, pkt)`` of ``struct nft_expr_ops``."""
    return (function.carries, function.position) == ("nft_pktinfo", 2) and function.name.endswith(
        ("_eval", "_eval_xt", "_eval_bridge")
    )


def is_of_nf_tables(function: Function) -> bool:
    """Whether it evaluates a chain or an expression."""
    return evaluates(function) or bool(TRAITS.get(function.name, 0) & Trait.CHAIN)
