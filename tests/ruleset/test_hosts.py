"""Labs with their rulesets."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.linux import modules
from harness.project import Project
from harness.ruleset.hosts import built
from harness.scenario.case import Files
from harness.topology.network import Network
from harness.topology.spec import HostSpec, LabSpec

BRIDGED = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("rule", "sysctls", "seen"),
    [
        ("-A FORWARD -m physdev --physdev-in p0 -j ACCEPT", {}, "11"),
        ("-A FORWARD -m physdev --physdev-in p0 -j ACCEPT", {"net.bridge.bridge-nf-call-ip6tables": 0}, "10"),
        ("-A FORWARD -j ACCEPT", {"net.bridge.bridge-nf-call-iptables": 1}, "10"),
        ("-A FORWARD -j ACCEPT", {}, "00"),
    ],
)
def test_bridged_packets_are_filtered_where_a_ruleset_or_the_lab_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, sysctls: dict[str, str | int], seen: str
) -> None:
    monkeypatch.setenv(modules.ENVIRONMENT, modules.ALL)
    path = tmp_path / "rules.v4"
    path.write_text(f"*filter\n:FORWARD DROP [0:0]\n{rule}\nCOMMIT\n")
    spec = LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24"]}),
            "device": HostSpec(
                interfaces={"p0": [], "br0": ["192.0.2.1/24"]}, bridges={"br0": ["p0"]}, sysctls=sysctls
            ),
        },
        links=[["client:eth0", "device:p0"]],
    )
    if sysctls and not Path("/proc/sys/net/bridge").exists():
        pytest.skip("br_netfilter is not loaded, so there is nothing to set")
    with built(Network.of(spec), {"device": Files(paths=(path,), project=Project(root=tmp_path))}) as (lab, _):
        found = [Path("/proc/sys", one) for one in BRIDGED]
        read = lab.device.namespace.call(lambda: "".join(one.read_text().strip() for one in found if one.exists()))
    assert read == seen or (seen == "00" and not read)
