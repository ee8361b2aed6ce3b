"""Nexthop objects and routes by them, as ip(8) shows them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import msgspec
import pytest

from harness.lab import changes as lab_changes
from harness.lab.lab import Lab
from harness.topology import changes
from harness.topology.changes import ChangeSpec
from harness.topology.network import Network
from harness.topology.spec import LabSpec

pytestmark = pytest.mark.kernel

SPEC = {
    "hosts": {
        "device": {
            "interfaces": {"wan1": ["198.51.100.2/24", "2001:db8:1::2/64"], "wan2": ["192.0.2.2/24"]},
            "nexthops": [
                {"id": 1, "via": "isp1"},
                {"id": 2, "via": "isp2"},
                {"id": 6, "via": "isp1", "family": "ip6"},
                {"id": 7, "dev": "wan2"},
                {"id": 8, "via": "fe80::1", "dev": "wan1"},
                {"id": 10, "group": [1, {"id": 2, "weight": 200}]},
            ],
            "routes": [
                {"to": "default", "nexthop": 10, "metric": 5},
                {"to": "default", "nexthop": 6},
                {"to": "10.7.0.0/16", "nexthop": 7, "table": 100},
                {"to": "2001:db8:8::/48", "nexthop": 8},
            ],
        },
        "isp1": {"interfaces": {"eth0": ["198.51.100.1/24", "2001:db8:1::1/64", "fe80::1/64"]}},
        "isp2": {"interfaces": {"eth0": ["192.0.2.1/24"]}},
    },
    "links": [["device:wan1", "isp1:eth0"], ["device:wan2", "isp2:eth0"]],
}


def shown(lab: Lab, *arguments: str) -> list[dict[str, Any]]:
    def run() -> str:
        return subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, check=True).stdout

    found: list[dict[str, Any]] = json.loads(lab.device.namespace.call(run))
    return found


def test_the_kernel_has_them() -> None:
    with Lab.build(Network.of(msgspec.convert(SPEC, LabSpec))) as lab:
        objects = {one["id"]: one for one in shown(lab, "nexthop")}
        assert objects[1]["gateway"] == "198.51.100.1"
        assert objects[6]["gateway"] == "2001:db8:1::1"
        assert objects[7]["dev"] == "wan2"
        assert objects[8]["gateway"] == "fe80::1"
        assert objects[10]["group"] == [{"id": 1}, {"id": 2, "weight": 200}]
        (default,) = shown(lab, "route", "show", "default")
        assert (default["nhid"], default["metric"]) == (10, 5)
        (other,) = shown(lab, "route", "show", "table", "100")
        assert (other["dst"], other["nhid"]) == ("10.7.0.0/16", 7)
        by_prefix = {one["dst"]: one.get("nhid") for one in shown(lab, "-6", "route")}
        assert (by_prefix["default"], by_prefix["2001:db8:8::/48"]) == (6, 8)


def test_steps_replace_and_delete_routes_by_them() -> None:
    with Lab.build(Network.of(msgspec.convert(SPEC, LabSpec))) as lab:
        for change, nhid in (
            ({"replace": {"routes": [{"to": "0.0.0.0/0", "nexthop": 2, "metric": 5}]}}, [2]),
            ({"delete": {"routes": [{"to": "0.0.0.0/0"}]}}, []),
            ({"add": {"routes": [{"to": "0.0.0.0/0", "nexthop": 10}]}}, [10]),
        ):
            lab_changes.apply(changes.plan(msgspec.convert(change, ChangeSpec), lab.network), lab)
            assert [one["nhid"] for one in shown(lab, "route", "show", "default")] == nhid
