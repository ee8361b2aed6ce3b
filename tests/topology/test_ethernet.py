"""Ethernet addresses of a lab."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from harness.topology.ethernet import group_mac, station_mac


@pytest.mark.parametrize(
    ("address", "mac"),
    [
        ("224.0.0.1", "01:00:5e:00:00:01"),
        ("239.129.1.2", "01:00:5e:01:01:02"),  # 23 bits of the group: RFC 1112 section 6.4
        ("ff02::1:ff00:7", "33:33:ff:00:00:07"),
        ("255.255.255.255", "ff:ff:ff:ff:ff:ff"),
    ],
)
def test_groups(address: str, mac: str) -> None:
    assert group_mac(ip_address(address)) == mac


def test_stations_of_large_labs_differ_and_are_locally_administered() -> None:
    numbers = [(1, 1), (1, 257), (257, 1), (255, 255), (256, 256)]
    macs = [station_mac(*one) for one in numbers]
    assert len(set(macs)) == len(numbers)
    assert macs[:3] == ["02:00:00:00:01:01", "02:00:00:01:01:01", "02:00:01:00:01:01"]
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}
