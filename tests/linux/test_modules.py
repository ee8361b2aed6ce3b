"""Which modules may be loaded, and which were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError, Unsupported
from harness.linux import modules
from harness.linux.modules import Need

PHYSDEV = Need("xt_physdev", "rules.v4:3: -m physdev")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A machine with two modules loaded, on which nothing is permitted."""
    present = {"nf_tables", "veth"}
    monkeypatch.delenv(modules.ENVIRONMENT, raising=False)
    monkeypatch.setattr(modules, "_permitted", set())
    monkeypatch.setattr(modules, "loaded", lambda: set(present))
    known = {"xt_physdev": ("llc", "stp", "bridge", "br_netfilter"), "nft_fib": ("nf_tables", "nft_fib")}
    monkeypatch.setattr(modules, "brings", lambda alias: known.get(alias, ()))
    files = {"br_netfilter": "kernel/net/bridge/br_netfilter.ko.xz", "i915": "kernel/drivers/gpu/drm/i915/i915.ko.xz"}
    monkeypatch.setattr(modules, "_files", lambda: files)
    return present


def test_a_module_that_would_be_loaded_is_named_with_its_reason() -> None:
    with pytest.raises(Unsupported) as refused:
        modules.refuse([PHYSDEV])
    assert str(refused.value) == (
        "rules.v4:3: -m physdev would load the kernel module llc, stp, bridge, br_netfilter into the machine's own "
        "kernel; run it in a microVM, e.g. --nft-kernel 6.12, or permit it: --nft-modules llc,stp,bridge,br_netfilter"
    )


@pytest.mark.parametrize(
    "names", [["llc", "stp", "bridge", "br_netfilter"], ["llc", "stp", "bridge", "br-netfilter"], ["all"]]
)
def test_its_owner_may_permit_it(names: list[str]) -> None:
    modules.permit(names)
    modules.refuse([PHYSDEV])


@pytest.mark.parametrize("value", ["all", "llc,stp bridge br_netfilter"])
def test_so_may_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(modules.ENVIRONMENT, value)
    modules.refuse([PHYSDEV])


def test_part_of_it_is_not_enough(machine: set[str]) -> None:
    modules.permit(["bridge"])
    machine |= {"llc", "stp"}
    with pytest.raises(Unsupported, match="would load the kernel module br_netfilter into"):
        modules.refuse([PHYSDEV])
    machine.add("br_netfilter")
    modules.refuse([PHYSDEV])


def test_netfilters_own_need_no_permission_and_what_is_built_in_none() -> None:
    modules.refuse([Need("nft_fib", "a.nft: fib"), Need("rtnl-link-dummy", "the dummy d0 of device")])


def test_what_was_not_foreseen_is_an_error(machine: set[str]) -> None:
    with (
        pytest.raises(HarnessError, match="kernel module br_netfilter was loaded into the machine's own kernel"),
        modules.watched(),
    ):
        machine |= {"br_netfilter", "i915", "nft_fib"}
    modules.permit(["all"])
    with modules.watched():
        machine.add("tcp_htcp")


FILES = {
    "pytest.ini": "[pytest]\n",
    "scenarios/phys.rules": "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m physdev --physdev-in eth0 -j ACCEPT\nCOMMIT\n",
    "scenarios/ok.nft": "table inet t { chain c { type filter hook input priority 0; } }\n",
    "scenarios/rules.yaml": "ruleset: phys.rules\n",
    "scenarios/setting.yaml": """ruleset: ok.nft
lab:
  hosts:
    client: {interfaces: {eth0: [192.0.2.5/24]}}
    device: {interfaces: {eth0: [192.0.2.1/24]}, sysctls: {net.ipv4.tcp_congestion_control: htcp}}
  links: [["client:eth0", "device:eth0"]]
""",
    "scenarios/link.yaml": """ruleset: ok.nft
lab:
  hosts:
    client: {interfaces: {eth0: [192.0.2.5/24]}}
    device: {interfaces: {eth0: [192.0.2.1/24], d0: []}, dummies: [d0]}
  links: [["client:eth0", "device:eth0"]]
""",
}
SCENARIO = """scenarios:
  - name: s
    send: {from: client, to: device, tcp: {dport: 1}}
    expect: {delivered: device}
"""


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("file", "module"), [("rules.yaml", "br_netfilter"), ("setting.yaml", "tcp_htcp"), ("link.yaml", "dummy")]
)
def test_natively_the_machine_stays_as_it_is(tmp_path: Path, file: str, module: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + SCENARIO if name.endswith(".yaml") else text)
    before = Path("/proc/modules").read_text()
    subprocess.run(["modprobe", "--quiet", "--remove", module], check=False)  # of another test
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "--nft-kernel", "host", f"scenarios/{file}"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != modules.ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{module} into the machine's own kernel" in " ".join(done.stdout.split()), done.stdout
    assert {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()} <= {
        line.split()[0] for line in before.splitlines()
    }
