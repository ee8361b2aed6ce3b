"""A trial: what differs, the failure, and what readers of reports get."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.experiment.run import Measurement
from harness.model.result import Result
from harness.pytest_plugin import trial
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.scenario.models.expect import Expect
from tests.pytest_plugin.builders import measurement

Make = Callable[..., Result]


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Expects that a packet is dropped, and that it is delivered nowhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edge.nft").touch()
    Path("edge.yaml").write_text(
        "ruleset: edge.nft\nscenarios:\n- name: web\n  send: {from: client, to: server, tcp: {dport: 443}}\n"
        "  expect: {verdict: drop, delivered: nowhere}\n"
    )
    (found,) = load(Path("edge.yaml"))
    assert isinstance(found, Case)
    return found


def measured(case: Case, make_result: Make, **more: Any) -> Measurement:
    expect = case.actions[0].expect
    assert isinstance(expect, Expect)
    return measurement(make_result(**more), expect)


def trial_of(case: Case, *measurements: Measurement) -> trial.Trial:
    return trial.Trial(
        nodeid="", name="web", path=case.file, line=3, case=case, colour=False, measurements=measurements
    )


def test_differences_stand_where_the_expectation_is_written(case: Case, make_result: Make) -> None:
    found = trial.differing(case, measured(case, make_result))
    assert [(one.key, str(one.position)) for one in found] == [
        ("expect.verdict", "edge.yaml:5:21"),
        ("expect.delivered", "edge.yaml:5:38"),
    ]


def test_the_failure_is_that_of_the_first_packet_that_differs(case: Case, make_result: Make) -> None:
    right, wrong = measured(case, make_result, accepted=False), measured(case, make_result)
    found = [trial.differing(case, one) for one in (right, wrong, wrong)]
    failure = trial.failure_of(case, (right, wrong, wrong), found, colour=False)
    assert failure is not None
    assert str(failure.position) == "edge.yaml:5:21"
    assert failure.summary == "expect.verdict: expected drop, seen accept, and 1 more"
    assert "web" in failure.text
    assert trial.failure_of(case, (right,), found[:1], colour=False) is None


def test_properties_for_junit(case: Case, make_result: Make) -> None:
    several = (measured(case, make_result), measured(case, make_result, accepted=False))
    found = dict(trial.properties(several))
    assert found["nft.verdict"] == "accept; drop"
    assert found["nft.kernel"] == "6.12.1"
    assert str(found["nft.rule"]).startswith("inet edge forward, rulesets/edge.nft:5 (handle 4): tcp dport 443 accept")
    assert str(found["nft.loss"]).startswith("0 of 7")
    assert dict(trial.properties(())) == {}


def test_packets_that_went_the_same_way_are_shown_once(case: Case, make_result: Make) -> None:
    accepted = measured(case, make_result)
    text = trial.paths(trial_of(case, accepted, accepted, measured(case, make_result, accepted=False)))
    assert text.count("2 packets went the same way") == 1
    assert text.count("dropped on device by inet edge forward, policy drop") == 1


def test_notes_name_the_ruleset(case: Case, make_result: Make) -> None:
    noted = msgspec.structs.replace(measured(case, make_result), notes=("a note",))
    assert list(trial.notes(trial_of(case, noted))) == [("edge.nft", "a note")]


def test_where_the_oracles_disagree_nothing_was_decided(case: Case, make_result: Make) -> None:
    whole = measured(case, make_result)
    silent = msgspec.structs.replace(whole.packet, steps=())
    assert trial.decided(whole) is not None
    assert trial.decided(msgspec.structs.replace(whole, packet=silent)) is None
