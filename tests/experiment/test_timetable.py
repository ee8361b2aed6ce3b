"""A slow machine makes a broken measurement of what time decides, and of nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from tests.builders import changed, observation, rule, step

PASSING = observation(changed(steps=(step("accept", rule("accept")),), hops=()))
RULESET = """\
table inet t {
	limit slow { rate 2/second burst 2 packets; }
	limit excess { rate over 2/second burst 2 packets; }
	limit bulk { rate 100 bytes/second burst 1 bytes; }
	set seen { type ipv4_addr; flags dynamic; timeout 1s; }
	set loaded { type ipv4_addr; flags timeout; elements = { 192.0.2.5 timeout 1s }; }
	set each { type ipv4_addr; flags dynamic; }
	set own { type ipv4_addr; flags dynamic; limit rate 2/second burst 2 packets; }
	chain c {
		type filter hook input priority 0; policy drop
		tcp dport 80 limit rate 2/second burst 2 packets accept
		tcp dport 81 limit rate over 2/second burst 2 packets drop
		tcp dport 81 accept
		tcp dport 83 limit name "slow" accept
		tcp dport 84 limit name "excess" drop
		tcp dport 85 limit name "bulk" accept
		tcp dport 86 limit rate over 100 bytes/second burst 1 bytes drop
		tcp dport 87 update @each { ip saddr limit rate 2/second burst 2 packets } accept
		tcp dport 88 update @each { ip saddr limit rate over 2/second burst 2 packets } drop
		tcp dport 89 meter pairs { ip saddr . tcp dport limit rate 2/second burst 2 packets } accept
		tcp dport 90 add @own { ip saddr } accept
		tcp dport 91 limit name tcp dport map { 91 : "slow" } accept
		tcp dport 92 quota 100 bytes accept
		tcp dport { 82, 84, 86, 88 } accept
		udp dport 55 ip saddr @loaded accept
		udp dport 53 add @seen { ip saddr } accept
		udp dport 54 ip saddr @seen accept
	}
}
"""
COUNTED = "{send: {from: client, to: device, tcp: {dport: %d}, count: 4}, expect: [%s]}"
LATER = "s later than the scenario asks, in which `(limit|--hashlimit)"
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


EXPIRED = "{send: {from: client, to: device, udp: {dport: %d}}, expect: {verdict: accept}}"
ALL = "{verdict: accept}"


def beyond(port: int, passed: str = "3 packets", most: str = "2") -> Any:
    """A limit lets pass what it would not have at once, and that is expected."""
    return pytest.param([COUNTED % (port, ALL)], 0.6, f"let {passed} pass, and not {most},", id=f"beyond-{port}")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("steps", "pause", "said"),
    [
        *(beyond(80 + number) for number in (0, 1, 3, 4, 7, 8, 9, 10)),
        *(beyond(80 + number, "120 bytes", "101") for number in (5, 6)),
        pytest.param([COUNTED % (80, TWICE)], 0.6, "let 3 packets pass, and not 2", id="within-a-limit"),
        pytest.param([COUNTED % (81, TWICE)], 0.6, "let 3 packets pass, and not 2", id="over-a-limit"),
        pytest.param([COUNTED % (91, TWICE)], 0.6, LATER, id="a-limit-of-a-map"),
        pytest.param([EXPIRED % 53, EXPIRED % 54], 3.0, "an element of set seen stays 1 s", id="expired"),
        pytest.param([EXPIRED % 53, EXPIRED % 55], 3.0, "an element of set loaded stays 1 s", id="loaded-and-expired"),
        pytest.param([COUNTED % (82, ALL)], 0.6, "", id="nothing-that-time-decides"),
        pytest.param([COUNTED % (92, TWICE)], 0.6, "", id="a-quota-fills-at-any-pace"),
    ],
)
def test_a_machine_that_is_slow(
    steps: list[str], pause: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(tmp_path, RULESET, steps)
    monkeypatch.setattr(run, "wait_for_turn", slowly(pause))
    assert_decided_by_time(case, said)


IPTABLES = """\
*filter
:INPUT DROP [0:0]
-A INPUT -p tcp --dport 80 -m limit --limit 2/sec --limit-burst 2 -j ACCEPT
-A INPUT -p tcp --dport 81 -m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 2 --hashlimit-mode srcip \
--hashlimit-name a -j ACCEPT
-A INPUT -p tcp --dport 82 -m hashlimit --hashlimit-above 2/sec --hashlimit-burst 2 --hashlimit-mode srcip \
--hashlimit-name b -j DROP
-A INPUT -p tcp --dport 83 -m recent --name c --set
-A INPUT -p tcp --dport 83 -m recent --name c --rcheck --seconds 1 --hitcount 3 -j DROP
-A INPUT -p tcp --dport 84 -m quota --quota 100 -j ACCEPT
-A INPUT -p tcp --dport 82:83 -j ACCEPT
COMMIT
""".replace("\\\n", "")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("port", "expected", "said"),
    [
        pytest.param(80, ALL, "let 3 packets pass, and not 2", id="limit"),
        pytest.param(81, TWICE, f"let 3 packets pass|{LATER}", id="hashlimit"),  # as nft lists it, or not
        pytest.param(82, TWICE, f"let 3 packets pass|{LATER}", id="hashlimit-above"),
        pytest.param(83, TWICE, "looks back 1 s", id="recent"),
        pytest.param(84, TWICE, "", id="quota"),
    ],
)
def test_limits_of_iptables(
    port: int, expected: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(tmp_path, IPTABLES, [COUNTED % (port, expected)])
    monkeypatch.setattr(run, "wait_for_turn", slowly(0.6))
    assert_decided_by_time(case, said)


def case_of(folder: Path, ruleset: str, steps: list[str]) -> Case:
    (folder / "t.rules").write_text(ruleset)
    (folder / "t.yaml").write_text(
        "lab: host\nruleset: t.rules\nscenarios:\n  - name: one\n    steps:\n"
        + "".join(f"      - {one}\n" for one in steps)
    )
    (case,) = load(folder / "t.yaml")
    assert isinstance(case, Case), case
    return case


def assert_decided_by_time(case: Case, said: str) -> None:
    """The scenario is a broken measurement that says ``said``; without it, it is as expected."""
    with Tracer(KernelCache(cache_dir())) as tracer:
        if said:
            with pytest.raises(BrokenMeasurement, match=said):
                measured_and_judged(case, tracer)
        else:
            assert not any(measured_and_judged(case, tracer))


def slowly(pause: float) -> Callable[[float, Callable[[], object]], None]:
    """:func:`wait_for_turn` of a machine that takes ``pause`` seconds for each packet."""
    return lambda turn, meanwhile: wait_for_turn(max(turn, time.monotonic() + pause), meanwhile)


def measured_and_judged(case: Case, tracer: Tracer) -> list[object]:
    return [differing(case, one) for one in run.run(case, tracer)]
