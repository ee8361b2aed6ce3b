"""What was expected of a packet and did not happen."""

from __future__ import annotations

from harness.errors import Position
from harness.model.fields import Keys
from harness.model.observation import Value


class Mismatch(Value, frozen=True, kw_only=True):
    """One thing that was expected and did not happen."""

    keys: Keys
    position: Position
    expected: str
    seen: str
    note: str = ""
    """What explains it, or what to write instead; "" when there is nothing to add."""

    @property
    def key(self) -> str:
        """The keys as one word: ``expect.path[2]``."""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).lstrip(".")
