"""Fixtures for tests in Python: the labs, rulesets, packets and expectations of scenario files, in the same words.

::

    def test_https(nft_run):
        seen = nft_run(
            ruleset="rulesets/edge.nft",
            send={"from": "client", "to": "server", "tcp": {"dport": 443}},
        )
        assert seen.verdict == "accept"
        assert seen.delivered == "server"

``nft_run`` sends one packet through a lab made for it, ``nft_lab`` builds a lab that several steps
share. Such tests run where scenarios run, and end as these do: what is wrong in what was written, or
could not be seen, is an error; what this kernel cannot do is a skip.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import msgspec
import pytest

from harness.errors import HarnessError, Position, ScenarioError, Unsupported
from harness.model import layers
from harness.model.node import LineColumn, Node
from harness.model.observation import Drop, Observation, ObservedPacket, Rule, Step, Verdict
from harness.model.problem import unknown
from harness.packets.headers import fields
from harness.pytest_plugin import items
from harness.pytest_plugin.calls import caller, document
from harness.pytest_plugin.session import SESSION
from harness.pytest_plugin.trial import Trial, differing, failure_of, paths, properties
from harness.reading.decision import arrivals, ended, outcome
from harness.reading.path import hops_on, layers_of
from harness.scenario.case import Case
from harness.scenario.models.expect import Expect

if TYPE_CHECKING:
    from harness.experiment.run import Measurement
    from harness.scenario.load import Setup

READ_AT_ONCE = frozenset({"counters", "elements", "conntrack", "connections"})
"""Expectations about what a packet leaves behind, and the next one may change."""

P = ParamSpec("P")
T = TypeVar("T")


@pytest.fixture
def nft_run(request: pytest.FixtureRequest) -> Runner:
    """Send a packet through a lab made for it."""
    request.node.stash.setdefault(TRIALS, [])
    return Runner(request.node)


@pytest.fixture
def nft_lab(request: pytest.FixtureRequest) -> Iterator[Builder]:
    """Build labs for several steps; they live until the test ends."""
    request.node.stash.setdefault(TRIALS, [])
    with ExitStack() as labs:
        yield Builder(request.node, labs)


def _for_tests(function: Callable[P, T]) -> Callable[P, T]:
    """Of an error show the test's line, and nothing of what lies behind it."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except (HarnessError, DiffersError) as error:
            raise error.with_traceback(None) from None

    return called


