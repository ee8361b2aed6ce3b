from __future__ import annotations

import time
from datetime import datetime

import pytest

from harness.errors import Unsupported
from harness.lab import clock
from harness.lab.clock import WallClock


def test_the_clock_of_a_machine_is_not_set() -> None:
    before = time.time()
    with WallClock() as wall, pytest.raises(Unsupported, match="wall clock of this machine is not changed"):
        wall.set("2026-11-27 22:30")
    assert abs(time.time() - before) < 600


def test_it_is_right_again_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "in_guest", lambda: True)
    now = {time.CLOCK_REALTIME: 5_000_000_000, time.CLOCK_MONOTONIC: 1_000_000_000}
    monkeypatch.setattr(time, "clock_gettime_ns", now.__getitem__)
    monkeypatch.setattr(time, "clock_settime_ns", now.__setitem__)
    monkeypatch.setattr(time, "clock_settime", lambda which, seconds: now.update({which: int(seconds * 1e9)}))
    with WallClock() as wall:
        wall.set("2026-11-27 22:30")
        assert now[time.CLOCK_REALTIME] == datetime(2026, 11, 27, 22, 30).astimezone().timestamp() * 1e9
        wall.set("2027-01-01 00:00:00")
        now[time.CLOCK_MONOTONIC] += 7_000_000_000
    assert now[time.CLOCK_REALTIME] == 12_000_000_000
