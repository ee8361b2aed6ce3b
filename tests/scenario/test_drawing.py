from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.scenario.drawing import mermaid, text
from harness.scenario.labs import LABS
from harness.scenario.network import Network

BRIDGE = Network.of(LABS["bridge"])


def test_text() -> None:
    assert (
        text(BRIDGE)
        == """\
client (silent, 0.0.0.0/0 by 192.0.2.10, ::/0 by 2001:db8:192::10)
  eth0   192.0.2.5/24, 2001:db8:192::5/64    ── device:port0
device (under test, 0.0.0.0/0 by 192.0.2.5, ::/0 by 2001:db8:192::5)
  port0  -                                   ── client:eth0
  port1  -                                   ── server:eth0
  br0    192.0.2.10/24, 2001:db8:192::10/64  bridge of port0, port1
server (silent, 0.0.0.0/0 by 192.0.2.10, ::/0 by 2001:db8:192::10)
  eth0   192.0.2.6/24, 2001:db8:192::6/64    ── device:port1
"""
    )


def test_mermaid() -> None:
    assert (
        mermaid(BRIDGE)
        == """\
graph LR
  host_client["client"]
  host_device["<b>device</b><br>br0 192.0.2.10/24, 2001:db8:192::10/64"]
  host_server["server"]
  host_client ---|"eth0 192.0.2.5/24 2001:db8:192::5/64<br>port0"| host_device
  host_device ---|"port1<br>eth0 192.0.2.6/24 2001:db8:192::6/64"| host_server
"""
    )


@pytest.mark.parametrize("name", ["edge.yaml", "home.yaml", "docker.yaml", "labs/office.yaml"])
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
    assert "'routr' is no built-in lab; did you mean 'router'?" in capsys.readouterr().err
