"""Oracles that fail: what becomes of scenarios when something that watches is made to lose what it saw.

As a plugin of pytest it blinds one oracle at random instants, in whichever process scenarios run::

    NFT_BLIND=frame-hidden pytest -p tests.blinding scenarios/ --junitxml=blinded.xml

As a program it runs scenarios once as they are, then once for each kind of :data:`KINDS`, and prints a table: how often
something was lost, and whether the scenarios that it met ended as broken measurements, or as they did without::

    python -m tests.blinding --nft-kernel host --nft-tracer tracepoints scenarios/edge.yaml

A scenario that ends otherwise makes it end with status 1. ``NFT_BLIND`` restricts it to some kinds.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET  # read back from pytest itself
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

KIND, SEED, CHANCE = "NFT_BLIND", "NFT_BLIND_SEED", "NFT_BLIND_CHANCE"
"""The environment variables: what fails, from which seed of chance, and how often (of 1)."""
PROPERTY = "blinded"


class Blinding:
    """Makes something fail with a ``chance`` each time that it could."""

    def __init__(self, kind: str, seed: int, chance: float) -> None:
        self.kind = kind
        self.chance = chance
        self.random = random.Random(seed)
        self.count = 0
        """How often it has failed."""

    def strikes(self) -> bool:
        if self.random.random() >= self.chance:
            return False
        self.count += 1
        return True

    @contextmanager
    def active(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            KINDS[self.kind](self, patch)
            yield


def _wrapped(patch: pytest.MonkeyPatch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by ``around``, which gets the method, then its arguments."""
    method = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **named: around(method, *args, **named))


# --- the kernel's functions ---------------------------------------------------------------------


