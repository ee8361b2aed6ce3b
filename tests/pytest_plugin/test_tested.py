"""A run that tested nothing, or less than it should have, does not look like a good one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.pytest_plugin import reports

pytest_plugins = ["pytester"]

RULESET = "table inet t { chain c { type filter hook forward priority 0; }; }\n"
SCENARIO = """\
  - name: {name}
    send: {{from: client, to: server, tcp: {{dport: {port}}}}}
    expect: {{verdict: accept}}
"""
KERNELS = '''
"""A kernel that shows nothing wrong, but for what scenarios are called; guests are Pythons of this machine."""
import os
from pathlib import Path

import pytest
from harness.pytest_plugin import distribute, session
from harness.errors import Unsupported
from harness.linux import features
from harness.vm import guest, images, kernel_image

features.function_probes = features.kprobe_multi = lambda: features.Support(True)
images.get = lambda request, progress: kernel_image.Image(
    release=f"{request}.9", vmlinuz=Path("vmlinuz"), modules=Path("."), config=None
)
guest.Guest.plan = classmethod(lambda cls, image: cls(image, "tcg"))
guest.Guest.spec = lambda self, copy=0: f"popen//id={self.worker(copy)}"
distribute.ASK = "channel.send((channel.gateway.id.removesuffix('-worker').partition('-')[0], 'of this guest'))"

def run(self, case):
    worker = getattr(self._config, "workerinput", {}).get("workerid", "")
    if "unsupported" in case.name or ("old" in case.name and worker == "6.1.9"):
        raise Unsupported("this kernel has no VRF", remedy="modprobe vrf")
    if "fatal" in case.name:
        os._exit(1)
    assert "wrong" not in case.name
    return ()

session.Session.run = run
'''


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project without scenarios."""
    for name in ("NFT_KERNEL", "PYTEST_ADDOPTS", "CI"):
        monkeypatch.delenv(name, raising=False)
    (pytester.mkdir("scenarios") / "web.nft").write_text(RULESET)
    pytester.makeconftest(KERNELS)
    return pytester


def write(project: pytest.Pytester, *names: str, more: str = "") -> None:
    text = "".join(SCENARIO.format(name=name, port=port) for port, name in enumerate(names, 1))
    (project.path / "scenarios/web.yaml").write_text(f"ruleset: web.nft\nscenarios:\n{text}{more}")


def run(project: pytest.Pytester, *arguments: str) -> tuple[int, str, str]:
    """Exit status, all that was said, and its last line."""
    result = project.runpytest_subprocess(*arguments, timeout=120)
    said = result.stdout.str()
    assert "Traceback" not in said + result.stderr.str()
    assert "INTERNALERROR" not in said
    return int(result.ret), said, said.rstrip().splitlines()[-1]


def junit(project: pytest.Pytester) -> dict[str, str]:
    """What JUnit's readers see of each test."""
    cases = ET.parse(project.path / "out.xml").getroot().iter("testcase")
    return {case.get("name", ""): " ".join(f"{one.tag} {one.get('message')}" for one in case) for case in cases}


def stored(project: pytest.Pytester) -> set[tuple[str, str, str, str]]:
    """Scenario, kernel, outcome and message of each stored result."""
    results = [json.loads(file.read_text()) for file in Path(project.path, "results").glob("*.json")]
    return {(one["id"].partition("::")[2], one["kernel"], one["outcome"], one["message"]) for one in results}


