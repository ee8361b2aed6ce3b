"""Addresses that rules give to the device and to hosts behind its interfaces."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from harness.generate.addresses import overlapping, wanted
from harness.generate.simulate import SimulatedRuleset
from tests.listings import match, table

ACCEPT: dict[str, Any] = {"accept": None}


def interface(key: str, name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}}


def found(*rule: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Of a rule of a chain at the hook forward: address, network, interface, whether it is the device's."""
    ruleset = SimulatedRuleset(table([*rule]))
    return [(str(one.address), str(one.network), one.interface, one.is_devices) for one in wanted(ruleset)]


OF_WEB = match("ip", "daddr", "10.7.0.9")


@pytest.mark.parametrize(
    ("rule", "addresses"),
    [
        ([OF_WEB, interface("oifname", "dmz0"), ACCEPT], [("10.7.0.9", "10.7.0.0/24", "dmz0", False)]),
        ([OF_WEB, ACCEPT], [("10.7.0.9", "10.7.0.0/24", "", False)]),
        ([match("ip", "daddr", "198.18.0.9"), ACCEPT], [("198.18.0.9", "198.18.0.0/24", "", False)]),
        ([match("ip", "daddr", "8.8.8.8"), ACCEPT], []),  # nobody of the lab
        (
            [match("ip", "saddr", "10.7.0.9"), interface("iifname", "lan0"), ACCEPT],
            [("10.7.0.9", "10.7.0.0/24", "lan0", False)],
        ),
        ([match("ip", "saddr", "10.7.0.9"), {"drop": None}], []),  # any host can send with it
        (
            [match("ip", "daddr", {"prefix": {"addr": "10.7.0.0", "len": 16}}), ACCEPT],
            [("10.7.0.2", "10.7.0.0/24", "", False)],
        ),
        (
            [match("ip", "daddr", {"prefix": {"addr": "10.7.0.128", "len": 25}}), ACCEPT],
            [("10.7.0.130", "10.7.0.128/25", "", False)],
        ),
        ([match("ip6", "daddr", "fd00:7::9"), ACCEPT], [("fd00:7::9", "fd00:7::/64", "", False)]),
        ([match("ip", "daddr", "127.0.0.1"), ACCEPT], []),
        ([match("ip", "daddr", "224.0.0.251"), ACCEPT], []),
        ([match("ip", "daddr", "10.7.0.999"), ACCEPT], []),
    ],
)
def test_those_of_a_rule_about_forwarded_packets(
    rule: list[dict[str, Any]], addresses: list[tuple[str, str, str, bool]]
) -> None:
    assert found(*rule) == addresses


def test_a_translated_address_is_the_devices_and_its_target_a_hosts() -> None:
    dnat = {"dnat": {"addr": "10.7.0.9", "port": 80}}
    assert found(match("ip", "daddr", "203.0.113.9"), interface("iifname", "wan0"), dnat) == [
        ("203.0.113.9", "203.0.113.0/24", "wan0", True),
        ("10.7.0.9", "10.7.0.0/24", "", False),
    ]
    snat = {"snat": {"addr": "203.0.113.7"}}
    assert found(interface("oifname", "wan0"), snat) == [("203.0.113.7", "203.0.113.0/24", "wan0", True)]


def test_a_broadcast_address_is_nobodys() -> None:
    assert found(match("ip", "daddr", "10.7.0.255"), ACCEPT) == []


def test_senders_of_a_chain_at_an_interface_are_behind_that() -> None:
    ruleset = SimulatedRuleset(table([match("ip", "saddr", "192.0.2.4"), ACCEPT]))
    (key, chain), *_ = ruleset.chains.items()
    ruleset.chains[key] = chain._replace(hook="ingress", devices=("up0",))
    assert [(str(one.address), one.interface) for one in wanted(ruleset)] == [("192.0.2.4", "up0")]


def test_networks_overlap_within_an_ip_version() -> None:
    network = ip_network("10.7.0.0/24")
    assert overlapping(network, [ip_network("fd00::/8"), ip_network("10.0.0.0/8")])
    assert not overlapping(network, [ip_network("10.8.0.0/16"), ip_network("::/0")])
