"""Settings of the kernel that a new namespace does not have."""

from __future__ import annotations

from tests.twin.builders import link, twin


def test_settings_that_a_new_namespace_does_not_have() -> None:
    made = twin(
        links=[link("eth0.5"), link("eth1"), link("br0", "bridge"), link("port0", master="br0")],
        sysctls="net/ipv4/ip_forward:1\nnet/ipv6/conf/all/forwarding:0\nnet/ipv4/conf/eth0.5/rp_filter:2\n"
        "net/ipv4/conf/gone0/rp_filter:2\nnet/ipv4/conf/eth1/forwarding:0\nnet/ipv4/conf/eth0.5/forwarding:1\n"
        "net/ipv4/conf/default/rp_filter:1\nnet/ipv4/tcp_fastopen_key:1\n"
        "net/netfilter/nf_conntrack_tcp_be_liberal:1\nnet/bridge/bridge-nf-call-iptables:1\n",
    )
    device = made.lab["hosts"]["device"]
    assert device["forwarding"] is True
    assert device["sysctls"] == {
        "net/ipv4/conf/eth0.5/rp_filter": 2,
        "net.ipv4.conf.eth1.forwarding": 0,
        "net.netfilter.nf_conntrack_tcp_be_liberal": 1,
        "net.bridge.bridge-nf-call-iptables": 1,
        "net.ipv6.conf.all.forwarding": 0,
    }
    assert device["modules"] == ["br_netfilter", "nf_conntrack"]
