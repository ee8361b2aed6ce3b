"""Which settings a lab may change."""

from __future__ import annotations

import pytest

from harness.model.problem import Problem
from harness.topology import sysctls


@pytest.mark.parametrize(
    "name",
    [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all.rp_filter",
        "net/ipv4/conf/eth0.100/rp_filter",
        "net.ipv6.conf.lan0.accept_ra",
        "net.ipv4.neigh.lan0.mcast_solicit",
        "net.netfilter.nf_conntrack_tcp_loose",
        "net.bridge.bridge-nf-call-iptables",
    ],
)
def test_what_is_a_namespaces_own_may_be_set(name: str) -> None:
    sysctls.check(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("kernel.modprobe", "is not a setting of a network namespace"),
        ("vm.swappiness", "is not a setting of a network namespace"),
        ("net.netfilter.nf_hooks_lwtunnel", "may change the whole kernel"),
        ("net/netfilter/nf_hooks_lwtunnel", "may change the whole kernel"),
        ("net.netfilter.nf_conntrack_buckets", "may change the whole kernel"),
        ("net.netfilter.nf_log_all_netns", "may change the whole kernel"),
        ("net.core.bpf_jit_enable", "may change the whole kernel"),
        ("net.core.default_qdisc", "may change the whole kernel"),
        ("net.ipv4.tcp_allowed_congestion_control", "may change the whole kernel"),
        ("net.ipv4.tcp_mem", "may change the whole kernel"),
        ("net/ipv4/conf/../ip_forward", "may change the whole kernel"),
        ("net/ipv4/../../kernel/modprobe", "may change the whole kernel"),
        ("net.ipv4.conf.all.", "may change the whole kernel"),
        ("", "is not a setting"),
    ],
)
def test_everything_else_is_refused(name: str, why: str) -> None:
    with pytest.raises(Problem, match=why):
        sysctls.check(name)
