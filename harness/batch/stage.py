"""What many packets are sent in: a lab with its ruleset, watched in one way or another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from harness.batch.messages import Loaded, Timed
from harness.errors import HarnessError
from harness.lab import neighbours

if TYPE_CHECKING:
    from harness.lab.lab import Host
    from harness.model.observation import Observation, Step
    from harness.packets.frames import Frame
    from harness.ruleset.load import Ruleset

Lab = TypeVar("Lab", covariant=True)

ICMP: Final = {
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv6/icmp/ratelimit": "0",
    "net/ipv4/conf/all/send_redirects": "0",
}
"""Settings of the kernel by which the answer to a packet does not depend on those before; older kernels lack some."""
OF_INTERFACE: Final = {"net/ipv4/conf/{}/send_redirects": "0"}
"""The same, of each interface: redirects have a rate limit that cannot be lifted (ip_rt_send_redirect in route.c)."""


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


def prepare(stage: Stage) -> None:
    """Have each packet be answered in ``stage`` as if it were the first, as far as that is no matter of the ruleset."""
    of_interfaces = {key.format(name): one for name in stage.device.interfaces for key, one in OF_INTERFACE.items()}
    for name, value in (ICMP | of_interfaces).items():
        with suppress(OSError, HarnessError):
            stage.device.namespace.sysctl({name: value})
    neighbours.hold(stage.device)


def loaded(stage: Stage, timed: Timed) -> Loaded:
    """The ruleset of the device of ``stage``."""
    return Loaded(
        kernel=os.uname().release,
        rules=stage.ruleset.rules,
        policies=stage.ruleset.policies,
        whole=stage.watches_functions,
        timed=timed,
    )


class LabsWith(Protocol[Lab]):
    """Labs with the same ruleset, one at a time."""

    def current(self) -> Lab:
        """What measures in the lab, which is as if no packet had been sent there."""

    def leave(self) -> None:
        """Take the lab away; the next one is another."""


class Labs(Generic[Lab]):
    """A lab with its ruleset, and another one when that has come into a state that cannot be taken back."""

    def __init__(self, stack: ExitStack, opened: Callable[[], Lab]) -> None:
        """A lab that is ``opened`` ends with ``stack``."""
        self._stack = stack
        self._opened = opened
        self._current: Lab | None = None

    def current(self) -> Lab:
        """As of :class:`LabsWith`."""
        if self._current is None:
            self._current = self._opened()
        return self._current

    def leave(self) -> None:
        """As of :class:`LabsWith`."""
        self._current = None
        self._stack.close()
