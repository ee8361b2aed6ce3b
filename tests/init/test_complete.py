"""``init --complete``: scenarios for what those of a file leave open; natively, where that works without functions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.init.complete import run
from harness.linux import features

TRACEPOINTS = ("--nft-tracer", "tracepoints")
RULESET = """\
table inet fw {
	chain input {
		type filter hook input priority filter; policy accept;
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "wan0" tcp dport { 80, 443 } accept comment "web"
		udp dport 53 accept comment "names"
		meta l4proto tcp tcp dport 25 meta mark 7 accept comment "nobody marks"
	}
}
"""
SCENARIOS = """\
# Mine: keep   this.
lab: router
ruleset: rulesets/fw.nft
scenarios:
  # The shop.
  - name: 'Shop'   # aligned by hand
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept, rule: web}
  - {name: No telnet, send: {from: client, to: server, tcp: {dport: 23}}, expect: {verdict: drop}}
# The end.
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ruleset and scenarios that leave some of it open."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios/rulesets").mkdir(parents=True)
    (tmp_path / "scenarios/rulesets/fw.nft").write_text(RULESET)
    (tmp_path / "scenarios/fw.yaml").write_text(SCENARIOS)
    return tmp_path


def call(module: str, *arguments: str) -> tuple[int, str]:
    """The status of a command, and what it prints."""
    if os.geteuid():
        pytest.skip("needs root, for network namespaces")
    if not (able := features.tracepoints()).able:
        pytest.skip(able.reason)
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NFT_"))},
        check=False,
    )
    return ran.returncode, ran.stdout


def complete() -> tuple[int, str]:
    return call("harness.cli", "init", "scenarios/rulesets/fw.nft", "--complete", "--kernel", "host", *TRACEPOINTS)


def test_what_scenarios_leave_open_gets_scenarios_that_pass(project: Path) -> None:
    status, said = complete()
    written = (project / "scenarios/fw.yaml").read_text()
    assert [line for line in written.splitlines() if line in SCENARIOS.splitlines()] == SCENARIOS.splitlines()
    assert written.startswith(SCENARIOS.removesuffix("# The end.\n"))
    names = re.findall(r"fw\.yaml: now has the scenario '(.+)'", said)
    assert any("names" in name and "udp dport 53" in name for name in names), said
    assert any("tcp dport 80 at fw.nft:8" in name for name in names), said
    assert not any("tcp dport 443 at" in name for name in names), said
    assert status == 1
    assert re.search(r'still open: \S+fw\.nft:10: never met: .*"nobody marks": no rule sets a mark', said), said
    passed, shown = call("pytest", "-q", "--nft-kernel", "host", *TRACEPOINTS, "-p", "no:cacheprovider")
    assert passed == 0, shown
    assert f"{2 + len(names)} passed" in shown
    again, repeated = complete()
    assert (again, (project / "scenarios/fw.yaml").read_text()) == (1, written)
    assert "scenarios added: 0" in repeated


def test_where_nothing_is_open_nothing_is_written(project: Path) -> None:
    rules = "chain forward { type filter hook forward priority 0; policy drop; tcp dport 22 accept; }"
    (project / "scenarios/rulesets/fw.nft").write_text(f"table inet fw {{\n{rules}\n}}\n")
    text = SCENARIOS.replace("443", "22").replace(", rule: web", "")
    (project / "scenarios/fw.yaml").write_text(text)
    status, said = complete()
    assert status == 0, said
    assert "scenarios/fw.yaml: nothing to complete: all 4 " in said
    assert (project / "scenarios/fw.yaml").read_text() == text


def completed(ruleset: str, output: str | None = None) -> None:
    path = Path(output) if output else None
    run([Path(ruleset)], path, kernel="6.12", progress=print)


def test_files_that_cannot_be_completed_are_refused_before_anything_runs(project: Path) -> None:
    with pytest.raises(HarnessError, match=r"scenarios/none\.yaml does not exist.* leave out --complete to begin it"):
        completed("scenarios/rulesets/fw.nft", "scenarios/none.yaml")
    (project / "scenarios/rulesets/other.nft").write_text(RULESET)
    with pytest.raises(HarnessError, match=r"no scenario of scenarios/fw\.yaml loads \S+other\.nft, but fw\.nft"):
        completed("scenarios/rulesets/other.nft", "scenarios/fw.yaml")
    (project / "scenarios/fw.yaml").write_text(SCENARIOS.replace("verdict: drop", "verdict: dorp"))
    with pytest.raises(HarnessError, match=r"scenarios/fw\.yaml:9:\d+: "):
        completed("scenarios/rulesets/fw.nft")


def test_it_measures_in_the_lab_of_the_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.cli import main

    for option in (["--no-run"], ["--lab", "router"]):
        assert main(["init", "scenarios/rulesets/fw.nft", "--complete", *option]) == 2
        assert "leave out --lab and --no-run" in capsys.readouterr().err
