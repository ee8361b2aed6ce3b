"""Addresses of hosts around a machine."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from harness.twin import device, machine
from harness.twin.addresses import Addresses, within
from tests.twin.builders import addresses, link, output

NFT = "table ip t {\n\tchain c {\n\t\tip saddr { 192.168.1.66, 10.9.0.5, 127.0.0.1 } drop\n\t}\n}"


def chosen(**sections: Any) -> Addresses:
    """For a machine with a network at lan0, and 10.9.0.0/16 behind a router there."""
    given: dict[str, Any] = {
        "links": [link("wan0"), link("lan0")],
        "addresses": addresses(lan0=["192.168.1.1/24", "fd00:1::1/64"], wan0=["203.0.113.2/24"]),
        "nft": NFT,
        "routes4": [{"dst": "10.9.0.0/16", "gateway": "192.168.1.254", "dev": "lan0", "table": "254", "protocol": "4"}],
        **sections,
    }
    found = machine.read(output(**given))
    return Addresses(found, device.of(found))


def test_neighbours_are_those_that_routes_and_rules_name() -> None:
    assert dict(chosen().neighbours("lan0")) == {"192.168.1.254/24": "", "192.168.1.66/24": ""}
    assert dict(chosen().neighbours("wan0")) == {}


def test_hosts_behind_a_router_are_those_that_rules_name_and_one_more() -> None:
    one = chosen()
    assert one.behind("lan0") == [ip_network("10.9.0.0/16")]
    named, usual = one.of_hosts(one.behind("lan0"))
    assert named == "10.9.0.5/32"
    assert ip_address(usual.partition("/")[0]) in ip_network("10.9.0.0/16")


def test_a_free_address_is_nobodys() -> None:
    one = chosen()
    one.give("pc", ["192.168.1.2/24"])
    assert one.free(ip_network("192.168.1.0/24"), taken=["192.168.1.3/24"]) == "192.168.1.4/24"
    assert one.free(ip_network("192.168.1.1/32")) == ""


@pytest.mark.parametrize(("version", "length"), [(4, 30), (6, 64)])
def test_each_transit_is_a_network_of_its_own(version: int, length: int) -> None:
    one = chosen()
    first, second = one.transit(version), one.transit(version)
    assert first[0].network == first[1].network
    assert first[0].ip != first[1].ip
    assert first[0].network != second[0].network
    assert first[0].network.prefixlen == length


@pytest.mark.parametrize(
    ("address", "interface"),
    [("192.168.1.9", "lan0"), ("10.9.7.7", "lan0"), ("203.0.113.9", "wan0"), ("8.8.8.8", ""), ("fd00:1::9", "lan0")],
)
def test_the_interface_that_an_address_is_behind(address: str, interface: str) -> None:
    assert chosen().way_out(ip_address(address)) == interface


def test_an_address_is_in_no_network_of_the_other_version() -> None:
    assert within(ip_address("10.0.0.1"), ip_network("10.0.0.0/8"))
    assert not within(ip_address("::1"), ip_network("0.0.0.0/0"))
