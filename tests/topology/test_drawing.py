from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.scenario.load import load_lab
from harness.topology.builtin import LABS
from harness.topology.drawing import mermaid, text
from harness.topology.network import Network

BRIDGE = Network.of(LABS["bridge"])


def test_text() -> None:
    assert (
        text(BRIDGE)
        == """\
client (silent)
  eth0   192.0.2.5/24, 2001:db8:192::5/64    ── device:port0
  route  0.0.0.0/0 by 192.0.2.10
  route  ::/0 by 2001:db8:192::10
device (under test)
  port0  -                                   ── client:eth0
  port1  -                                   ── server:eth0
  br0    192.0.2.10/24, 2001:db8:192::10/64  bridge of port0, port1
  route  0.0.0.0/0 by 192.0.2.5
  route  ::/0 by 2001:db8:192::5
server (silent)
  eth0   192.0.2.6/24, 2001:db8:192::6/64    ── device:port1
  route  0.0.0.0/0 by 192.0.2.10
  route  ::/0 by 2001:db8:192::10
"""
    )


def test_mermaid() -> None:
    assert (
        mermaid(BRIDGE)
        == """\
graph LR
  host_client["client"]
  host_device["device (under test)<br>br0 192.0.2.10/24, 2001:db8:192::10/64"]
  host_server["server"]
  host_client ---|"eth0 192.0.2.5/24 2001:db8:192::5/64<br>port0"| host_device
  host_device ---|"port1<br>eth0 192.0.2.6/24 2001:db8:192::6/64"| host_server
"""
    )


def test_what_an_interface_is_made_of() -> None:
    network = load_lab(Path(__file__).parents[2] / "scenarios/labs/trunk.yaml")
    shown = [line.strip() for line in text(network).splitlines()]
    assert "wan0       203.0.113.1/24                      ── internet:eth0, MTU 1492" in shown
    assert "trunk0.20  192.168.20.1/24                     VLAN 20 of trunk0" in shown
    assert "vx0        192.168.42.1/24                     VXLAN 42 to 10.0.0.2" in shown
    assert "up         -                                   ── gateway:trunk0 (VLAN 10, 20 tagged)" in shown
    assert "route  10.0.0.0/8 unreachable" in shown
    network = load_lab(Path(__file__).parents[2] / "scenarios/labs/provider.yaml")
    shown = [line.strip() for line in text(network).splitlines()]
    assert "blue    -               VRF of blue0, table 20" in shown
    assert "rule   from 10.255.0.0/24 to 198.51.100.0/24 table 100" in shown
    assert "red (VRF of red0, rcore0, table 10)<br>blue (VRF of blue0, table 20)" in mermaid(network)


@pytest.mark.parametrize("name", ["edge.yaml", "home.yaml", "docker.yaml", "labs/office.yaml", "trunk.yaml"])
def test_the_lab_of_a_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "scenarios" / name
    assert main(["lab", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "under test" in shown
    assert "──" in shown


def test_the_ruleset_s_names(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "scenarios/home.yaml"
    assert main(["lab", "show", "--mermaid", str(path)]) == 0
    assert "enp1s0 203.0.113.1/24" in capsys.readouterr().out


def test_a_file_without_a_lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("lab: routr\nruleset: a.nft\nscenarios: []\n")
    assert main(["lab", "show", str(path)]) != 0
    assert "'routr' is not a built-in lab; did you mean 'router'?" in capsys.readouterr().err
