"""Rulesets and labs that a scenario names, found in its project."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import ScenarioError
from harness.scenario.case import Case
from harness.scenario.load import load, load_all


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


NEEDS = "write hosts: and links: (nft-harness schema --markdown describes them)"


@pytest.mark.parametrize(
    ("lab", "mistakes"),
    [
        ("", [f"labs/office.yaml: is empty; {NEEDS}"]),
        ("# later\n", [f"labs/office.yaml: is empty; {NEEDS}"]),
        ("an office\n", [f"labs/office.yaml:1:1: must be a mapping, not 'an office'; {NEEDS}"]),
        ("- client\n", [f"labs/office.yaml:1:1: must be a mapping, not a list; {NEEDS}"]),
        (
            "hosts: {client: {interfces: {}, interfaces: {eth0: []}}, fw: {interfaces: {eth0: []}, forwardng: true}}\n",
            [
                "labs/office.yaml:1:18: hosts.client: 'interfces' is not a valid key here",
                "labs/office.yaml:1:87: hosts.fw: 'forwardng' is not a valid key here",
            ],
        ),
        (
            """\
hosts: {client: {interfaces: {eth0: []}}, fw: {interfaces: {eth0: []}}}
links: [["clent:eth0", "fw:eth0"], ["client:eth1", "fw:eth0"]]
device: fw
""",
            [
                "labs/office.yaml:2:10: links[0][0]: 'clent' is not a host of the lab",
                "labs/office.yaml:2:37: links[1][0]: 'eth1' is not an interface of client",
            ],
        ),
        (
            LAB.replace("192.0.2.5/24", "192.0.2.555/24").replace("192.0.2.1/24", "192.0.2.1"),
            [
                "labs/office.yaml:2:32: hosts.client.interfaces.eth0[0]: '192.0.2.555/24' is not an address",
                "labs/office.yaml:3:28: hosts.fw.interfaces.eth0[0]: '192.0.2.1' has no prefix length",
            ],
        ),
        (
            LAB.replace("gateway: fw", "gateway: fv").replace(
                "eth0: [192.0.2.1/24]}", "eth0: [192.0.2.1/24]}, gateway: x"
            ),
            [
                "labs/office.yaml:2:57: hosts.client.gateway: 'fv' is not a host of the lab",
                "labs/office.yaml:3:53: hosts.fw.gateway: 'x' is not a host of the lab",
            ],
        ),
    ],
)
def test_all_mistakes_in_a_file_with_a_lab_are_listed(
    lab: str, mistakes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labs").mkdir()
    Path("labs/office.yaml").write_text(lab)
    Path("edge.nft").touch()
    Path("edge.yaml").write_text(WITH_LAB)
    assert main(["check", "edge.yaml"]) == 1
    for line, mistake in zip(capsys.readouterr().out.splitlines(), mistakes, strict=True):
        assert line.startswith(mistake)
    assert main(["lab", "show", "labs/office.yaml"]) == 2
    for line, mistake in zip(capsys.readouterr().err.splitlines(), mistakes, strict=True):
        assert line.startswith(f"nft-harness: error: {mistake}")


def test_all_mistakes_about_rulesets_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(
        "ruleset: [a.nft, b.nft]\nrulesets: {server: c.nft, nobody: d.nft}\nscenarios:\n"
        "  - {name: a, send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}}\n"
    )
    found = load_all(path).errors
    assert [str(error).partition(": ")[2].partition("; ")[0] for error in found] == [
        "ruleset[0]: 'a.nft' does not exist",
        "ruleset[1]: 'b.nft' does not exist",
        "rulesets.server: 'c.nft' does not exist",
        "rulesets: the lab has no host 'nobody'",
    ]
    with pytest.raises(ScenarioError, match=r"'a\.nft'") as raised:
        load(path)
    assert len(raised.value.each) == len(found)