class TestSkippedEverywhere:
    @pytest.mark.parametrize(("ci", "status"), [("", 0), ("false", 0), ("0", 0), ("true", reports.BROKEN)])
    def test_nothing_tested_is_no_success_in_ci(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, status: int
    ) -> None:
        monkeypatch.setenv("CI", ci)
        write(project, "unsupported one", "unsupported two")
        ended, _, last = run(project, "-q")
        assert ended == status
        assert last.startswith("nft-harness: NOTHING WAS TESTED: all 2 scenarios were skipped on every kernel")
        assert "this kernel has no VRF; modprobe vrf" in last
        assert ("exit status 6" in last) is bool(status)

    def test_each_scenario_counts(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        write(project, "unsupported", "good")
        ended, _, last = run(project)
        assert ended == reports.BROKEN
        assert "NOT EVERYTHING WAS TESTED: 1 scenario was skipped on every kernel; scenarios/web.yaml::uns" in last

    @pytest.mark.parametrize(("word", "status"), [("no vrf", 0), ("no secmark", reports.BROKEN)])
    def test_what_it_may_miss_is_declared(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, word: str, status: int
    ) -> None:
        monkeypatch.setenv("CI", "true")
        write(project, "good", "unsupported", more=f"    may_miss: [{word}]\n")
        ended, said, _ = run(project)
        assert ended == status
        assert ("TESTED" in said) is bool(status)

    def test_one_kernel_that_can_is_enough(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        write(project, "for no old kernel", "good")
        kernels = ["--nft-kernel=6.1", "--nft-kernel=6.12"]
        ended, said, _ = run(project, *kernels)
        assert ended == 0
        assert "3 passed, 1 skipped" in said
        assert "TESTED" not in said

    def test_other_tests_are_as_ever(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        project.makepyfile(test_x="import os, pytest\ndef test_x(): pytest.skip('no')\ndef test_y(): os._exit(1)\n")
        ended, said, _ = run(project, "test_x.py::test_x")
        assert ended == 0
        assert "TESTED" not in said
        assert run(project, "-n1", "--max-worker-restart=0")[0] == pytest.ExitCode.TESTS_FAILED


class TestNeverRun:
    OPTIONS = ("--junitxml=out.xml", "--nft-results=results")

    def test_when_the_session_was_stopped(self, project: pytest.Pytester) -> None:
        write(project, "good", "wrong", "later")
        ended, said, _ = run(project, "-x", *self.OPTIONS)
        assert ended == reports.BROKEN  # of the error
        assert "1 passed, 1 error" in said
        why = "not run: the session was stopped before it"
        assert junit(project)["later"] == f"skipped {why}"
        assert {(one, outcome, message) for one, _, outcome, message in stored(project)} >= {("later", "skipped", why)}
        assert "2 passed" in run(project, "--deselect=scenarios/web.yaml::wrong")[1]

    def test_when_a_worker_died(self, project: pytest.Pytester) -> None:
        write(project, "good", "fatal", "later", "last")
        ended, said, _ = run(project, "--nft-kernel=6.12", *self.OPTIONS)
        assert ended == reports.BROKEN
        assert "1 passed, 3 errors" in said
        why = "not run: worker 6.12.9 died before it"
        assert why in junit(project)["later"]
        assert why in junit(project)["last"]
        assert {("later", "6.12.9", "error", why), ("last", "6.12.9", "error", why)} <= stored(project)

    @pytest.mark.parametrize("hook", ["pytest_collection", "pytest_sessionstart"])  # once it was ready, and before
    def test_when_a_worker_died_before_it_knew_its_tests(self, project: pytest.Pytester, hook: str) -> None:
        write(project, "good")
        dies = f"""
@pytest.hookimpl(tryfirst=True)
def {hook}(session):
    if hasattr(session.config, "workerinput"):
        os._exit(1)
"""
        project.makeconftest(KERNELS + dies)
        ended, said, _ = run(project, "--nft-kernel=6.12", *self.OPTIONS)
        assert ended == reports.BROKEN
        assert "1 error" in said
        assert "not run: worker 6.12.9 died before it" in next(iter(junit(project).values()))

    def test_when_a_worker_leaves_tests_out(self, project: pytest.Pytester) -> None:
        write(project, "good", "another")
        lazy = """
def pytest_runtest_protocol(item):
    return True if "another" in item.name and hasattr(item.config, "workerinput") else None
"""
        project.makeconftest(KERNELS + lazy)
        ended, said, _ = run(project, "--nft-kernel=6.12")
        assert ended == reports.BROKEN
        assert "not run: no worker has run it" in said
