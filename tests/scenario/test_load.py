from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from msgspec import UNSET

from harness.errors import ScenarioError
from harness.scenario.case import Broken, Case
from harness.scenario.load import load
from harness.scenario.reference import EXAMPLE

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The file that the reference begins with."""
    (tmp_path / "rulesets").mkdir()
    (tmp_path / "rulesets/edge.nft").touch()
    path = tmp_path / "edge.yaml"
    path.write_text(EXAMPLE)
    return path


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


def test_where(example: Path) -> None:
    https, answer = load(example)
    assert isinstance(https, Case)
    assert isinstance(answer, Case)
    assert https.where(0, "expect", "path", 2) == (str(example), 15, 11)
    assert https.where(0, "expect", "path", 1, "nft_do_chain", "chain") == (str(example), 14, 33)
    assert https.where(0, "expect", "with") == (str(example), 8, 7)
    assert https.where(0) == (str(example), 5, 5)
    assert answer.where(1, "expect", "verdict") == (str(example), 23, 27)


def test_a_case_can_be_sent_to_a_worker(example: Path) -> None:
    case = load(example)[0]
    again = pickle.loads(pickle.dumps(case))
    assert (again.name, again.actions, again.network) == (case.name, case.actions, case.network)
    assert again.where(0, "expect", "path", 2) == case.where(0, "expect", "path", 2)


def test_ids_are_words_and_differ(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()
    names = ["a/b::c [1]", "a b c (1)", "Größe: 5 %", "…", "scenario"]
    rest = "send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}"
    lines = ["ruleset: edge.nft", "scenarios:", *(f'  - {{name: "{name}", {rest}}}' for name in names)]
    path = tmp_path / "edge.yaml"
    path.write_text("\n".join(lines))
    assert [case.id for case in load(path)] == ["a-b-c-1", "a-b-c-1-2", "Größe-5", "scenario", "scenario-2"]


def test_a_ruleset_may_lie_elsewhere_in_the_project(tmp_path: Path) -> None:
    rest = "scenarios: [{name: a, send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}}]"
    (tmp_path / "tests/deep").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "edge.nft").touch()
    path = tmp_path / "tests/deep/edge.yaml"
    path.write_text(f"ruleset: ../../edge.nft\n{rest}\n")
    (case,) = load(path)
    assert isinstance(case, Case)
    assert case.rulesets["device"].paths == (tmp_path / "edge.nft",)


def test_a_link_out_of_the_project_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "outside.nft").touch()
    (tmp_path / "project").mkdir()
    (tmp_path / "project/edge.nft").symlink_to(tmp_path / "outside.nft")
    path = tmp_path / "project/edge.yaml"
    path.write_text("ruleset: edge.nft\nscenarios: [{name: a, send: {from: client, to: server, icmp: {}}}]\n")
    with pytest.raises(ScenarioError, match=r"'edge\.nft' lies outside of the project"):
        load(path)


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


LAB = """\
hosts:
  client: {interfaces: {eth0: [192.0.2.5/24]}, gateway: fw}
  fw: {interfaces: {eth0: [192.0.2.1/24]}}
links: [["client:eth0", "fw:eth0"]]
device: fw
"""
WITH_LAB = """\
lab: labs/office.yaml
ruleset: edge.nft
scenarios: [{name: a, send: {from: client, to: fw, icmp: {}}, expect: {verdict: accept}}]
"""


def test_a_lab_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs/office.yaml").write_text(LAB)
    (tmp_path / "edge.nft").touch()
    (tmp_path / "edge.yaml").write_text(WITH_LAB)
    (case,) = load(tmp_path / "edge.yaml")
    assert isinstance(case, Case)
    assert case.network.device == "fw"


def test_a_mistake_in_the_file_of_a_lab_is_told_there(tmp_path: Path) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "edge.nft").touch()
    (tmp_path / "edge.yaml").write_text(WITH_LAB)
    for wrong, sentence in (
        (
            LAB.replace("192.0.2.1/24", "192.0.2.1"),
            r"office\.yaml:3:28: hosts\.fw\.interfaces\.eth0\[0\]: .* no prefix length",
        ),
        (LAB.replace("device", "devise"), r"office\.yaml:5:1: 'devise' is not a valid key here; did you mean 'device'"),
    ):
        (tmp_path / "labs/office.yaml").write_text(wrong)
        with pytest.raises(ScenarioError, match=sentence):
            load(tmp_path / "edge.yaml")


REST = "send: {from: client, to: device, icmp: {}}, expect: {verdict: accept}"


class TestOutsideOfTheProject:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A scenario file whose ruleset is that of the machine."""
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/edge.nft").touch()
        (tmp_path / "project").mkdir()
        path = tmp_path / "project/edge.yaml"
        path.write_text(f"ruleset: ../etc/edge.nft\nscenarios:\n- {{name: A, {REST}}}\n")
        return path

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("pyproject.toml", '[tool.pytest.ini_options]\nnft_allow = ["../etc"]\n'),
            ("pytest.ini", "[pytest]\nnft_allow = ../etc\n"),
            ("tox.ini", "[pytest]\nnft_allow =\n  elsewhere\n  ../etc/edge.nft\n"),
            ("setup.cfg", "[tool:pytest]\nnft_allow = ../etc\n"),
        ],
    )
    def test_what_the_settings_of_pytest_allow(self, file: Path, name: str, text: str) -> None:
        (file.parent / name).write_text(text)
        (case,) = load(file)
        assert isinstance(case, Case)
        assert case.rulesets["device"].paths == (file.parent.parent / "etc/edge.nft",)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            '[tool.pytest.ini_options]\nnft_allow = ["../etc2", "elsewhere"]\n',
        ],
    )
    def test_all_else_is_refused(self, file: Path, text: str) -> None:
        (file.parent / "pyproject.toml").write_text(text)
        with pytest.raises(ScenarioError, match=r"'\.\./etc/edge\.nft' lies outside of the project.*nft_allow"):
            load(file)

    def test_settings_that_cannot_be_read_are_named(self, file: Path) -> None:
        (file.parent / "pyproject.toml").write_text("[tool.pytest\n")
        with pytest.raises(ScenarioError, match=r"pyproject\.toml: cannot be read"):
            load(file)

    def test_what_another_machine_may_have_is_not_looked_for(self, file: Path) -> None:
        (file.parent / "pytest.ini").write_text("[pytest]\nnft_allow = ../etc\n")
        (file.parent.parent / "etc/edge.nft").unlink()
        assert isinstance(load(file)[0], Case)


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


def test_rulesets_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "nftables.d").mkdir()
    for name in ("edge.nft", "rules.v4", "nftables.d/20-nat.nft", "nftables.d/10-filter.nft", "nftables.d/README"):
        (tmp_path / name).touch()
    path = tmp_path / "edge.yaml"
    path.write_text("""\
ruleset: [rules.v4, nftables.d]
rulesets: {server: edge.nft}
defines: {wan: wan0, ports: [22, 80]}
scenarios: [{name: a, send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}}]
""")
    (case,) = load(path)
    assert isinstance(case, Case)
    assert {host: [str(one.relative_to(tmp_path)) for one in files.paths] for host, files in case.rulesets.items()} == {
        "device": ["rules.v4", "nftables.d/10-filter.nft", "nftables.d/20-nat.nft"],
        "server": ["edge.nft"],
    }
    assert case.rulesets["server"].defines == {"wan": "wan0", "ports": "{ 22, 80 }"}
    assert [host.name for host in case.network.hosts.values() if host.silent] == ["client"]
