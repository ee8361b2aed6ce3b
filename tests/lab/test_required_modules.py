"""Modules that a lab makes the kernel load."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.lab.required_modules import asked, needs
from harness.topology.network import Network
from harness.topology.spec import LabSpec


def lab(**device: Any) -> Network:
    hosts = {
        "far": {"interfaces": {"eth0": ["192.0.2.2/24"]}},
        "device": {**device, "interfaces": {"eth0": ["192.0.2.1/24"], **device.pop("interfaces", {})}},
    }
    spec = {"hosts": hosts, "links": [["far:eth0", "device:eth0"]]}
    return Network.of(msgspec.convert(spec, LabSpec))


@pytest.mark.parametrize(
    ("device", "alias", "because"),
    [
        (
            {"interfaces": {"v7": []}, "vlans": {"v7": {"link": "eth0", "id": 7}}},
            "rtnl-link-vlan",
            "the vlan v7 of device",
        ),
        (
            {"interfaces": {"t0": []}, "tunnels": {"t0": {"kind": "gre", "local": "192.0.2.1", "remote": "192.0.2.2"}}},
            "rtnl-link-gre",
            "the gre t0 of device",
        ),
        ({"interfaces": {"d0": []}, "dummies": ["d0"]}, "rtnl-link-dummy", "the dummy d0 of device"),
        ({"netem": {"eth0": {"delay": 0.1}}}, "sch_netem", "netem of device"),
        (
            {"sysctls": {"net.ipv4.tcp_congestion_control": "htcp"}},
            "tcp_htcp",
            "net.ipv4.tcp_congestion_control = htcp of device",
        ),
        ({"modules": ["nf_conntrack_ftp"]}, "nf_conntrack_ftp", "modules: nf_conntrack_ftp of device"),
        (
            {"sysctls": {"net.bridge.bridge-nf-call-iptables": 1}},
            "br_netfilter",
            "net.bridge.bridge-nf-call-iptables of device",
        ),
    ],
)
def test_each_is_named_with_what_needs_it(device: dict[str, Any], alias: str, because: str) -> None:
    wanted = {one.alias: one.because for one in needs(lab(**device))}
    assert wanted == {"rtnl-link-veth": "a link of the lab", alias: because}


def test_a_plain_lab_needs_its_wires_alone() -> None:
    assert [one.alias for one in needs(lab())] == ["rtnl-link-veth"]
    assert list(asked(lab(netem={"eth0": {"delay": 0.1}}))) == []
