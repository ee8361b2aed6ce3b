"""Tracers that are already attached in a template (see :mod:`harness.vm.template`), for sessions in its guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tracer.base import BaseTracer

_ARMED: dict[tuple[str, int], BaseTracer] = {}


def put(engine: str, ring_bytes: int, tracer: BaseTracer) -> None:
    """Keep ``tracer`` for sessions with this engine and this size of ring buffer (bytes)."""
    _ARMED[engine, ring_bytes] = tracer


def get(engine: str, ring_bytes: int) -> BaseTracer | None:
    """The tracer that was attached with these options, or None; it stays open."""
    return _ARMED.get((engine, ring_bytes))


def holds(tracer: BaseTracer) -> bool:
    """Whether ``tracer`` is one of these, which its user must not close."""
    return tracer in _ARMED.values()


def discard(tracer: BaseTracer) -> None:
    """Keep ``tracer`` no longer: its user closes it."""
    for options in [options for options, one in _ARMED.items() if one is tracer]:
        del _ARMED[options]