class Runner:
    """What ``nft_run`` is."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    @_for_tests
    def __call__(self, *, send: Mapping[str, Any], expect: Mapping[str, Any] | None = None, **setup: Any) -> SentPacket:
        """Send a packet through a lab made for it; what was seen.

        ``send`` and ``expect`` are those of a scenario, ``setup`` is what stands above ``scenarios:`` in a scenario
        file, ``ruleset`` at least. What is expected can be said here, or asserted of what was seen.
        """
        with OpenLab(self._item, setup) as lab:
            return lab.send(send, expect)


class Builder:
    """What ``nft_lab`` is."""

    def __init__(self, item: pytest.Item, labs: ExitStack) -> None:
        self._item = item
        self._labs = labs

    @_for_tests
    def __call__(self, *, programs: Collection[str] = (), **setup: Any) -> OpenLab:
        """Build a lab; ``setup`` is what stands above ``scenarios:`` in a scenario file, ``ruleset`` at least.

        ``programs`` are the hosts on which steps will ``listen``, ``connect`` or ``exchange``: they get
        their addresses, and their kernels answer.
        """
        return self._labs.enter_context(OpenLab(self._item, setup, programs))


class OpenLab:
    """A lab with its ruleset. What one step leaves behind in the kernel is there for the next."""

    def __init__(self, item: pytest.Item, setup: Mapping[str, Any], programs: Collection[str] = ()) -> None:
        from harness.scenario import flow, load

        self._setup = load.set_up(*document(setup), layers=layers.NAMES)
        self._item = item
        self._trial = _trial(item, self._setup)
        self._steps = 0
        self._stack = ExitStack()
        session = item.config.stash[SESSION]
        network = self._setup.network
        for name in programs:
            if name not in network.hosts:
                raise unknown(name, network.hosts, "host of the lab", "programs")
        self._stage = self._stack.enter_context(session.open(flow.speaking(programs, network), self._setup.rulesets))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._item.user_properties += properties(self._trial.measurements)
        self._stack.close()

    @_for_tests
    def send(self, packet: Mapping[str, Any], expect: Mapping[str, Any] | None = None) -> SentPacket:
        """Send a packet; what was seen of it. Both are as the ``send`` and ``expect`` of a step of a scenario.

        Of several packets, such as with ``count``, it is the last: :meth:`step` returns all.
        """
        return self.step(send=packet, expect=expect)[-1]

    @_for_tests
    def nft(self, command: str) -> None:
        """Run nft commands on the device under test in one transaction, as the ``nft`` of a step does."""
        self.step(nft=command)

    @_for_tests
    def step(self, **step: Any) -> tuple[SentPacket, ...]:
        """Do what a step of a scenario with these keys does; what was seen of its packets, if it sends any."""
        from harness.scenario import load

        def case(more: Mapping[str, Any]) -> Case:
            return load.case_of(*document({**step, **more}), setup=setup, name=self._trial.name)

        setup = self._setup._replace(network=self._stage.network)
        now = case({})
        started = time.monotonic()
        self._stage.arm(now.actions)
        measurements = self._stage.act(now.actions[0], self._steps, functools.partial(now.where, 0))
        self._steps += 1
        self._trial.seconds += time.monotonic() - started
        numbered = dict(enumerate(measurements, len(self._trial.measurements)))
        self._trial.measurements += measurements
        self._trial.mismatches += [()] * len(measurements)
        seen = tuple(SentPacket(measurement, number, case, self._trial) for number, measurement in numbered.items())
        _judge(self._trial, now, numbered)
        return seen


class SentPacket:
    """What was seen of a packet."""

    def __init__(
        self, measurement: Measurement, number: int, case: Callable[[Mapping[str, Any]], Case], trial: Trial
    ) -> None:
        from harness.judge.expectations import refuse_loss  # the controller judges nothing

        self._measurement = measurement
        self._number = number
        self._case = case
        self._trial = trial
        refuse_loss(measurement.observation.loss, measurement.observation.engine)
        self._outcome = outcome(measurement.packet, measurement.observation.device)

    def __repr__(self) -> str:
        return f"<{self._measurement.summary}: {self.ended}>"

    @property
    def observation(self) -> Observation:
        """Everything that was seen while the packet was on its way."""
        return self._measurement.observation

    @property
    def packet(self) -> ObservedPacket:
        """All of it that is about this packet."""
        return self._measurement.packet

    @property
    def verdict(self) -> Verdict | None:
        """What the ruleset decided, equal to its word as in ``== "drop"``; None when no base chain saw the packet."""
        return self._outcome.verdict

    @property
    def with_(self) -> str:
        """For a reject: with what, such as ``icmp port-unreachable``."""
        return self._outcome.with_

    @property
    def rule(self) -> Rule | None:
        """The rule that decided last; None when a policy did, or nothing."""
        return self._outcome.decided[-1].rule if self._outcome.decided else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """What rules and policies of the device said, in order."""
        return tuple(step for step in self.packet.steps if step.host == self.observation.device)

    @property
    def delivered(self) -> str:
        """The host where the packet arrived, or ``nowhere``; several with commas between."""
        return ", ".join(arrivals(self.packet)) or "nowhere"

    @property
    def sees(self) -> Mapping[str, str | int]:
        """The packet as it arrived: ``src``, ``dst``, ``sport``, ``dport``, ``ttl``, and what else
        :func:`~harness.packets.headers.fields` knows; empty when it arrived nowhere, or at the device."""
        frames = [one.frame for one in self.packet.deliveries if one.host in arrivals(self.packet) and one.frame]
        return fields(frames[-1]) if frames else {}

    @property
    def replies(self) -> tuple[Mapping[str, str | int], ...]:
        """What the sender got in answer, each in the form of :attr:`sees`."""
        return tuple(fields(one.frame) for one in self.observation.replies if one.host == self.packet.sender)

    @property
    def dropped(self) -> Drop | None:
        """The kernel's own word on why it gave the packet up."""
        return self.packet.drop

    @property
    def ended(self) -> str:
        """Where and why the packet's way ended, in words."""
        return ended(self.packet, self._outcome, self.observation.device)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that the packet passed on the device, each run of one layer once."""
        return layers_of(hops_on(self.packet, self.observation.device))

    @property
    def path(self) -> FunctionPath:
        """Functions that the packet met on the device, in order."""
        return FunctionPath(self.observation, self.packet)

    @_for_tests
    def expect(self, **words: Any) -> None:
        """Compare with the words of a scenario's ``expect``; what differs is shown as it is for a scenario.

        Where a word is Python's own, put an underscore behind it: ``with_="tcp reset"``.
        """
        if late := sorted(READ_AT_ONCE & words.keys()):
            remedy = f"send(…, expect={{{late[0]!r}: …}}) reads it"
            raise ScenarioError(f"{late[0]} can only be read right after the packet", caller(), remedy=remedy)
        case = self._case({"expect": words})
        ((keys, expect),) = case.actions[0].entries
        measurement = msgspec.structs.replace(self._measurement, expect=expect, keys=keys)
        _judge(self._trial, case, {self._number: measurement})


class FunctionPath(Sequence[str]):
    """Functions, in the order in which they were met.

    ``in`` refuses a function that this kernel cannot trace: that it was not met would be a guess.
    """

    def __init__(self, observation: Observation, packet: ObservedPacket) -> None:
        self._observation = observation
        self._packet = packet
        self._functions = tuple(hop.function for hop in hops_on(packet, observation.device))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._functions[index]

    def __len__(self) -> int:
        return len(self._functions)

    def __repr__(self) -> str:
        return " ".join(self._functions)

    @_for_tests
    def __contains__(self, function: object) -> bool:
        if function not in self._functions:
            from harness.judge.expectations import judge

            place = caller()
            judge(Expect(path=[str(function)]), self._observation, self._packet, at=lambda _: place)
        return function in self._functions


# --- what reports read --------------------------------------------------------------------------


class DiffersError(AssertionError):
    """A packet was not as expected; the text says it all."""

    def __init__(self, text: str, position: Position) -> None:
        super().__init__(text)
        self.position = position


def _trial(item: pytest.Item, setup: Setup) -> Trial:
    """A trial for one lab of a test; the reports read it as that of a scenario."""
    trials = item.stash[TRIALS]
    path, line, _ = item.reportinfo()
    trials.append(
        Trial(
            nodeid=f"{item.nodeid} ({len(trials) + 1})" if trials else item.nodeid,
            name=item.name,
            path=Path(path),
            line=(line or 0) + 1,
            case=Case(
                file=item.path,
                name=item.name,
                id=item.name,
                marks=(),
                network=setup.network,
                rulesets=setup.rulesets,
                actions=(),
                places=Node({}, LineColumn(0, 0)),
            ),
            colour=item.config.stash[SESSION].colour,
        )
    )
    return trials[-1]


def _judge(trial: Trial, case: Case, measurements: Mapping[int, Measurement]) -> None:
    """Compare the packets of a step, by their numbers in ``trial``, with what ``case`` expects.

    Raises :class:`DiffersError`.
    """
    for number, measurement in measurements.items():
        trial.mismatches[number] = differing(case, measurement)
    found = [trial.mismatches[number] for number in measurements]
    if failure := failure_of(case, list(measurements.values()), found, colour=trial.colour):
        trial.failure = failure
        raise DiffersError(failure.text, failure.position)


TRIALS = pytest.StashKey[list[Trial]]()
"""Of a test that has used the fixtures."""


def conclude(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Give the ``report`` of a test that has used the fixtures the end that a scenario would have had."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, Unsupported) and not item.config.option.nft_require:
        path, line, _ = item.reportinfo()
        report.outcome = "skipped"
        report.longrepr = (str(path), (line or 0) + 1, f"Skipped: unsupported here: {error}")
    elif isinstance(error, HarnessError):
        # No say about the ruleset, so no failure, not even an expected one: an error, as in setup.
        report.outcome, report.when = "failed", "setup"
        vars(report).pop("wasxfail", None)
    elif report.failed and not isinstance(error, DiffersError):
        report.sections += [("what was seen", paths(one)) for one in item.stash[TRIALS]]
    trials = item.stash[TRIALS]
    items.attach(item, trials, report)