def _event_lost(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """An event that was submitted is not there when the ring buffer is read."""
    from harness.tracer.events import Ring

    def read(method: Any, ring: Ring) -> bytes:
        records: bytes = method(ring)
        if not records or not self.strikes():
            return records
        at = self.random.randrange(len(records) // ring.record) * ring.record
        return records[:at] + records[at + ring.record :]

    _wrapped(patch, Ring, "read", read)


def _submit_refused(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """The reader does not read for a while, and the ring buffer has one page: the kernel refuses what follows."""
    from harness.tracer import program
    from harness.tracer.base import BaseTracer
    from harness.tracer.events import Ring

    patch.setattr(program, "ring_bytes", lambda _: os.sysconf("SC_PAGESIZE"))
    stopped: dict[int, int] = {}

    def read(method: Any, ring: Ring) -> bytes:
        if stopped.get(id(ring), 0) > 0:
            stopped[id(ring)] -= 1
            return b""
        records: bytes = method(ring)
        return records

    def record(method: Any, tracer: BaseTracer, scope: Any) -> None:
        before = sum(tracer.counts().refused)
        stopped[id(tracer.ring)] = 5 if self.random.random() < self.chance else 0
        method(tracer, scope)
        self.count += sum(tracer.counts().refused) > before

    def counts(method: Any, tracer: BaseTracer) -> Any:
        found = method(tracer)
        if (refused := sum(found.refused)) > seen.get(id(tracer), 0):
            self.count += 1
            seen[id(tracer)] = refused
        return found

    seen: dict[int, int] = {}
    _wrapped(patch, Ring, "read", read)
    _wrapped(patch, BaseTracer, "_record", record)
    _wrapped(patch, BaseTracer, "counts", counts)


def _program_skipped(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """The kernel skips a run of the program, and counts it as missed: the event is not begun."""
    from harness.tracer.base import BaseTracer
    from harness.tracer.events import Ring
    from harness.tracer.session import Counts

    skipped = Counter[int]()

    def read(method: Any, ring: Ring) -> bytes:
        records: bytes = method(ring)
        if not records or not self.strikes():
            return records
        skipped[id(ring)] += 1
        at = self.random.randrange(len(records) // ring.record) * ring.record
        return records[:at] + records[at + ring.record :]

    def counts(method: Any, tracer: BaseTracer) -> Counts:
        found: Counts = method(tracer)
        number = skipped[id(tracer.ring)]
        first, *others = found.entered
        return found._replace(entered=[first - number, *others], missed=found.missed + number)

    _wrapped(patch, Ring, "read", read)
    _wrapped(patch, BaseTracer, "counts", counts)


# --- nf_tables' trace ---------------------------------------------------------------------------


def _trace_overrun(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """The trace's socket has room for a few messages only: the kernel drops what does not fit, and says so."""
    from harness.lab.lab import Host
    from harness.ruleset.nftrace import TraceSocket

    def init(method: Any, trace: TraceSocket, host: Host, **named: Any) -> None:
        method(trace, host, **(named | ({"buffer": 1} if self.random.random() < self.chance else {})))

    def read(method: Any, trace: TraceSocket) -> Any:
        before = trace.overruns
        found = method(trace)
        self.count += trace.overruns - before
        return found

    _wrapped(patch, TraceSocket, "__init__", init)
    _wrapped(patch, TraceSocket, "read", read)


def _message_lost(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """A message of the trace never arrives, and nothing says so."""
    from harness.ruleset.nftrace import TraceSocket

    def read(method: Any, trace: TraceSocket) -> Any:
        found = method(trace)
        if found and self.strikes():
            del found[self.random.randrange(len(found))]
        return found

    _wrapped(patch, TraceSocket, "read", read)


def _message_late(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """A message, and with it all behind it, arrives some readings after its time: maybe those of the next packet."""
    from harness.ruleset.nftrace import TraceSocket

    waiting: dict[int, list[Any]] = {}
    readings: dict[int, int] = {}

    def read(method: Any, trace: TraceSocket) -> Any:
        key = id(trace)
        found = [*waiting.pop(key, []), *method(trace)]
        readings[key] = readings.get(key, 0) - 1
        if readings[key] >= 0:
            waiting[key], found = found, []
        elif found and self.strikes():
            at = self.random.randrange(len(found))
            waiting[key], found = found[at:], found[:at]
            readings[key] = self.random.randrange(1, 8)
        return found

    _wrapped(patch, TraceSocket, "read", read)


# --- what arrives -------------------------------------------------------------------------------


def _frame_hidden(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """A frame that arrived is not captured."""
    from harness.lab.capture import Capture

    def read(method: Any, capture: Capture) -> Any:
        found = method(capture)
        if found and self.strikes():
            del found[self.random.randrange(len(found))]
        return found

    _wrapped(patch, Capture, "read", read)


def _frame_doubled(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """A frame that arrived is captured twice."""
    from harness.lab.capture import Capture

    def read(method: Any, capture: Capture) -> Any:
        found = method(capture)
        if found and self.strikes():
            at = self.random.randrange(len(found))
            found.insert(at, found[at])
        return found

    _wrapped(patch, Capture, "read", read)


# --- programs -----------------------------------------------------------------------------------


def _nft_killed(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """The process that runs nft is killed before it is asked something."""
    from harness.ruleset.process import Child

    def ask(method: Any, child: Child, *args: Any, **named: Any) -> Any:
        if self.strikes():
            with suppress(ProcessLookupError):
                os.kill(child._pid, signal.SIGKILL)
        return method(child, *args, **named)

    _wrapped(patch, Child, "ask", ask)


def _reader_stopped(self: Blinding, patch: pytest.MonkeyPatch) -> None:
    """All of the process that reads stands still for a moment while a packet is on its way, by SIGSTOP."""
    from harness.lab.inject import Output, Wire

    def send(method: Any, sender: Any, frame: bytes) -> None:
        if self.strikes():
            # Not by a child that would have to be waited for: sh ends by itself.
            delay, pause = self.random.random() / 50, 0.2
            command = f"(sleep {delay}; kill -STOP {os.getpid()}; sleep {pause}; kill -CONT {os.getpid()}) &"
            subprocess.run(["sh", "-c", command], check=True)
        method(sender, frame)

    _wrapped(patch, Wire, "send", send)
    _wrapped(patch, Output, "send", send)


KINDS: dict[str, Callable[[Blinding, pytest.MonkeyPatch], None]] = {
    "event-lost": _event_lost,
    "submit-refused": _submit_refused,
    "program-skipped": _program_skipped,
    "trace-overrun": _trace_overrun,
    "message-lost": _message_lost,
    "message-late": _message_late,
    "frame-hidden": _frame_hidden,
    "frame-doubled": _frame_doubled,
    "nft-killed": _nft_killed,
    "reader-stopped": _reader_stopped,
}

# --- the plugin ---------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    kind = os.environ.get(KIND)
    controls = config.getoption("numprocesses", None) or config.getoption("tx", None)
    if kind and not (controls and not hasattr(config, "workerinput")):
        blinding = Blinding(kind, int(os.environ.get(SEED, 0)), float(os.environ.get(CHANCE, 0.2)))
        config.pluginmanager.register(_Blinded(blinding), "blinded")


class _Blinded:
    """Blinds each item, and has its report say how often."""

    def __init__(self, blinding: Blinding) -> None:
        self._blinding = blinding

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        before = self._blinding.count
        try:
            with self._blinding.active():
                return (yield)
        finally:
            if count := self._blinding.count - before:
                item.user_properties.append((PROPERTY, count))


# --- the table ----------------------------------------------------------------------------------


class Ended(msgspec.Struct, frozen=True):
    """How a scenario ended."""

    outcome: str
    message: str
    blinded: int


def ended(report: Path) -> dict[str, Ended]:
    """By the name of each scenario, what a report of JUnit says of it."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        outcome, message = "passed", ""
        for kind in ("failure", "error", "skipped"):
            if (one := case.find(kind)) is not None:
                outcome, message = kind, one.get("message", "")
        count = sum(int(one.get("value", 0)) for one in case.iter("property") if one.get("name") == PROPERTY)
        found[f"{case.get('classname')} {case.get('name')}"] = Ended(outcome, message, count)
    return found


def _run(arguments: list[str], kind: str, seed: int, folder: Path) -> dict[str, Ended]:
    report = folder / f"{kind or 'seeing'}.xml"
    environment = os.environ | {KIND: kind, SEED: str(seed)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.blinding", "-p", "no:cacheprovider"]
    with (folder / "out").open("wb") as out:
        subprocess.run(
            [*command, f"--junitxml={report}", *arguments], env=environment, stdout=out, stderr=out, check=False
        )
    return ended(report)


def main(arguments: list[str]) -> int:
    """Print the table; 1 where a scenario ended otherwise than it may."""
    kinds = os.environ.get(KIND, "").split() or KINDS
    seed = int(os.environ.get(SEED, 0)) or random.randrange(1 << 31)
    print(
        f"{SEED}={seed}\n| what fails | times | scenarios met | broken measurement | as without | otherwise |\n"
        + "|---" * 6
        + "|"
    )
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        seeing = _run(arguments, "", seed, Path(name))
        for kind in kinds:
            blinded = _run(arguments, kind, seed, Path(name))
            met = {key: one for key, one in blinded.items() if one.blinded}
            broken = [key for key, one in met.items() if one.outcome == "error"]
            same = [key for key, one in met.items() if one.outcome == seeing[key].outcome != "error"]
            # What was broken by itself, on a busy machine for instance, says nothing.
            unlike = [key for key, one in met.items() if one.outcome != seeing[key].outcome]
            others = [key for key in unlike if "error" not in (met[key].outcome, seeing[key].outcome)]
            others += seeing.keys() - blinded.keys()
            times = sum(one.blinded for one in met.values())
            print(f"| {kind} | {times} | {len(met)} | {len(broken)} | {len(same)} | {len(others)} |", flush=True)
            wrong += [f"{kind}: {key}: {blinded.get(key)}, not {seeing.get(key)}" for key in others]
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
