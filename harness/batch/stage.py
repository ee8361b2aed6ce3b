"""What many packets are sent in: a lab with its ruleset, watched in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harness.lab.lab import Host
    from harness.model.observation import Observation, Step
    from harness.packets.frames import Frame
    from harness.ruleset.load import Ruleset


class Stage(Protocol):
    """:class:`~harness.experiment.run.Experiment`, or :class:`~harness.batch.sift.SiftStage` without functions."""

    @property
    def ruleset(self) -> Ruleset:
        """Of the device under test."""

    @property
    def watches_functions(self) -> bool:
        """Whether functions are watched, and not tracepoints only or neither."""

    @property
    def device(self) -> Host:
        """The device under test."""

    def renew(self) -> bool:
        """Load its ruleset anew, atomically; whether that could be done."""

    def rename(self, ruleset: Ruleset) -> None:
        """Observe its device with ``ruleset``, which that has loaded: one with the same chains."""

    def inject_each(
        self, groups: Iterable[Sequence[Frame]], after: Callable[[Sequence[Step]], bool]
    ) -> list[tuple[Observation, ...] | None]:
        """Send each of ``groups`` by itself, ``after`` each call that, and return what was observed of each."""
