"""Runs of a tracepoint's program that the kernel skips, since an interrupt met the program at work.

Here that is provoked a hundred times a second: TCP's pacing timers send segments out of interrupts, while processes
pass datagrams to each other. In a microVM softirqs are threads, which interrupt nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from harness.cache import cache_dir
from harness.errors import BrokenMeasurement
from harness.experiment.run import run
from harness.linux import bpf, features
from harness.reading.decision import outcome
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.contract import Scope
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.program import LoadedProgram
from harness.tracer.stacks import AFTER, BEFORE, Stacks
from harness.wait import wait_until

CLONE_NEWNET: Final = 0x40000000
SO_MAX_PACING_RATE: Final = 47
CONNECTIONS = 200
RATE = 1_000_000
"""Bytes per second of each; a segment of 536 bytes is sent every 0.5 ms."""
MOST_RUNS = 40
"""Of the scenario; most of them have skipped runs of programs."""
MOST_RECORDINGS = 2000
"""Of some milliseconds each."""


def send_by_timers() -> None:
    """In a namespace of its own, over connections that are paced."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listening = socket.create_server(("127.0.0.1", 4242), backlog=CONNECTIONS)
    pairs = []
    for _ in range(CONNECTIONS):
        sender = socket.socket()
        sender.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, RATE)
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        sender.connect(("127.0.0.1", 4242))
        pairs.append((sender, listening.accept()[0]))
    for sender, receiver in pairs:
        threading.Thread(target=always, args=(sender.sendall, bytes(1 << 16)), daemon=True).start()
        threading.Thread(target=always, args=(receiver.recv, 1 << 20), daemon=True).start()
    signal.pause()


def always(call: Callable[..., object], *arguments: object) -> None:
    while True:
        call(*arguments)


def pass_datagrams() -> None:
    """Buffers are allocated and freed in the context of a process, which interrupts may stop."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        one.send(b"?")
        other.recv(1)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """For each CPU a process that is interrupted, and timers that interrupt it."""
    if os.geteuid():
        pytest.skip("needs root")
    if not (able := features.tracepoints()).able:
        pytest.skip(able.reason)
    with ExitStack() as stack:
        for work in (send_by_timers, pass_datagrams) * (os.cpu_count() or 1):
            child = os.fork()
            if not child:
                try:
                    work()
                finally:
                    os._exit(1)
            stack.callback(os.waitpid, child, 0)
            stack.callback(os.kill, child, signal.SIGKILL)
        yield


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Fifty packets within a quarter of a second."""
    scenario = tmp_path / "scenarios/many.yaml"
    scenario.parent.mkdir()
    (scenario.parent / "open.nft").write_text(
        "table inet open { chain input { type filter hook input priority 0; }; }\n"
    )
    scenario.write_text(
        """\
lab: router
ruleset: open.nft
scenarios:
  - name: Many packets
    send: {from: client, to: device, icmp: {}, count: 50, rate: 200/second}
    expect: {verdict: accept, rule: policy, reply: {icmp: {type: echo-reply}}}
"""
    )
    (found,) = load(scenario)
    assert isinstance(found, Case)
    return found


def test_a_scenario_beside_timers_is_measured(
    case: Case, interrupts: None, record_property: Callable[[str, object], None]
) -> None:
    """A run of it with skipped runs of programs is right, and one that is not is refused for them."""
    skipped, broken = 0, 0
    with Stacks(KernelCache(cache_dir())) as tracer:
        for _ in range(MOST_RUNS):
            before = tracer.skipped()
            try:
                seen = run(case, tracer)
            except BrokenMeasurement as lost:
                assert "missed" in str(lost)  # noqa: PT017 - it is right to be refused for that
                broken += 1
                continue
            assert {str(outcome(one.packet, "device")) for one in seen} == {"accept"}
            assert not any(one.observation.loss.total for one in seen)
            skipped += tracer.skipped() - before
            if skipped >= 30:
                break
    record_property("skipped and made up for", skipped)
    record_property("broken", broken)
    assert skipped >= 30, f"{broken} runs of {MOST_RUNS} were broken measurements"


@pytest.mark.parametrize("missing", [BEFORE, AFTER])
def test_a_skipped_run_that_is_not_made_up_for_is_lost(
    case: Case, interrupts: None, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_one, idle = LoadedProgram.program, bpf.load_nothing(kind=bpf.PROG_TYPE_RAW_TRACEPOINT)
    monkeypatch.setattr(
        LoadedProgram,
        "program",
        lambda self, name, kind: idle if name.endswith(missing) else load_one(self, name, kind),
    )
    with Stacks(KernelCache(cache_dir())) as tracer:
        for _ in range(MOST_RUNS):
            try:
                run(case, tracer)
            except BrokenMeasurement as lost:
                assert "missed" in str(lost)  # noqa: PT017 - what else could break it is no subject here
                break
        else:
            pytest.fail("nothing was skipped")
    os.close(idle)


@pytest.mark.parametrize("moment", ["_record", "skipped"])
def test_a_process_that_is_kept_from_counting_loses_nothing(
    interrupts: None, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are skipped and made up for between its readings of the two: when a recording begins, and when it ends."""
    known, paused = getattr(Stacks, moment), False
    count = Stacks.skipped

    def later(tracer: Stacks, *arguments: object) -> object:
        nonlocal paused
        if not paused and arguments != (Scope.OFF,):
            paused, before = True, count(tracer)
            wait_until(lambda: count(tracer) > before + 1, 5, "runs to be skipped")
        return known(tracer, *arguments)

    monkeypatch.setattr(Stacks, moment, later)
    with Stacks(KernelCache(cache_dir())) as tracer:
        for _ in range(20):
            if moment == "_record":
                paused = False
            with tracer.watch(hosts=(1,), senders=()) as watch:
                paused = paused and moment == "_record"
                assert watch.finish().loss.total == 0
            assert paused


def test_never_is_more_made_up_for_than_was_skipped(interrupts: None) -> None:
    """Recordings follow upon each other while programs are interrupted, and each counts what was skipped in it."""
    with Stacks(KernelCache(cache_dir())) as tracer:
        before, missed = tracer.skipped(), [tracer.missed()]
        for _ in range(MOST_RECORDINGS):
            with tracer.watch(hosts=(1,), senders=()) as watch:
                for _ in range(1000):
                    watch.drain()
                watch.finish()
            missed.append(tracer.missed())
            if (made_up_for := tracer.skipped() - before - (missed[-1] - missed[0])) >= 20:
                break
        assert made_up_for >= 20
        assert missed == sorted(missed)
