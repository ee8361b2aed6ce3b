"""What became of a scenario, as it is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Position, ScenarioError
from harness.model.mismatch import Mismatch
from harness.model.result import Result
from harness.pytest_plugin.results import lab_plan, packet_result, to_result
from harness.pytest_plugin.trial import Failure, Trial
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.pytest_plugin.builders import measurement

Make = Callable[..., Result]
PLACE = Position("edge.yaml", 5, 3)


def report(when: str, outcome: str, longrepr: Any = None) -> pytest.TestReport:
    return pytest.TestReport("id", ("edge.yaml", 2, "web"), {}, outcome, longrepr, when)  # type: ignore[arg-type]


def trial(**more: Any) -> Trial:
    case = ScenarioError("is wrong", PLACE)
    return Trial(nodeid="edge.yaml::web", name="web", path=Path("edge.yaml"), line=3, case=case, colour=False, **more)


@pytest.mark.parametrize(
    ("when", "outcome", "stored"),
    [
        ("call", "passed", "passed"),
        ("call", "failed", "failed"),
        ("setup", "failed", "error"),
        ("setup", "skipped", "skipped"),
    ],
)
def test_the_outcome(when: str, outcome: str, stored: str) -> None:
    assert to_result(trial(), report(when, outcome)).outcome == stored


def test_a_failure_that_is_recorded_is_one_although_the_report_says_it_passed() -> None:
    failed = trial(failure=Failure("all that differs", PLACE, "the first"), seconds=0.5)
    found = to_result(failed, report("call", "passed"))
    assert (found.outcome, found.where, found.message) == ("failed", PLACE, "all that differs")
    assert (found.id, found.position, found.seconds) == ("edge.yaml::web", Position("edge.yaml", 3), 0.5)


def test_the_reason_of_a_skip() -> None:
    assert to_result(trial(), report("setup", "skipped", ("edge.yaml", 3, "no VRF"))).message == "no VRF"


def test_a_packet_and_how_it_was_judged(make_result: Make) -> None:
    one = measurement(make_result())
    wrong = (Mismatch(keys=("expect", "verdict"), position=PLACE, expected="drop", seen="accept"),)
    found = packet_result(one, wrong, ScenarioError("", PLACE), one.ruleset)
    assert (found.verdict, found.ended, found.mismatches) == ("accept", "delivered to server", wrong)
    assert found.observation.traced == frozenset()  # not stored: some 1,900 names
    assert found.seen == one.packet


def test_the_lab_as_reports_show_it() -> None:
    plan = lab_plan(Network.of(LABS["router"]))
    assert (plan.hosts, plan.device) == (("client", "device", "server"), "device")
    wan = next(one for one in plan.interfaces if one.name == "wan0")
    assert (wan.host, wan.peer, wan.addresses[0]) == ("device", ("client", "eth0"), "203.0.113.1/24")
