"""Tracers that a template has attached, by the options that they were attached with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.tracer import armed


@pytest.fixture
def tracer() -> Iterator[Any]:
    one: Any = object()
    armed.put("auto", 1 << 20, one)
    yield one
    armed.discard(one)


def test_another_engine_or_ring_buffer_is_another_tracer(tracer: Any) -> None:
    assert armed.get("auto", 1 << 20) is tracer
    assert armed.get("kprobe", 1 << 20) is None
    assert armed.get("auto", 1 << 21) is None


def test_one_that_is_discarded_is_closed_by_its_user(tracer: Any) -> None:
    assert armed.holds(tracer)
    assert not armed.holds(object())  # type: ignore[arg-type]
    armed.discard(tracer)
    assert not armed.holds(tracer)
    assert armed.get("auto", 1 << 20) is None
