"""No guest is booted where every scenario is broken already.

The guests are Pythons of this machine, as in test_distribute.py; here they leave a file when they are planned.
"""

from __future__ import annotations

import pytest

from harness.errors import HarnessError
from harness.ruleset.nft import Nft, NftError

pytest_plugins = ["pytester"]

RIGHT = "table inet t { chain c { type filter hook forward priority 0; }; }\n"
SCENARIOS = """\
ruleset: web.nft
scenarios:
  - name: one
    send: {from: client, to: server, tcp: {dport: 80}}
    expect: {verdict: accept}
"""
PRETENDED = """
from pathlib import Path
from harness.pytest_plugin import distribute, session
from harness.linux import features
from harness.vm import guest, images, kernel_image

def plan(cls, image):
    Path("planned").touch()
    return cls(image, "tcg")

features.function_probes = lambda: features.Support(False, "this kernel is for tests")
images.get = lambda request, progress: kernel_image.Image(
    release=f"{request}.9", vmlinuz=Path("vmlinuz"), modules=Path("."), config=None
)
guest.Guest.plan = classmethod(plan)
guest.Guest.spec = lambda self, copy=0: f"popen//id={self.worker(copy)}"
distribute.ASK = "channel.send(('6.12.9', 'of this guest'))"
session.Session.run = lambda self, case: ()
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    try:
        Nft(None).run("table ip t { }")
    except NftError:
        pass
    except HarnessError as error:
        pytest.skip(f"no ruleset can be read here: {error}")
    for name in ("NFT_KERNEL", "NFT_PROGRAM", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    pytester.mkdir("scenarios")
    pytester.path.joinpath("scenarios/web.nft").write_text(RIGHT)
    pytester.path.joinpath("scenarios/web.yaml").write_text(SCENARIOS)
    pytester.makeconftest(PRETENDED)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, bool]:
    """The session, and whether a guest was planned."""
    planned = project.path / "planned"
    planned.unlink(missing_ok=True)
    result = project.runpytest_subprocess("--nft-kernel=6.12", *arguments, timeout=120)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    return result, planned.exists()


def test_a_right_file_boots(project: pytest.Pytester) -> None:
    for quiet in ((), ("-q",)):  # the second time it is known
        result, planned = run(project, *quiet)
        result.assert_outcomes(passed=1)
        assert planned
        said = result.stdout.str()
        assert not (quiet and ("bringing up nodes" in said or "created: " in said))


def test_a_wrong_ruleset_does_not(project: pytest.Pytester) -> None:
    ruleset = project.path / "scenarios/web.nft"
    assert run(project)[1]
    ruleset.write_text("table inet t { chain c { tcp dport 22 acept; }; }\n")
    result, planned = run(project)
    assert not planned
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["nft-harness: nothing is booted: every scenario is broken", "scenarios/web.nft:1:44: nft: syntax error,*"]
    )
    ruleset.write_text(RIGHT)
    assert run(project)[1]


def test_a_wrong_file_does_not(project: pytest.Pytester) -> None:
    (project.path / "scenarios/web.yaml").write_text(SCENARIOS.replace("verdict: accept", "verdict: acept"))
    result, planned = run(project)
    assert not planned
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["scenarios/web.yaml:5:23: expect.verdict: 'acept' is not*"])


def test_one_right_scenario_is_enough(project: pytest.Pytester) -> None:
    scenarios = project.path / "scenarios"
    (scenarios / "a.yaml").write_text(SCENARIOS.replace("web.nft", "a.nft"))
    (scenarios / "a.nft").write_text("nonsense\n")
    (scenarios / "b.yaml").write_text("ruleset: web.nft\n")
    assert run(project)[1]
    assert not run(project, "scenarios/a.yaml", "scenarios/b.yaml")[1]


def test_a_test_in_python_is_enough(project: pytest.Pytester) -> None:
    project.path.joinpath("scenarios/web.nft").write_text("nonsense\n")
    project.makepyfile("def test_it(nft_run): pass")
    assert run(project)[1]


def test_what_is_to_be_recorded_boots(project: pytest.Pytester) -> None:
    scenarios = project.path / "scenarios/web.yaml"
    scenarios.write_text("".join(line for line in SCENARIOS.splitlines(keepends=True) if "expect" not in line))
    assert not run(project)[1]
    assert run(project, "--nft-record")[1]
