"""Who calls whom, as a scenario says it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from harness.model.problem import Problem
from harness.scenario.case import Case
from harness.scenario.flow import content, plan
from harness.scenario.load import load
from harness.scenario.models.sockets import Connect, Content, Exchange
from harness.topology.builtin import LABS
from harness.topology.network import Network

ROUTER = Network.of(LABS["router"])


def planned(**keys: Any) -> str:
    keys.setdefault("from_", "client")
    return str(plan(Exchange(**keys) if "udp" in keys else Connect(**keys), ROUTER))


@pytest.mark.parametrize(
    ("keys", "means"),
    [
        ({"to": "server", "tcp": 443}, "client :40000 → server 10.0.2.2:443 tcp"),
        ({"to": "device", "tcp": 443, "sport": 5}, "client :5 → device 203.0.113.1:443 tcp"),
        ({"to": "server", "udp": 53, "family": "ip6"}, "client :40000 → server [2001:db8:2::2]:53 udp"),
        ({"to": "198.51.100.1", "tcp": 443}, "client :40000 → 198.51.100.1:443 tcp"),
        ({"from_": "device", "to": "10.0.2.2", "tcp": 443}, "device :40000 → server 10.0.2.2:443 tcp"),
        ({"from_": "device", "to": "device", "tcp": 443}, "device :40000 → device 203.0.113.1:443 tcp"),
    ],
)
def test_the_ends(keys: dict[str, Any], means: str) -> None:
    assert planned(**keys) == means


def test_a_host_without_ipv4_is_called_over_ipv6() -> None:
    from harness.topology.spec import HostSpec, LabSpec

    spec = LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["2001:db8::5/64"]}),
            "device": HostSpec(interfaces={"eth0": ["2001:db8::1/64"]}),
        },
        links=[["client:eth0", "device:eth0"]],
    )
    found = plan(Connect(from_="client", to="device", tcp=80), Network.of(spec))
    assert found.destination == ip_address("2001:db8::1")
    with pytest.raises(Problem, match="device has no IPv4 address"):
        plan(Connect(from_="client", to="device", tcp=80, family="ip"), Network.of(spec))


def test_content() -> None:
    assert content("é") == b"\xc3\xa9"
    assert content(Content(hex="00 ff")) == b"\x00\xff"


def test_hosts_with_programs_have_addresses_in_that_scenario_alone(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()
    path = tmp_path / "edge.yaml"
    path.write_text("""\
ruleset: edge.nft
scenarios:
  - name: a flow
    steps:
      - listen: {on: server, tcp: 443}
      - {connect: {from: client, to: server, tcp: 443}, expect: {flow: connected}}
  - name: a frame
    send: {from: client, to: server, icmp: {}}
    expect: {verdict: accept}
""")
    flow, frame = load(path)
    assert isinstance(flow, Case)
    assert isinstance(frame, Case)
    assert [host.silent for host in flow.network.hosts.values()] == [False, False, False]
    assert [host.silent for host in frame.network.hosts.values()] == [True, False, True]
