"""What many packets are sent in: a lab with its ruleset, watched in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from harness.errors import HarnessError
from harness.lab import neighbours

if TYPE_CHECKING:
    from harness.lab.lab import Host
    from harness.model.observation import Observation, Step
    from harness.packets.frames import Frame
    from harness.ruleset.load import Ruleset


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
