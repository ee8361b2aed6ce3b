"""What pyroute2 writes for each part of a lab."""

from __future__ import annotations

import gc
import socket
import warnings
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_interface, ip_network

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from harness.lab import requests
from harness.topology.parts import Passing, RoutingRule, Tunnel, Vlan


def test_a_rule_without_a_priority_leaves_it_to_the_kernel() -> None:
    plain = RoutingRule(4, ip_network("192.0.2.0/24"), None, None, None, "", "", "unicast", 4000, None)
    message = fibmsg(requests.rule(plain).data)
    message.decode()
    assert message.get_attr("FRA_PRIORITY") is None
    assert (message.get_attr("FRA_TABLE"), message["src_len"]) == (4000, 24)
    message = fibmsg(requests.rule(plain._replace(priority=0, mark=0xFFFFFFFF, mask=0)).data)
    message.decode()
    assert [message.get_attr(f"FRA_{name}") for name in ("PRIORITY", "FWMARK", "FWMASK")] == [0, 0xFFFFFFFF, 0]


def test_an_address_is_usable_at_once() -> None:
    message = ifaddrmsg(requests.address(ip_interface("2001:db8::1/64"), 7).data)
    message.decode()
    assert message.get_attr("IFA_FLAGS") == requests.IFA_F_NODAD | requests.IFA_F_PERMANENT
    assert (message["family"], message["prefixlen"], message["index"]) == (socket.AF_INET6, 64, 7)


def test_the_vlans_of_a_port() -> None:
    message = ifinfmsg(requests.passing(7, Passing(1, (2, 4094)), "port", is_bridge=False).data)
    message.decode()
    assert [vlan["vid"] for vlan in message.get_attr("IFLA_AF_SPEC").get_attrs("IFLA_BRIDGE_VLAN_INFO")] == [2, 4094, 1]


def test_a_thread_of_its_own_writes_the_same() -> None:
    here = requests.alias(3, "words")
    requests.alias.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(1) as thread:
            there = thread.submit(requests.alias, 3, "words").result()
        gc.collect()
    assert (there.what, there.data[16:]) == (here.what, here.data[16:])


def test_a_vlan_of_a_provider_and_a_tunnel_with_a_key() -> None:
    outer = requests.made(Vlan("eth0", 100, "802.1ad"), "s100", 7, "02:00:00:00:00:07", None, {"eth0": 3})
    found = ifinfmsg(outer.data)
    found.decode()
    data = found.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_VLAN_ID"), data.get_attr("IFLA_VLAN_PROTOCOL")) == (100, 0x88A8)
    gre = Tunnel("gre", ip_address("192.0.2.1"), ip_address("192.0.2.2"), 7)
    found = ifinfmsg(requests.made(gre, "gre1", 8, "02:00:00:00:00:08", None, {}).data)
    found.decode()
    data = found.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert {name: data.get_attr(f"IFLA_GRE_{name}") for name in ("LOCAL", "REMOTE", "IKEY", "OKEY")} == {
        "LOCAL": "192.0.2.1",
        "REMOTE": "192.0.2.2",
        "IKEY": 7,
        "OKEY": 7,
    }
    assert found.get_attr("IFLA_ADDRESS") is None
