"""Sessions that end early: Ctrl-C at the end, and memory, files or disk space that run out outside of any scenario."""

from __future__ import annotations

import os
import re

import pytest

from harness.pytest_plugin.reports import BROKEN
from harness.report import kinds

pytest_plugins = ["pytester"]

A_KERNEL = """
from harness.linux import features
from harness.pytest_plugin import session

features.function_probes = features.kprobe_multi = lambda: features.Support(True)
session.Session.run = lambda self, case: ()
"""
SCENARIO = """\
lab: router
ruleset: t.nft
scenarios:
  - {name: one, send: {from: client, to: server, tcp: {dport: 1}}, expect: {verdict: accept}}
  - {name: two, send: {from: client, to: server, tcp: {dport: 2}}, expect: {verdict: accept}}
"""
NO_MEMORY = "this process may not have more memory; raise its limit (ulimit -v)*"
OUT_OF = {
    "memory": ("MemoryError()", NO_MEMORY),
    "frames": ("SystemError('<method> returned NULL without setting an exception')", NO_MEMORY),
    "files": ("OSError(24, 'Too many open files', 'x.py')", "x.py: this process may not open more files; raise*"),
}
ENDS = {
    "pytest_collection_modifyitems": {"errors": 2},
    "pytest_runtest_logstart": {"errors": 2},
    "pytest_runtest_logfinish": {"passed": 1, "errors": 1},
    "pytest_runtest_logreport": None,
    "pytest_sessionfinish": None,
    "pytest_terminal_summary": None,
}
"""By the hook in which something runs out: what becomes of two scenarios; None where pytest's summary is missing."""
RUNS = [
    *((hook, ()) for hook in ENDS),
    *((hook, ("--nft-kernel", "host", "-n", "1")) for hook in ENDS if "collection" not in hook),  # the workers' own
]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, this_cache: object) -> pytest.Pytester:
    """Two scenarios that pass on no kernel."""
    for name in ("NFT_KERNEL", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(A_KERNEL)
    (scenarios := pytester.mkdir("scenarios")).joinpath("t.nft").write_text("table ip t { }\n")
    (scenarios / "t.yaml").write_text(SCENARIO)
    return pytester


def run(project: pytest.Pytester, *arguments: str, plugin: str = "") -> pytest.RunResult:
    """pytest's end, with a plugin of somebody else, and without a traceback."""
    (project.path / "short.py").write_text(plugin)
    done = project.runpytest_subprocess("-p", "short", *arguments, timeout=120)
    assert "Traceback" not in done.stdout.str() + done.stderr.str()
    assert "INTERNALERROR" not in done.stdout.str() + done.stderr.str()
    return done


@pytest.mark.parametrize("out_of", OUT_OF)
@pytest.mark.parametrize(("hook", "workers"), RUNS)
def test_a_hook_that_runs_out_of_something_breaks_the_run_with_a_sentence(
    hook: str, out_of: str, workers: tuple[str, ...], project: pytest.Pytester
) -> None:
    if workers and os.geteuid():
        pytest.skip("only root's workers use the machine's own kernel without sudo")
    error, said = OUT_OF[out_of]
    plugin = f"import os\n\ndef {hook}():\n    if 'PYTEST_XDIST_WORKER' not in os.environ:\n        raise {error}\n"
    done = run(project, *workers, plugin=plugin)
    assert done.ret == BROKEN
    if ends := ENDS[hook]:
        done.stdout.fnmatch_lines([f"nft-harness: {said}"])
        done.assert_outcomes(**ends)
    else:
        done.stderr.fnmatch_lines([f"Exit: nft-harness: {said}"])


def test_what_a_session_without_scenarios_runs_out_of_is_left_to_pytest(project: pytest.Pytester) -> None:
    (project.path / "scenarios/t.yaml").unlink()
    project.makepyfile(
        test_one="def test_one(): pass", short="def pytest_runtest_logfinish():\n    raise MemoryError\n"
    )
    done = project.runpytest_subprocess("-p", "short")
    assert done.ret == pytest.ExitCode.INTERNAL_ERROR
    done.stdout.fnmatch_lines(["INTERNALERROR> MemoryError"])


@pytest.mark.parametrize("error", ["ValueError()", "OSError(5, 'Input/output error')"])
def test_another_error_is_left_to_pytest(error: str, project: pytest.Pytester) -> None:
    project.makepyfile(short=f"def pytest_runtest_logfinish():\n    raise {error}\n")
    assert project.runpytest_subprocess("-p", "short").ret == pytest.ExitCode.INTERNAL_ERROR


@pytest.mark.parametrize("option", ["--junitxml=/dev/full", "--nft-html=/dev/full", "--nft-jsonl=/dev/full"])
def test_a_report_for_which_no_space_is_left_breaks_the_run(option: str, project: pytest.Pytester) -> None:
    done = run(project, option)
    assert done.ret == BROKEN
    assert "no space left on device" in (done.stdout.str() + done.stderr.str()).lower()


@pytest.mark.parametrize("error", ["MemoryError()", "SystemError('error return without exception set')"])
@pytest.mark.parametrize("kind", [kind.name for kind in kinds.KINDS])
def test_where_there_is_no_memory_for_a_report_the_others_are_written(
    kind: str, error: str, project: pytest.Pytester
) -> None:
    plugin = f"""\
from harness.report import kinds

def short(*_):
    raise {error}

kinds.KINDS = tuple(one._replace(write=short) if one.name == "{kind}" else one for one in kinds.KINDS)
"""
    others = [one.name for one in kinds.KINDS if one.name != kind]
    done = run(project, *(f"--nft-{name}=build/{name}" for name in (kind, *others)), plugin=plugin)
    assert done.ret == BROKEN
    done.stdout.fnmatch_lines([f"nft-harness: {kind} can't be written to build/{kind}: {NO_MEMORY}"])
    written = re.findall(r"nft-harness: .*(?:is in|nothing to write to) build/(\S+)", done.stdout.str())
    assert set(written) == set(others)


EATS_ALL = """\
import resource
from pathlib import Path

eaten = []

def pytest_runtest_logfinish():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
    for size in (1 << 20, 1 << 14, 1 << 10, 100):
        try:
            while True:
                eaten.append(bytes(size))
        except MemoryError:
            pass
    raise MemoryError
"""


def test_where_no_byte_is_left_the_reports_and_the_summary_are_written(project: pytest.Pytester) -> None:
    done = run(project, "--nft-html=r.html", "--nft-results=results", plugin=EATS_ALL)
    assert done.ret == BROKEN
    done.stdout.fnmatch_lines([f"nft-harness: {NO_MEMORY}"])
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["nft-harness: html is in r.html"])


@pytest.mark.parametrize("hook", ["pytest_sessionfinish", "pytest_terminal_summary"])
def test_ctrl_c_while_reports_or_the_summary_are_written_is_no_traceback(hook: str, project: pytest.Pytester) -> None:
    plugin = f"import signal\n\ndef {hook}():\n    signal.raise_signal(signal.SIGINT)\n"
    done = run(project, plugin=plugin)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stderr.fnmatch_lines(["Exit: nft-harness: interrupted before the session was complete"])
