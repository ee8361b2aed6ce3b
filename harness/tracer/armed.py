"""Tracers that were armed before anybody asked for them: in a template (see :mod:`harness.kernel.template`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tracer.tracer import Recorder

_ARMED: dict[tuple[str, int], Recorder] = {}


def put(engine: str, ring_bytes: int, tracer: Recorder) -> None:
    """Keep ``tracer`` for whoever asks for this engine and this size of ring buffer."""
    _ARMED[engine, ring_bytes] = tracer


def get(engine: str, ring_bytes: int) -> Recorder | None:
    """The tracer that was armed with these options, which stays open; None when there is none."""
    return _ARMED.get((engine, ring_bytes))


def holds(tracer: Recorder) -> bool:
    """Whether ``tracer`` is one of these, and not for whoever uses it to close."""
    return tracer in _ARMED.values()
