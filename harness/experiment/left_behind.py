"""What packets leave behind on the hosts of a lab: counters, elements of sets and connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar

from harness.errors import BrokenMeasurement, HarnessError, Position, ScenarioError, Unsupported
from harness.experiment.resolution import Resolution
from harness.judge.expectations import same_elements
from harness.judge.flow import describe_connection, fits, numbers
from harness.judge.lateness import REMEDY
from harness.lab.lab import Host, Lab
from harness.model.observation import Connection, Lasting
from harness.ruleset import conntrack, state
from harness.ruleset.conntrack import connections
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import Nft
from harness.scenario.models.expect import Expect, Tracked
from harness.scenario.models.sockets import Wait
from harness.wait import wait_until

T = TypeVar("T")

Where = Callable[..., Position]
"""Where a value of a step stands, by its keys: ``where("expect", "path", 2)``, as of :meth:`Case.where`."""


class LeftBehind:
    """Reads it, in ``lab``, whose hosts have loaded ``rulesets``."""

    def __init__(
        self, lab: Lab, rulesets: Mapping[str, Ruleset], neighbours: Resolution, *, counts: bool = True
    ) -> None:
        self._lab = lab
        self._rulesets = rulesets
        """By host; a step may exchange that of the device under test."""
        self._neighbours = neighbours
        self._counts = counts
        """Whether to read what rules have counted, which takes a dump of the ruleset for each packet."""
        self._tracked: dict[str, Lasting | None] = {}
        """How long the kernels of hosts keep connections: read once, as each state of each protocol has a file."""

    def changed(self) -> None:
        """A step has changed the lab or the ruleset, and maybe settings of a kernel."""
        self._tracked.clear()

    @property
    def _ruleset(self) -> Ruleset:
        return self._rulesets[self._lab.network.device]

    def wait(self, wait: Wait, where: Where) -> None:
        """Wait until the condition holds; a timeout is a :class:`~harness.errors.ScenarioError`."""
        left: list[str] = []

        def holds() -> bool:
            elements = self._elements(wait.elements or ())
            left[:] = (f"{name} has {', '.join(held) or 'no element'}" for name, held in elements.items())
            return same_elements(wait.elements or {}, elements) and self._tracks(wait, left)

        try:
            wait_until(holds, wait.within, "the condition")
        except BrokenMeasurement as timeout:
            raise ScenarioError(f"{timeout.sentence}: {'; '.join(left)}", where()) from None
        except state.MissingError as missing:
            raise ScenarioError(missing.sentence, where("elements", missing.name), remedy=missing.remedy) from None

    def _tracks(self, wait: Wait, left: list[str]) -> bool:
        """Whether the hosts track what ``wait`` says; adds to ``left`` what they do track."""
        wanted = dict(numbers(wait.connections))
        if wait.conntrack == "none":
            wanted.setdefault(None, 0)
        entry = wait.conntrack if isinstance(wait.conntrack, Tracked) else None
        hosts = [*wanted, *([entry.host] if entry else [])]
        tracked = {host: connections(self._lab.hosts[host or self._lab.network.device]) for host in hosts}
        entries = [f"there is {describe_connection(one)}" for found in tracked.values() for one in found]
        left += entries or (["there is no connection"] if tracked else [])
        enough = all(len(tracked[host]) == number for host, number in wanted.items())
        return enough and (entry is None or any(fits(entry, one) for one in tracked[entry.host]))

    def _nft(self, name: str) -> tuple[Nft, str]:
        """By what to ask for an object of a ruleset, and its family, table and name, from ``name``."""
        host, _, inner = name.rpartition(": ")
        host = host or self._lab.network.device
        if host not in self._rulesets:
            raise state.MissingError(name, f"ruleset: {host} loads none, so there is no")
        return self._rulesets[host].nft, inner

    def _elements(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What sets and maps hold, by their names, see :func:`state.elements`."""
        return {name: held for name in names for held in self._read(state.elements, name)}

    def _counters(self, names: Iterable[str]) -> dict[str, int]:
        """What counters have counted, by their names; those of the device without the resolution of neighbours."""
        counted = {name: packets for name in names for packets in self._read(state.counters, name)}
        return self._neighbours.without(counted)

    def _counted(self) -> dict[str, int]:
        """What the rules of the device have counted."""
        if not self._counts or not self._ruleset.counts:
            return {}
        return self._neighbours.without(state.counts_of_rules(self._lab.device))

    def _read(self, read: Callable[[Nft, Iterable[str]], dict[str, T]], name: str) -> Iterator[T]:
        nft, inner = self._nft(name)
        try:
            yield from read(nft, [inner]).values()
        except state.MissingError as missing:
            missing.name = name
            raise

    def _refuse_expired(
        self, expected: Mapping[str, Sequence[object]], elements: Mapping[str, Sequence[str]], sent: float
    ) -> None:
        """Raise :class:`BrokenMeasurement` where an element that is missing may have expired before it was read."""
        late = time.monotonic() - sent
        for name in [one for one, wanted in expected.items() if len(elements[one]) < len(wanted)]:
            for stays in self._read(state.lasting, name):
                if stays is not None and late >= stays:
                    raise BrokenMeasurement(
                        f"{name} was read {late:.1f} s after the last packet, and its elements expire after {stays} s",
                        remedy=REMEDY,
                    )

    def lasting(self, host: Host) -> list[Lasting]:
        """What expires on ``host``: elements and connections."""
        ruleset = self._rulesets.get(host.name)
        if host.name not in self._tracked:
            self._tracked[host.name] = conntrack.lasting(host)
        tracked = self._tracked[host.name]
        return [*(ruleset.lasting if ruleset else ()), *([tracked] if tracked else [])]

    def _refuse_forgotten(self, expect: Expect, found: Mapping[str | None, Sequence[Connection]], sent: float) -> None:
        """Raise :class:`BrokenMeasurement` where a connection that is missing may have expired before it was read."""
        late = time.monotonic() - sent
        missing = {host for host, number in numbers(expect.connections).items() if len(found[host]) < number}
        if isinstance(expect.conntrack, Tracked) and not any(
            fits(expect.conntrack, one) for one in found[expect.conntrack.host]
        ):
            missing.add(expect.conntrack.host)
        for host in missing:
            place = self._lab.hosts[host] if host else self._lab.device
            for what, seconds, asked_by in self.lasting(place):
                if asked_by == "ct" and late >= seconds:
                    raise BrokenMeasurement(
                        f"the connections of {place.name} were read {late:.1f} s after the last packet was sent, and "
                        f"{what} stays {seconds:g} s",
                        remedy=REMEDY,
                    )

    def of(self, expect: Expect, where: Where, *, sent: float, tracked: bool) -> dict[str, Any]:
        """What ``expect`` asks about the device's counters, sets and connections, and what its rules have counted, as
        fields of an observation; with ``tracked`` the connections in any case, if the kernel lists them.

        The last packet was sent at ``sent`` of the monotonic clock.
        """
        device = self._lab.device
        found: dict[str, Any] = {}
        asked = set(numbers(expect.connections))
        if expect.conntrack:
            asked.add(expect.conntrack.host if isinstance(expect.conntrack, Tracked) else None)
        if asked or tracked:
            with nullcontext() if asked else suppress(Unsupported):
                found = {"connections": connections(device), "listed": True}
        if others := {host for host in asked if host not in (None, device.name)}:
            found["elsewhere"] = {host: connections(self._lab.hosts[str(host)]) for host in others}
        if asked:
            here = found["connections"]
            others = found.get("elsewhere", {})
            self._refuse_forgotten(expect, {None: here, device.name: here, **others}, sent)
        try:
            elements = self._elements(expect.elements or ())
            self._refuse_expired(expect.elements or {}, elements, sent)
            return {
                **found,
                "counters": self._counters(expect.counters or ()),
                "counts": self._counted(),
                "elements": elements,
            }
        except state.MissingError as missing:
            key = "counters" if missing.name in (expect.counters or ()) else "elements"
            raise ScenarioError(missing.sentence, where(key, missing.name), remedy=missing.remedy) from None


@contextmanager
def placed(position: Position) -> Iterator[None]:
    """Say where it stands in the scenario what cannot be done."""
    try:
        yield
    except (ScenarioError, Unsupported, BrokenMeasurement):
        raise
    except HarnessError as error:
        raise ScenarioError(error.sentence, position, remedy=error.remedy) from None
