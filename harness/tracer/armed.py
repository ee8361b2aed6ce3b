"""Tracers that were armed before anybody asked for them: in a template (see :mod:`harness.vm.template`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tracer.tracer import BaseTracer

_ARMED: dict[tuple[str, int], BaseTracer] = {}


def put(engine: str, ring_bytes: int, tracer: BaseTracer) -> None:
    """Keep ``tracer`` for whoever asks for this engine and this size of ring buffer."""
    _ARMED[engine, ring_bytes] = tracer


def get(engine: str, ring_bytes: int) -> BaseTracer | None:
    """The tracer that was armed with these options, which stays open; None when there is none."""
    return _ARMED.get((engine, ring_bytes))


def holds(tracer: BaseTracer) -> bool:
    """Whether ``tracer`` is one of these, and not for whoever uses it to close."""
    return tracer in _ARMED.values()
