"""An oracle that loses what it saw leads to a broken measurement, or changes nothing: tests/blinding.py tries more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.errors import BrokenMeasurement, HarnessError
from harness.experiment.run import Measurement, run
from harness.reading.decision import outcome
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer
from tests.blinding import KINDS, Blinding

pytestmark = pytest.mark.kernel

EDGE = Path(__file__).parents[2] / "scenarios/edge.yaml"
UNSEEN = {"event-lost", "program-skipped", "message-lost", "message-late", "frame-hidden", "frame-doubled"}
"""Kinds by which something is not seen, or twice, in any case; others are of no consequence if they come late."""


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(KernelCache(cache_dir())) as tracer:
        yield tracer


@pytest.fixture(scope="module")
def case() -> Case:
    found = load(EDGE)[0]
    assert isinstance(found, Case)
    return found


@pytest.fixture(scope="module")
def seeing(case: Case, tracer: Tracer) -> tuple[str, list[str]]:
    (measurement,) = run(case, tracer)
    return verdict(measurement)


def verdict(measurement: Measurement) -> tuple[str, list[str]]:
    return str(outcome(measurement.packet, "device")), [one.host for one in measurement.packet.deliveries]


# What makes the kernel refuse events needs a tracer of its own: test_run.py, TestLoss.
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"submit-refused"}))
def test_no_false_verdict(kind: str, case: Case, tracer: Tracer, seeing: tuple[str, list[str]]) -> None:
    blinding = Blinding(kind, seed=1, chance=1.0)
    try:
        with blinding.active():
            (blinded,) = run(case, tracer)
    except HarnessError as error:
        if not isinstance(error, BrokenMeasurement) and kind != "nft-killed":
            raise
    else:
        assert kind not in UNSEEN
        assert verdict(blinded) == seeing
    assert blinding.count
