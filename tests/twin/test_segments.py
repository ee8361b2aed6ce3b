"""Where packets get to that come in by a wire of the machine."""

from __future__ import annotations

from typing import Any

import pytest

from harness.twin.segments import segments

ADDRESS = ["192.0.2.1/24"]


def host(interfaces: dict[str, list[str]], **more: Any) -> dict[str, Any]:
    return {"interfaces": interfaces, "bridges": {}, "vlans": {}, "macvlans": {}, "ports": {}, **more}


def found(of: dict[str, Any], wire: str = "eth0") -> dict[str, tuple[int, ...]]:
    """The VLANs, from the outermost, by the interface that IP packets come in by."""
    return {one.interface: tuple(number for number, _ in one.tags) for one in segments(of, wire)}


PORTS = {"eth0": {"untagged": 1, "tagged": [7, 8, 9]}, "br0": {"untagged": 1, "tagged": [7]}}
BRIDGED: dict[str, Any] = {"bridges": {"br0": ["eth0", "eth1"]}}
VLAN = {"br0.7": {"link": "br0", "id": 7}}


@pytest.mark.parametrize(
    ("of", "where"),
    [
        (host({"eth0": ADDRESS}), {"eth0": ()}),
        (host({"eth0": [], "v7": ADDRESS}, vlans={"v7": {"link": "eth0", "id": 7}}), {"v7": (7,)}),
        (host({"eth0": ADDRESS, "v7": ADDRESS}, vlans={"v7": {"link": "eth0", "id": 7}}), {"v7": (7,), "eth0": ()}),
        (
            host(
                {"eth0": [], "s": [], "c": ADDRESS},
                vlans={"s": {"link": "eth0", "id": 100}, "c": {"link": "s", "id": 7}},
            ),
            {"c": (100, 7)},
        ),
        (host({"eth0": [], "m0": ADDRESS}, macvlans={"m0": {"link": "eth0"}}), {"m0": ()}),
        (host({"eth0": [], "eth1": [], "br0": ADDRESS}, **BRIDGED), {"br0": ()}),
        (
            host({"eth0": [], "eth1": [], "br0": ADDRESS, "br0.7": ADDRESS}, **BRIDGED, ports=PORTS, vlans=VLAN),
            {"br0": (), "br0.7": (7,), "br0 8": (8,), "br0 9": (9,)},
        ),
        (host({"eth0": [], "eth1": [], "br0": ADDRESS}, **BRIDGED, ports={"br0": {"untagged": 1}}), {}),
    ],
    ids=["a wire", "a VLAN", "both", "a VLAN in a VLAN", "a macvlan", "a bridge", "one that filters", "a closed port"],
)
def test_the_interfaces_behind_a_wire(of: dict[str, Any], where: dict[str, tuple[int, ...]]) -> None:
    assert found(of) == where
