"""Labs with their rulesets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.linux import modules
from harness.project import Project
from harness.ruleset.hosts import Loadable, built
from harness.scenario.case import Files
from harness.topology.network import Network
from harness.topology.spec import HostSpec, LabSpec
from harness.vm.port import in_guest

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


@pytest.mark.kernel
@pytest.mark.parametrize("seed", [1, 2])
def test_labs_that_did_not_ask_for_a_module_do_not_have_it_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    if not in_guest():
        pytest.skip("natively modules stay loaded")
    monkeypatch.setenv(modules.ENVIRONMENT, modules.ALL)
    path = tmp_path / "rules.nft"
    path.write_text("table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }\n")
    asked: list[list[str]] = [["br_netfilter", "nf-nat-ftp"], [], ["br_netfilter"], [], ["nf_nat_ftp", "sch_fq"], []]
    random.Random(seed).shuffle(asked)
    before = modules.loaded()
    for names in asked:
        device = HostSpec(interfaces={"p0": [], "br0": []}, bridges={"br0": ["p0"]}, modules=names)
        spec = LabSpec(
            hosts={"client": HostSpec(interfaces={"eth0": []}), "device": device}, links=[["client:eth0", "device:p0"]]
        )
        with built(Network.of(spec), {"device": Files(paths=(path,), project=Project(root=tmp_path))}) as (lab, _):
            assert {name.replace("-", "_") for name in names} <= modules.loaded()
            filters = lab.device.namespace.call(lambda: [one for one in BRIDGED if Path("/proc/sys", one).exists()])
            assert bool(filters) == ("br_netfilter" in names or "br_netfilter" in before)
            for one in filters:
                seen = lab.device.namespace.call(lambda one=one: Path("/proc/sys", one).read_text().strip())
                assert seen == ("1" if "br_netfilter" in names else "0")
        assert not {"nf_nat_ftp", "sch_fq"} & (modules.loaded() - before)


def test_a_module_that_the_kernel_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(modules.ENVIRONMENT, modules.ALL)
    need = modules.Need("nf_no_such", "modules: nf_no_such of device")
    with (
        pytest.raises(Unsupported, match="has no module nf_no_such that could be loaded, for modules: nf_no_such of"),
        modules.provided([need], unload=True),
    ):
        raise AssertionError("it was provided")


def test_a_file_that_is_gone_is_no_ruleset_to_load(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="is not on this machine"):
        Loadable.of([tmp_path / "gone.nft"], Files(paths=(), project=Project(root=tmp_path)))
