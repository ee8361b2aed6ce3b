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
share, ``nft_module_lab`` and ``nft_session_lab`` one that several tests share. Such tests run where
scenarios run, and end as these do: what is wrong in what was written, or could not be seen, is an
error; what this kernel cannot do is a skip.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from harness.errors import BrokenMeasurement, HarnessError, Unsupported, short_of
from harness.model import layers
from harness.model.node import LineColumn, Node
from harness.model.problem import unknown
from harness.pytest_plugin import items
from harness.pytest_plugin.calls import document
from harness.pytest_plugin.sent_packet import DiffersError, SentPacket, for_tests, judge_packets
from harness.pytest_plugin.session import SESSION
from harness.pytest_plugin.trial import Trial, paths, properties
from harness.scenario.case import Case
from harness.scenario.files import FIXTURES

if TYPE_CHECKING:
    from harness.scenario.load import Setup


@pytest.fixture
def nft_run(request: pytest.FixtureRequest) -> Runner:
    """Send a packet through a lab made for it."""
    return Runner(request.config)


@pytest.fixture
def nft_lab(request: pytest.FixtureRequest) -> Iterator[Builder]:
    """Build labs for several steps; they live until the test ends."""
    yield from _builder(request.config)


@pytest.fixture(scope="module")
def nft_module_lab(request: pytest.FixtureRequest) -> Iterator[Builder]:
    """Build labs that the tests of a module share; they live until the last of them ends."""
    yield from _builder(request.config)


@pytest.fixture(scope="session")
def nft_session_lab(request: pytest.FixtureRequest) -> Iterator[Builder]:
    """Build labs that all tests share; they live until the session ends."""
    yield from _builder(request.config)


def _builder(config: pytest.Config) -> Iterator[Builder]:
    with ExitStack() as labs:
        yield Builder(config, labs)


class Runner:
    """What ``nft_run`` is."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @for_tests
    def __call__(self, *, send: Mapping[str, Any], expect: Mapping[str, Any] | None = None, **setup: Any) -> SentPacket:
        """Send a packet through a lab made for it; what was seen.

        ``send`` and ``expect`` are those of a scenario, ``setup`` is what stands above ``scenarios:`` in a scenario
        file, ``ruleset`` at least. What is expected can be said here, or asserted of what was seen.
        """
        with OpenLab(self._config, setup) as lab:
            return lab.send(send, expect)


class Builder:
    """What ``nft_lab``, ``nft_module_lab`` and ``nft_session_lab`` are."""

    def __init__(self, config: pytest.Config, labs: ExitStack) -> None:
        self._config = config
        self._labs = labs

    @for_tests
    def __call__(self, *, programs: Collection[str] = (), **setup: Any) -> OpenLab:
        """Build a lab; ``setup`` is what stands above ``scenarios:`` in a scenario file, ``ruleset`` at least.

        ``programs`` are the hosts on which steps will ``listen``, ``connect`` or ``exchange``: they get
        their addresses, and their kernels answer.
        """
        return self._labs.enter_context(OpenLab(self._config, setup, programs))


class OpenLab:
    """A lab with its ruleset. What one step leaves behind in the kernel is there for the next."""

    def __init__(self, config: pytest.Config, setup: Mapping[str, Any], programs: Collection[str] = ()) -> None:
        from harness.scenario import flow, load

        self._setup = load.set_up(*document(setup), layers=layers.NAMES)
        self._config = config
        self._trial = _trial(running(config), self._setup)
        self._steps = 0
        self._stack = ExitStack()
        session = config.stash[SESSION]
        network = self._setup.network
        for name in programs:
            if name not in network.hosts:
                raise unknown(name, network.hosts, "host of the lab", "programs")
        self._stage = self._stack.enter_context(session.open(flow.speaking(programs, network), self._setup.rulesets))
        self._tracer = session.tracer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @for_tests
    def send(self, packet: Mapping[str, Any], expect: Mapping[str, Any] | None = None) -> SentPacket:
        """Send a packet; what was seen of it. Both are as the ``send`` and ``expect`` of a step of a scenario.

        Of several packets, such as with ``count``, it is the last: :meth:`step` returns all.
        """
        return self.step(send=packet, expect=expect)[-1]

    @for_tests
    def nft(self, command: str) -> None:
        """Run nft commands on the device under test in one transaction, as the ``nft`` of a step does."""
        self.step(nft=command)

    @for_tests
    def step(self, **step: Any) -> tuple[SentPacket, ...]:
        """Do what a step of a scenario with these keys does; what was seen of its packets, if it sends any."""
        from harness.scenario import load

        def case(more: Mapping[str, Any]) -> Case:
            return load.case_of(*document({**step, **more}), setup=setup, name=trial.name)

        trial = self._current_trial()
        if self._config.stash[SESSION].tracer is not self._tracer:
            raise BrokenMeasurement(
                "nothing in this lab is traced any more, since a test was interrupted",
                remedy="run the tests again, or build a lab for each test (nft_lab)",
            )
        setup = self._setup._replace(network=self._stage.network)
        now = case({})
        started = time.monotonic()
        self._stage.arm(now.actions)
        measurements = self._stage.act(now.actions[0], self._steps, functools.partial(now.where, 0))
        self._steps += 1
        trial.seconds += time.monotonic() - started
        numbered = dict(enumerate(measurements, len(trial.measurements)))
        trial.measurements += measurements
        trial.mismatches += [()] * len(measurements)
        seen = tuple(SentPacket(measurement, number, case, trial) for number, measurement in numbered.items())
        judge_packets(trial, now, numbered)
        return seen

    def _current_trial(self) -> Trial:
        """The trial of the test that runs; each test that shares the lab has one, and each turn of it."""
        item = running(self._config)
        if all(one is not self._trial for one in item.stash[TRIALS]):
            self._trial = _trial(item, self._setup)
        return self._trial


# --- what reports read --------------------------------------------------------------------------


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


TRIALS = pytest.StashKey[list[Trial]]()
"""Of a test that uses the fixtures."""
RUNNING = pytest.StashKey[pytest.Item]()
"""Of the configuration: the test that runs."""


def begin(item: pytest.Item) -> None:
    """Note that ``item`` runs now."""
    item.config.stash[RUNNING] = item
    if not FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        item.stash.setdefault(TRIALS, [])


def running(config: pytest.Config) -> pytest.Item:
    """The test that runs, which uses the fixtures."""
    item = config.stash[RUNNING]
    item.stash.setdefault(TRIALS, [])
    return item


def add_properties(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Before the report of the ``call``: JUnit properties of what a test has sent through its labs."""
    if TRIALS in item.stash and (call.when == "call" or (call.when == "setup" and call.excinfo)):
        items.forget_properties(item)  # of an earlier turn, whose trials are still there
        for trial in item.stash[TRIALS]:
            item.user_properties += properties(trial.measurements)


def conclude(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Give the ``report`` of a test that has used the fixtures the end that a scenario would have had."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, Unsupported) and not (item.config.option.nft_require or short_of(error)):
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
