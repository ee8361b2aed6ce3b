from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.model import layers
from harness.model.layers import CRITICAL, IMPORTANT, NAMES, OTHER, UNKNOWN

FILE = Path(layers.__file__).with_name("layers.txt")
LINES = [line.split() for line in FILE.read_text().splitlines() if line.startswith("  ")]


@pytest.mark.parametrize(
    ("function", "layer", "priority"),
    [
        ("__netif_receive_skb_core", "Device", CRITICAL),
        ("veth_xmit", "Device", CRITICAL),
        ("napi_gro_receive", "GRO", IMPORTANT),
        ("br_handle_frame_finish", "Bridge", CRITICAL),
        ("skb_vlan_untag", "VLAN", IMPORTANT),
        ("arp_rcv", "ARP", CRITICAL),
        ("neigh_resolve_output", "Neighbour", CRITICAL),
        ("ndisc_rcv", "Neighbour", IMPORTANT),
        ("ip_rcv", "IPv4", CRITICAL),
        ("ip_rcv_core", "IPv4", CRITICAL),
        ("ip_rcv_finish", "IPv4", CRITICAL),
        ("ip_forward", "IPv4", CRITICAL),
        ("ip_forward_finish", "IPv4", CRITICAL),
        ("__ip_local_out", "IPv4", CRITICAL),
        ("ip_output", "IPv4", CRITICAL),
        ("__ip_finish_output", "IPv4", CRITICAL),
        ("ip_finish_output2", "IPv4", CRITICAL),
        ("ipv6_rcv", "IPv6", CRITICAL),
        ("ip6_forward", "IPv6", CRITICAL),
        ("__icmp_send", "ICMP", CRITICAL),
        ("icmpv6_rcv", "ICMP", CRITICAL),
        ("igmp_rcv", "Multicast", IMPORTANT),
        ("ip_route_input_noref", "Routing", CRITICAL),
        ("fib_validate_source", "Routing", IMPORTANT),
        ("fib_table_lookup", "Routing", IMPORTANT),
        ("nf_hook_slow", "Netfilter", CRITICAL),
        ("nft_do_chain", "Netfilter", CRITICAL),
        ("nft_do_chain_inet", "Netfilter", CRITICAL),
        ("nft_lookup_eval", "Netfilter", IMPORTANT),
        ("nf_send_reset", "Netfilter", CRITICAL),
        ("nf_send_unreach6", "Netfilter", CRITICAL),
        ("nft_reject_inet_eval", "Netfilter", IMPORTANT),
        ("nf_conntrack_in", "Conntrack", CRITICAL),
        ("nft_ct_get_eval", "Conntrack", IMPORTANT),
        ("nf_nat_ipv4_pre_routing", "NAT", IMPORTANT),
        ("nft_masq_eval", "NAT", IMPORTANT),
        ("nft_flow_offload_eval", "Flowtable", OTHER),
        ("tcp_v4_rcv", "TCP", CRITICAL),
        ("udp_queue_rcv_one_skb", "UDP", CRITICAL),
        ("sctp_rcv", "SCTP", CRITICAL),
        ("__dev_queue_xmit", "Xmit", CRITICAL),
        ("dev_hard_start_xmit", "Xmit", CRITICAL),
        ("sch_direct_xmit", "Qdisc", CRITICAL),
        ("xfrm4_policy_check", "XFRM", IMPORTANT),
        ("vxlan_xmit", "Tunnel", IMPORTANT),
        ("skb_clone", "Buffer", CRITICAL),
        ("kfree_skb_reason", "Free", CRITICAL),
        ("sk_skb_reason_drop", "Free", CRITICAL),
        ("consume_skb", "Free", CRITICAL),
        ("nft_lookup_dump", "Netlink", OTHER),
        ("rtnl_fill_ifinfo", "Netlink", OTHER),
    ],
)
def test_a_function_has_its_layer_and_priority(function: str, layer: str, priority: int) -> None:
    assert layers.classify(function) == (layer, priority)
    assert (layers.layer(function), layers.priority(function)) == (layer, priority)


def test_compiler_suffixes_and_leading_underscores_say_nothing() -> None:
    for name in ("ip_fragment", "__ip_fragment", "ip_fragment.isra.0", "ip_fragment.constprop.0.isra.0"):
        assert layers.layer(name) == "IPv4"


def test_a_function_that_nobody_spoke_of_is_unknown() -> None:
    assert layers.classify("schedule") == (UNKNOWN, OTHER)
    assert UNKNOWN not in NAMES


def test_the_whole_name_wins_then_the_longest_text_before_the_star_then_after_it() -> None:
    rules = layers._Rules(
        "A: a\n  2  nft_* *_dump\n"
        "B: b\n  1  nft_meta_* nft_*_dump\n"
        "C: c\n  0  nft_meta_set_dump\n  1  nft_meta_*_dump\n"
    )
    found = {
        name: rules.place(name).layer
        for name in ("nft_x", "xt_dump", "nft_x_dump", "nft_meta_x", "nft_meta_set_dump", "nft_meta_get_dump", "dump")
    }
    assert found == {
        "nft_x": "A",
        "xt_dump": "A",
        "nft_x_dump": "B",
        "nft_meta_x": "B",
        "nft_meta_set_dump": "C",
        "nft_meta_get_dump": "C",
        "dump": UNKNOWN,
    }


def test_the_file_is_in_order() -> None:
    patterns = Counter(pattern for _, *patterns in LINES for pattern in patterns)
    assert [pattern for pattern, count in patterns.items() if count > 1] == [], "patterns that are there twice"
    for priority, *names in LINES:
        assert priority in ("0", "1", "2")
        for name in names:
            assert name.count("*") <= 1, name
            assert not name.startswith("_"), f"{name}: leading underscores are left out"
            assert "*" not in name or priority != "0", f"{name}: a critical function is named in full"
    assert len(set(NAMES)) == len(NAMES)


def test_every_critical_function_has_a_layer() -> None:
    critical = {name for priority, *names in LINES if priority == "0" for name in names}
    assert {layers.layer(name) for name in critical} <= set(NAMES)
    assert all(layers.priority(name) == CRITICAL for name in critical)
    assert 50 < len(critical) < 200
