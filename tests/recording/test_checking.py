"""Whether what was recorded holds for what was seen next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.model.observation import Loss
from harness.model.result import PacketResult, Result
from harness.recording.checking import differing
from harness.scenario.case import Case
from harness.scenario.load import load

Make = Callable[..., Result]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    (tmp_path / "edge.nft").touch()
    file = tmp_path / "edge.yaml"
    file.write_text(
        "ruleset: edge.nft\nscenarios:\n- name: web\n  send: {from: client, to: server, tcp: {dport: 443}}\n"
        "  expect: {verdict: accept, delivered: server}\n"
    )
    (found,) = load(file)
    assert isinstance(found, Case)
    return found


def found(case: Case, result: Result, *sent: PacketResult) -> str:
    assert result.ruleset is not None
    return differing(case, sent or result.sent, result.ruleset.rules, "6.12")


def test_the_first_key_that_does_not_hold_is_named(case: Case, make_result: Make) -> None:
    assert found(case, make_result()) == ""
    assert found(case, make_result(accepted=False)) == "expect.verdict"


def test_a_measurement_that_was_broken_shows_why(case: Case, make_result: Make) -> None:
    result = make_result()
    (sent,) = result.sent
    lossy = msgspec.structs.replace(sent.observation, loss=Loss(entered=9, received=8, refused=1))
    assert found(case, result, msgspec.structs.replace(sent, observation=lossy)).startswith("lost 1 of 9 events")


def test_a_step_that_the_scenario_does_not_have_is_left_out(case: Case, make_result: Make) -> None:
    result = make_result(accepted=False)
    assert found(case, result, msgspec.structs.replace(result.sent[0], action=7)) == ""
