"""Other plugins of pytest beside this one, each alone and all together: in the environment of ``./run plugins``.

All of them are installed there and none is loaded by itself; a session loads those that a test is about, which is what
it means to have only those. The tests of one combination in one guest take ten seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PLUGINS = {
    "pytest-cov": "pytest_cov",
    "pytest-github-actions-annotate-failures": "pytest_github_actions_annotate_failures",
    "pytest-html": "html",
    "pytest-metadata": "metadata",
    "pytest-randomly": "randomly",
    "pytest-repeat": "repeat",
    "pytest-rerunfailures": "rerunfailures",
    "pytest-split": "pytest-split",
    "pytest-sugar": "sugar",
    "pytest-timeout": "timeout",
}
"""Names of the entry points, under which pytest loads them by itself; plugins look for one another by these."""
NEEDS = {"pytest-html": ["metadata", "html_fixtures"]}

pytest_plugins = ["pytester"]

installed = pytest.mark.skipif(
    not {*PLUGINS.values()} <= entry_points(group="pytest11").names,
    reason="needs the plugins that it is about; ./run plugins has them",
)

RULESET = "table inet t { chain f { type filter hook forward priority 0; policy drop; tcp dport 443 accept; }; }\n"
SCENARIOS = """lab: router
ruleset: t.nft
scenarios:
  - name: accepted
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept}
  - name: dropped
    send: {from: client, to: server, udp: {dport: 9}}
    expect: {verdict: drop}
  - name: failing
    send: {from: client, to: server, udp: {dport: 10}}
    expect: {verdict: accept}
  - name: broken
    send: {from: client, to: nobody, udp: {dport: 11}}
    expect: {verdict: accept}
"""
MODULE = """import os

def where():
    if os.uname().release == {release!r}:
        return "the guest"
    return "here"
"""
TESTS = """import mod, signal

TURNS = []

def test_where():
    assert mod.where() == "the guest"

def test_again():
    TURNS.append(1)
    assert len(TURNS) != 1
