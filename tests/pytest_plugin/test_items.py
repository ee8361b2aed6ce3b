"""Each bad outcome of a scenario has its own word in pytest, and is shown without a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.model import stored_results
from harness.pytest_plugin import items

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]

RIGHT = "expect: {verdict: accept}"


def test_outcomes(scenarios: Run) -> None:
    ran = scenarios((443, RIGHT), (23, RIGHT), (7, RIGHT), (8, RIGHT), (22, "expect: {verdct: accept}"))
    ran.assert_outcomes(passed=1, failed=1, errors=2, skipped=1)
    text = ran.stdout.str()
    assert re.search(r"^scenarios/edge\.yaml:8:\d+: port 23$", text, re.M)
    assert "two oracles disagree" in text
    assert "'verdct' is not a valid key here; did you mean 'verdict'?" in text
    assert (
        "unsupported here: this kernel has no VRF; modprobe vrf"
        in scenarios((8, RIGHT), arguments=("-rs",)).stdout.str()
    )
    assert "Traceback" not in text


def test_what_the_kernel_lacks_is_an_error_where_everything_is_required(scenarios: Run) -> None:
    scenarios((8, RIGHT), arguments=("--nft-require",)).assert_outcomes(errors=1)


def test_a_file_that_is_wrong_as_a_whole_is_an_item(scenarios: Run, pytester: pytest.Pytester) -> None:
    scenarios((443, RIGHT))
    (pytester.path / "scenarios/edge.yaml").write_text("rulset: edge.nft\nscenarios: []\n")
    ran = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--nft-kernel", "host", "-v")
    ran.stdout.fnmatch_lines(["scenarios/edge.yaml::file ERROR*"])


def test_turns_have_names_of_their_own(scenarios: Run) -> None:
    ran = scenarios((443, RIGHT), arguments=("--nft-repeat", "2", "-v"))
    ran.assert_outcomes(passed=2)
    ran.stdout.fnmatch_lines(["*::port-443[[]1] PASSED*", "*::port-443[[]2] PASSED*"])


def test_marks_with_and_without_arguments(scenarios: Run, pytester: pytest.Pytester) -> None:
    marks = "marks: [slow, skip(reason='not yet')]\n  expect: {verdict: accept}"
    ran = scenarios((443, marks), (23, RIGHT), arguments=("-m", "slow", "-rs", "-W", "ignore"))
    ran.assert_outcomes(skipped=1, deselected=1)
    ran.stdout.fnmatch_lines(["*not yet*"])


COUNTING = """
import gc
from harness.experiment.run import Measurement
from harness.model.result import Result

held = {Measurement: 0, Result: 0}

def pytest_runtest_logfinish():
    for kind in held:
        held[kind] = max(held[kind], sum(isinstance(one, kind) for one in gc.get_objects()))

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"held: {held[Measurement]} {held[Result]}")
"""


def test_memory_holds_nothing_of_scenarios_that_have_ended(scenarios: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(COUNTING)
    reports = ("--nft-results=results", "--nft-jsonl=results.jsonl", "--nft-record")
    ran = scenarios((443, RIGHT), (23, RIGHT), arguments=("--nft-repeat", "10", *reports))
    ran.assert_outcomes(passed=10)
    found = re.search(r"^held: (\d+) (\d+)$", ran.stdout.str(), re.M)
    assert found
    assert max(map(int, found.groups())) <= 6, found[0]


def test_a_scenario_of_which_too_much_was_seen_is_an_error(scenarios: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "RESULT_BYTES", 1 << 10)
    scenarios((443, RIGHT)).assert_outcomes(passed=1)
    ran = scenarios((443, RIGHT), (23, RIGHT), arguments=("--nft-results=results",))
    ran.assert_outcomes(errors=2)
    assert ran.ret == 6
    ran.stdout.fnmatch_lines(["*what was seen of its packets takes 0 MiB*limit; send fewer packets*"])
    monkeypatch.setattr(items, "RESULT_BYTES", 1 << 5)
    scenarios((443, RIGHT), arguments=("-v",)).assert_outcomes(errors=1)
    scenarios((443, RIGHT)).assert_outcomes(passed=1)
    scenarios((23, RIGHT)).assert_outcomes(errors=1)
    assert [one.outcome for one in stored_results.load([Path("results")])] == ["error", "error"]


def test_memory_that_cannot_be_had_is_a_sentence(scenarios: Run) -> None:
    ran = scenarios((9, RIGHT), (443, RIGHT))
    ran.assert_outcomes(passed=1, errors=1)
    ran.stdout.fnmatch_lines(
        ["this process may not have more memory; raise its limit (ulimit -v) or that of its cgroup, or free some"]
    )
    ran.stdout.no_fnmatch_line("*Traceback*")
    ran.stdout.no_fnmatch_line("*MemoryError*")
