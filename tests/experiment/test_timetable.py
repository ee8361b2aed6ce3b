"""A slow machine makes a broken measurement of what time decides, and of nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.errors import BrokenMeasurement
from harness.experiment import run
from harness.experiment.timetable import Timetable
from harness.model.observation import Lasting
from harness.pytest_plugin.trial import differing
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer
from harness.wait import wait_for_turn
from tests.builders import PASSED, changed, observation, rule, step

ACCEPTED = step("accept", rule("limit rate 10/second burst 2 packets accept"))
PASSING = observation(changed(steps=(ACCEPTED,), hops=()))
RULESET = """\
table inet t {
	set seen { type ipv4_addr; flags dynamic; timeout 1s; }
	chain c {
		type filter hook input priority 0; policy drop
		tcp dport 80 limit rate 2/second burst 2 packets accept
		tcp dport 81 limit rate over 2/second burst 2 packets drop
		tcp dport 81 accept
		udp dport 53 add @seen { ip saddr } accept
		udp dport 54 ip saddr @seen accept
	}
}
"""
COUNTED = "{send: {from: client, to: device, tcp: {dport: %d}, count: 4}, expect: [%s]}"
TWICE = "{packets: 2, verdict: accept}, {packets: 2, verdict: drop}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 100.0

    def passed(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    return passed


def test_late_is_what_the_scenario_has_not_asked_for(clock: Callable[[float], None]) -> None:
    times = Timetable()
    clock(5)
    assert times.late == 0
    for pace in (0, 0, 0.5):
        times.begin(pace)
        clock(1)
    with times.waiting():
        clock(7)
    with times.programs():
        clock(2)
    assert (times.late, times.since_load, times.asked) == (4.5, 9.5, 9.5)


def test_what_may_have_expired_since_it_was_loaded(clock: Callable[[float], None]) -> None:
    times = Timetable()
    clock(3)
    times.begin()
    clock(1)
    times.saw([PASSING, PASSING])
    lasting = [Lasting("one", 3.5), Lasting("other", 4.5)]
    pace = times.pace(times.late, PASSING, lasting)
    assert (pace.late, pace.packets, pace.lasting) == (1.0, 2, (lasting[0],))


@pytest.mark.parametrize(
    ("asked", "is_beyond"), [([0, 0, 0], True), ([0, 0.1, 0.2], False), ([0, 0, 0.05], True), ([0, 0], False)]
)
def test_what_a_limit_let_pass_must_have_been_allowed_at_the_pace_of_the_scenario(
    asked: list[float], is_beyond: bool
) -> None:
    seen = [PASSING] * len(asked)
    if not is_beyond:
        Timetable().refuse_beyond_limit(seen, asked)
        return
    with pytest.raises(BrokenMeasurement, match="let 3 packets pass, and not 2, because they came later"):
        Timetable().refuse_beyond_limit(seen, asked)
    Timetable().refuse_beyond_limit([observation(PASSED)] * len(asked), asked)


def test_a_limit_that_is_loaded_anew_lets_as_much_pass_again() -> None:
    times = Timetable()
    for _ in range(3):
        times.refuse_beyond_limit([PASSING] * 2, [0, 0])
        times.loaded_anew()


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("steps", "pause", "said"),
    [
        pytest.param([COUNTED % (80, TWICE)], 0.6, "let 3 packets pass, and not 2", id="within-a-limit"),
        pytest.param(
            [COUNTED % (81, TWICE)], 0.6, "s later than the scenario asks, in which `limit", id="over-a-limit"
        ),
        pytest.param(
            [
                "{send: {from: client, to: device, udp: {dport: 53}}, expect: {verdict: accept}}",
                "{send: {from: client, to: device, udp: {dport: 54}}, expect: {verdict: accept}}",
            ],
            3.0,
            "an element of set seen stays 1 s",
            id="expired",
        ),
        pytest.param([COUNTED % (82, "{verdict: accept}")], 0.6, "", id="nothing-that-time-decides"),
    ],
)
def test_a_machine_that_is_slow(
    steps: list[str], pause: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.nft").write_text(RULESET)
    (tmp_path / "t.yaml").write_text(
        "lab: host\nruleset: t.nft\nscenarios:\n  - name: one\n    steps:\n"
        + "".join(f"      - {one}\n" for one in steps)
    )
    (case,) = load(tmp_path / "t.yaml")
    assert isinstance(case, Case), case

    def slowly(turn: float, meanwhile: Callable[[], object]) -> None:
        wait_for_turn(max(turn, time.monotonic() + pause), meanwhile)

    monkeypatch.setattr(run, "wait_for_turn", slowly)
    with Tracer(KernelCache(cache_dir())) as tracer:
        if said:
            with pytest.raises(BrokenMeasurement, match=said):
                measured_and_judged(case, tracer)
        else:
            assert all(measured_and_judged(case, tracer))


def measured_and_judged(case: Case, tracer: Tracer) -> list[object]:
    return [differing(case, one) for one in run.run(case, tracer)]
