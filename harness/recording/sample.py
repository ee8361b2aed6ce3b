"""What recording works on: one packet as it was observed, and one change of an expectation."""

from __future__ import annotations

from harness.model.fields import Keys
from harness.model.observation import Rule, Value
from harness.model.result import PacketResult
from harness.recording.edit import KeptEntry
from harness.recording.edit import Value as Written


class NotRecordableError(Exception):
    """Nothing can be recorded; the text is the reason, the end of a sentence."""


class Sample(Value, frozen=True, kw_only=True):
    """One packet on one kernel, and the rules that it may have met."""

    sent: PacketResult
    rules: tuple[Rule, ...]
    where: str
    """Kernel and scenario, for a sentence."""


class KeyUpdate(Value, frozen=True, kw_only=True):
    """One key of an ``expect`` that moved."""

    keys: Keys
    """Seen from the ``expect``."""
    value: Written | tuple[KeptEntry | Written, ...] | None
    """None takes the key out; a tuple says what of a list stays."""
    new: bool = False
    """Whether the key was not there."""