"""
OUTCOMES = {"accepted": "passed", "dropped": "passed", "failing": "failure", "broken": "error", "test_where": "passed"}
HANGING = "import signal\n\ndef test_hangs():\n    signal.pause()\n"


@pytest.fixture
def project(tmp_path: Path, this_cache: Path, kernel: str) -> Path:
    """A project with scenarios of every outcome, and with tests of its own."""
    from harness.vm import images

    image = images.find(kernel)
    assert image
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/t.nft").write_text(RULESET)
    (tmp_path / "scenarios/t.yaml").write_text(SCENARIOS)
    (tmp_path / "mod.py").write_text(MODULE.format(release=image.release))
    (tmp_path / "test_own.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return tmp_path


class Ran:
    """A session that has ended."""

    def __init__(self, project: Path, plugins: list[str], *arguments: str, **variables: str) -> None:
        names = [f"-p{name}" for plugin in plugins for name in (*NEEDS.get(plugin, ()), PLUGINS[plugin])]
        command = [sys.executable, "-m", "pytest", "-pharness.plugin", "-pxdist", *dict.fromkeys(names)]
        command += ["--nft-kernel", "6.12", "--junitxml", "junit.xml", *arguments]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", **variables}
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
        self.status = done.returncode
        self.output = done.stdout + done.stderr
        self.outcomes: dict[str, str] = {}
        self.cases: list[str] = []
        for case in ElementTree.parse(project / "junit.xml").iter("testcase"):
            self.cases.append(case.attrib["name"])
            self.outcomes[case.attrib["name"]] = next((one.tag for one in case if one.tag in WORDS), "passed")


WORDS = ("failure", "error", "skipped")


@installed
@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_presence_of_one_changes_no_outcome(plugin: str, project: Path) -> None:
    ran = Ran(project, [plugin])
    assert ran.outcomes == OUTCOMES | {"test_again": "failure"}, ran.output
    assert ran.status == 6
    assert "INTERNALERROR" not in ran.output


@installed
def test_together_all_of_them_do_what_they_are_for(project: Path) -> None:
    arguments = ["--cov=mod", "--cov-report=term-missing", "--html=report.html", "--self-contained-html"]
    arguments += ["--metadata", "Ruleset", "t.nft", "--reruns=1", "--timeout=200", "--randomly-seed=7"]
    ran = Ran(project, list(PLUGINS), *arguments, GITHUB_ACTIONS="true")
    assert ran.outcomes == OUTCOMES | {"test_again": "passed"}, ran.output
    assert ran.status == 6
    assert "3 rerun" in re.sub(r"\x1b\[[0-9;]*m", "", ran.output)
    # Only the guest runs the one line, and only this machine the other.
    assert re.search(r"^mod\.py +5 +1 +80% +6$", ran.output, re.MULTILINE), ran.output
    page = (project / "report.html").read_text()
    assert all(name in page for name in OUTCOMES)
    # That plugin annotates each turn of what failed; it does not know broken scenarios, which we annotate.
    annotated = re.findall(r"^::error file=\S+?,.*?(failing|broken|test_again)\b", ran.output, re.MULTILINE)
    assert sorted(annotated) == ["broken", "failing", "failing", "test_again"], ran.output


@installed
def test_scenarios_are_repeated_as_tests_are(project: Path) -> None:
    ran = Ran(project, ["pytest-repeat"], "--count=2", "-k", "dropped or where")
    assert sorted(ran.cases) == ["dropped[1]", "dropped[2]", "test_where[1-2]", "test_where[2-2]"]
    assert set(ran.outcomes.values()) == {"passed"}


@installed
def test_what_is_split_over_jobs_is_joined_and_a_lost_job_is_seen(project: Path) -> None:
    for group, outcomes in ("1", {"accepted", "dropped"}), ("2", {"failing", "broken"}):
        split = ["--splits=2", f"--group={group}", f"--nft-jsonl={group}.jsonl", "scenarios"]
        assert Ran(project, ["pytest-split"], *split).outcomes.keys() == outcomes

    def report(*stored: str) -> tuple[int, int]:
        command = [sys.executable, "-m", "harness.cli", "report", *stored, "--scenarios=scenarios", "--jsonl=all.jsonl"]
        status = subprocess.run(command, cwd=project, capture_output=True, check=False).returncode
        return status, (project / "all.jsonl").read_text().count("not run")

    assert report("1.jsonl", "2.jsonl") == (0, 0)
    assert report("2.jsonl") == (3, 2)


@installed
@pytest.mark.parametrize(("method", "outcome"), [("signal", "failure"), ("thread", "error")])
def test_a_time_out_ends_a_test_in_a_guest(method: str, outcome: str, project: Path) -> None:
    (project / "test_own.py").write_text(HANGING)
    ran = Ran(project, ["pytest-timeout"], "--timeout=3", f"--timeout-method={method}", "test_own.py")
    assert ran.outcomes == {"test_hangs": outcome}, ran.output
    assert "INTERNALERROR" not in ran.output


@pytest.mark.parametrize("name", ["repeat", "pytest_repeat"])
def test_scenarios_are_repeated_whatever_pytest_repeat_calls_itself(name: str, pytester: pytest.Pytester) -> None:
    option = 'def pytest_addoption(parser): parser.addoption("--count", type=int, default=1)'
    pytester.makepyfile(**{name: option})
    pytester.mkdir("scenarios").joinpath("t.nft").write_text(RULESET)
    pytester.path.joinpath("scenarios/t.yaml").write_text(SCENARIOS)
    ran = pytester.runpytest_subprocess(
        "-p", "harness.plugin", "-p", name, "--count=2", "--collect-only", "-q", "-k", "dropped"
    )
    ran.stdout.fnmatch_lines(["*::dropped?1?", "*::dropped?2?"])


class TestHypothesis:
    """Its summary would import all of it: as much time again as a scenario takes."""

    PLUGIN = """
import sys
from harness.linux import features

features.function_probes = features.kprobe_multi = lambda: features.Support(True)

def pytest_unconfigure(config):
    print("hypothesis:", "hypothesis" in sys.modules)
"""

    @pytest.fixture
    def project(self, pytester: pytest.Pytester) -> pytest.Pytester:
        pytest.importorskip("hypothesis")
        pytester.makeconftest(self.PLUGIN)
        pytester.mkdir("scenarios").joinpath("t.nft").write_text(RULESET)
        pytester.path.joinpath("scenarios/t.yaml").write_text(SCENARIOS)
        return pytester

    def test_a_session_that_does_without_does_not_import_it(self, project: pytest.Pytester) -> None:
        ran = project.runpytest_subprocess("--collect-only", "-q")
        ran.stdout.fnmatch_lines(["*::dropped", "hypothesis: False"])

    def test_one_that_uses_it_has_its_summary(self, project: pytest.Pytester) -> None:
        project.makepyfile(
            """
            from hypothesis import given, strategies as st

            @given(st.booleans())
            def test_any(value): pass
            """
        )
        options = ["--hypothesis-show-statistics", "-p", "no:cacheprovider"]
        ran = project.runpytest_subprocess(*options, "-n1", "--nft-kernel=host", "scenarios", ".", "-k", "test_any")
        ran.stdout.fnmatch_lines(["*Hypothesis Statistics*", "*test_any*"])
