from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import UNSET

from harness.scenario.case import Broken, Case
from harness.scenario.load import load

REPOSITORY = Path(__file__).parents[2]


def test_the_example_of_the_reference(example: Path) -> None:
    https, answer = load(example)
    assert isinstance(https, Case)
    assert isinstance(answer, Case)
    assert https.name == "HTTPS from the client reaches the web server"
    assert https.id == "HTTPS-from-the-client-reaches-the-web-server"
    assert https.rulesets["device"].paths == (example.parent / "rulesets/edge.nft",)
    (action,) = https.actions
    assert action.expect is not UNSET
    assert action.expect.verdict == "accept"
    assert [step.expect is UNSET for step in answer.actions] == [True, False]


def test_ids_are_words_and_differ(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()
    names = ["a/b::c [1]", "a b c (1)", "Größe: 5 %", "…", "scenario"]
    rest = "send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}"
    lines = ["ruleset: edge.nft", "scenarios:", *(f'  - {{name: "{name}", {rest}}}' for name in names)]
    path = tmp_path / "edge.yaml"
    path.write_text("\n".join(lines))
    assert [case.id for case in load(path)] == ["a-b-c-1", "a-b-c-1-2", "Größe-5", "scenario", "scenario-2"]


def test_a_lab_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()
    path = tmp_path / "edge.yaml"
    path.write_text("""\
lab:
  hosts:
    left: {interfaces: {eth0: [10.1.0.2/24]}, gateway: middle}
    middle: {interfaces: {a: [10.1.0.1/24], b: [10.2.0.1/24]}, forwarding: true, sysctls: {net.ipv4.ip_forward: 1}}
    right: {interfaces: {eth0: [10.2.0.2/24]}, gateway: middle}
  links: [[left:eth0, middle:a], [middle:b, right:eth0]]
  device: middle
ruleset: edge.nft
scenarios:
  - name: through
    send: {from: left, to: right, udp: {dport: 53}}
    expect: {delivered: {to: right, sees: {src: 10.1.0.2}}}
""")
    (case,) = load(path)
    assert isinstance(case, Case)
    assert case.network.device == "middle"
    assert case.network.hosts["middle"].sysctls == {"net.ipv4.ip_forward": "1"}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_scenarios(path: Path) -> None:
    assert all(isinstance(case, Case) for case in load(path))


REST = "send: {from: client, to: device, icmp: {}}, expect: {verdict: accept}"


class TestOfAScenarioAlone:
    def test_lab_interfaces_and_ruleset(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            (tmp_path / f"{name}.nft").touch()
        path = tmp_path / "edge.yaml"
        path.write_text(
            "interfaces: {wan0: eth1}\nruleset: old.nft\nscenarios:\n"
            f"- {{name: A, {REST}}}\n"
            f"- {{name: B, ruleset: new.nft, {REST}}}\n"
            f"- {{name: C, lab: host, {REST}}}\n"
            f"- {{name: D, lab: host, interfaces: {{eth0: ens3}}, {REST}}}\n"
        )
        found = []
        for case in load(path):
            assert isinstance(case, Case)
            found.append(
                (case.rulesets["device"].paths[0].stem, list(case.network.hosts[case.network.device].interfaces))
            )
        assert found == [
            ("old", ["eth1", "lan0"]),
            ("new", ["eth1", "lan0"]),
            ("old", ["eth0"]),
            ("old", ["ens3"]),
        ]

    @pytest.mark.parametrize(
        ("own", "sentence"),
        [
            ("ruleset: nwe.nft", r":3:22: ruleset: 'nwe\.nft' does not exist"),
            ("lab: huost", r":3:18: lab: .*did you mean 'host'"),
            ("interfaces: {wan7: eth1}", r":3:32: interfaces\.wan7: .*did you mean 'wan0'"),
        ],
    )
    def test_a_mistake_breaks_that_scenario_alone(self, tmp_path: Path, own: str, sentence: str) -> None:
        (tmp_path / "edge.nft").touch()
        path = tmp_path / "edge.yaml"
        path.write_text(f"ruleset: edge.nft\nscenarios:\n- {{name: A, {own}, {REST}}}\n- {{name: B, {REST}}}\n")
        broken, good = load(path)
        assert isinstance(good, Case)
        assert isinstance(broken, Broken)
        assert re.search(sentence, str(broken.errors[0]))
