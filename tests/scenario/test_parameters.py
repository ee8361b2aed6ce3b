"""Many scenarios from one."""

from __future__ import annotations

from pathlib import Path

from harness.scenario.case import Broken, Case
from harness.scenario.load import load


def cases(folder: Path, text: str) -> tuple[Case | Broken, ...]:
    (folder / "edge.nft").touch()
    path = folder / "edge.yaml"
    path.write_text(f"ruleset: edge.nft\nscenarios:\n{text}")
    return load(path)


EACH = """\
  - name: Port $port is $verdict
    each:
      - {port: 80, verdict: accept}
      - {port: 23, verdict: drop}
    send: {from: client, to: server, tcp: {dport: $port}}
    expect: {verdict: $verdict, rule: "ip daddr $web tcp dport $port $verdict"}
"""


def test_each_entry_makes_a_scenario(tmp_path: Path) -> None:
    http, telnet = cases(tmp_path, EACH)
    assert (http.name, telnet.id) == ("Port 80 is accept", "Port-23-is-drop")
    assert isinstance(telnet, Case)
    (action,) = telnet.actions
    assert action.send.tcp
    assert action.send.tcp.dport == 23
    assert action.expect.rule == "ip daddr $web tcp dport 23 drop"  # $web is the ruleset's


def test_a_value_is_found_where_it_is_written(tmp_path: Path) -> None:
    telnet = cases(tmp_path, EACH)[1]
    assert isinstance(telnet, Case)
    assert telnet.where(0, "expect", "verdict") == (str(tmp_path / "edge.yaml"), 6, 29)
    assert telnet.where(0, "expect", "rule").line == 8


def test_a_matrix_makes_every_combination_with_names_of_their_own(tmp_path: Path) -> None:
    text = """\
  - name: Refused from $from
    matrix: {from: [client, server], port: [22, 23]}
    send: {from: $from, to: device, tcp: {dport: $port}}
    expect: {verdict: drop}
"""
    assert [case.id for case in cases(tmp_path, text)] == [
        "Refused-from-client-port-22",
        "Refused-from-client-port-23",
        "Refused-from-server-port-22",
        "Refused-from-server-port-23",
    ]


def test_a_value_may_be_a_mapping(tmp_path: Path) -> None:
    text = """\
  - name: Refused, $proto
    each:
      - {proto: tcp, packet: {from: client, to: device, tcp: {dport: 22}}}
      - {proto: udp, packet: {from: client, to: device, udp: {dport: 53}}}
    send: $packet
    expect: {verdict: drop}
"""
    one, other = cases(tmp_path, text)
    assert isinstance(one, Case)
    assert isinstance(other, Case)
    assert one.actions[0].send.tcp
    assert other.actions[0].send.udp


def test_one_wrong_value_breaks_one_scenario(tmp_path: Path) -> None:
    good, wrong = cases(tmp_path, EACH.replace("port: 23", "port: telnet"))
    assert isinstance(good, Case)
    assert isinstance(wrong, Broken)
    assert wrong.position == (str(tmp_path / "edge.yaml"), 6, 16)
