"""What other namespaces of the same kernel send changes no result: a run is right, or a broken measurement."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.errors import BrokenMeasurement
from harness.experiment.run import run
from harness.lab.lab import Host, Lab
from harness.reading.decision import outcome
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace_chains import TraceChains
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.stacks import MESSAGES, Stacks
from harness.tracer.tracer import Tracer
from harness.wait import wait_until

pytestmark = pytest.mark.kernel

EDGE = Path(__file__).parents[2] / "scenarios/edge.yaml"
OUTCOMES = ["accept", "drop", "reject with tcp reset"]
"""Of the first cases in that file."""
ROUNDS = 2
OPEN = "table inet open { chain forward { type filter hook forward priority 0; }; }\n"
BESIDE = 2
"""Runs beside a router that traces, each of which meets foreign packets by the dozen."""


def received(host: Host) -> int:
    """Packets that have arrived at a host."""
    text = host.namespace.call(Path("/proc/thread-self/net/dev").read_text)
    return next(int(line.split()[2]) for line in text.splitlines() if line.strip().startswith("eth0:"))


@contextmanager
def flooded(lab: Lab) -> Iterator[Host]:
    """A process for each CPU sends UDP through another router, as fast as it can; the host that receives."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            sender = lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stack.callback(sender.close)
            child = os.fork()
            if not child:
                try:
                    while True:
                        sender.sendto(bytes(64), ("10.0.2.2", 4242))
                finally:
                    os._exit(1)
            stack.callback(os.waitpid, child, 0)
            stack.callback(os.kill, child, signal.SIGKILL)
        yield lab.hosts["server"]


def test_a_scenario_beside_a_flood_is_right_or_broken(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    cases = [case for case in load(EDGE) if isinstance(case, Case)][: len(OUTCOMES)]
    right, broken = 0, []
    with Tracer(KernelCache(cache_dir())) as tracer, flooded(lab) as server:
        before, started = received(server), time.monotonic()
        for case, expected in [pair for _ in range(ROUNDS) for pair in zip(cases, OUTCOMES, strict=True)]:
            already = received(server)
            try:
                (measurement,) = run(case, tracer)
            except BrokenMeasurement as lost:
                broken.append(str(lost))
            else:
                assert str(outcome(measurement.packet, "device")) == expected
                assert measurement.observation.loss.total == 0
                right += 1
            assert received(server) > already, "nothing was sent meanwhile"
        seconds = time.monotonic() - started
        rate = (received(server) - before) / seconds
    record_property("right", right)
    record_property("broken", "; ".join(broken) or "none")
    record_property("foreign packets per second", round(rate))
    record_property("seconds", round(seconds))
    assert right


@contextmanager
def traced_elsewhere(lab: Lab, folder: Path) -> Iterator[None]:
    """Another router, which traces a ruleset as well; two programs exchange segments of TCP through it."""
    (folder / "traced.nft").write_text(OPEN)
    client, server = lab.hosts["client"].namespace, lab.hosts["server"].namespace
    with ExitStack() as stack:
        listening = stack.enter_context(server.socket(socket.AF_INET, socket.SOCK_STREAM))
        listening.bind(("10.0.2.2", 4242))
        listening.listen()
        calling = stack.enter_context(client.socket(socket.AF_INET, socket.SOCK_STREAM))
        calling.connect(("10.0.2.2", 4242))
        answering, _ = listening.accept()
        stack.enter_context(answering)
        tracing = TraceChains(lab.device, Ruleset.load(lab.device, folder / "traced.nft"))
        child = os.fork()
        if not child:
            try:
                os.nice(19)  # runs while the scenario waits
                while True:
                    calling.send(b"?")
                    answering.recv(1)
                    answering.send(b"!")
                    calling.recv(1)
            finally:
                os._exit(1)
        stack.callback(os.waitpid, child, 0)
        stack.callback(os.kill, child, signal.SIGKILL)
        wait_until(tracing.read, 10, "the other router to trace a segment")
        yield


def test_what_another_router_traces_is_not_of_a_scenario(lab: Lab, tmp_path: Path) -> None:
    """Of a TCP segment that is sent, no allocation is seen: the sk_buff is the second one of a pair (skb_clone() in
    net/core/skbuff.c). Its address may have been that of a packet of the scenario."""
    scenario = tmp_path / "scenarios/pages.yaml"
    scenario.parent.mkdir()
    (scenario.parent / "open.nft").write_text(OPEN)
    scenario.write_text(
        """\
lab: router
ruleset: open.nft
scenarios:
  - name: A page is fetched
    steps:
      - listen: {on: server, tcp: 80}
      - connect: {from: client, to: server, tcp: 80}
        expect: {flow: connected, rule: policy}
      - exchange: {from: client, to: server, tcp: 80, request: GET / HTTP/1.0, answer: 200 OK}
        expect: {flow: answered, rule: policy}
"""
    )
    (case,) = load(scenario)
    assert isinstance(case, Case)
    with Stacks(KernelCache(cache_dir())) as tracer, traced_elsewhere(lab, tmp_path):
        for _ in range(BESIDE):
            seen = run(case, tracer)
            assert [str(outcome(one.packet, "device")) for one in seen] == ["accept", "accept"]


BY_THE_KERNEL = "table inet reports { chain output { type filter hook output priority 0; }; }\n"
SYSCTLS = {
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv4.neigh.lan0.retrans_time_ms": 10,
    "net.ipv6.conf.lan0.disable_ipv6": 0,
    "net.ipv6.conf.lan0.mldv2_unsolicited_report_interval": 10,
}


@contextmanager
def sent_elsewhere_by(cause: str, lab: Lab, folder: Path) -> Iterator[TraceChains]:
    """Another router, which traces what its kernel sends by itself: ICMP errors of a neighbour's timer, or MLD reports
    of a kernel thread (addrconf_dad_work(), mld_ifc_work())."""
    (folder / "reports.nft").write_text(BY_THE_KERNEL)
    device, client = lab.device.namespace, lab.hosts["client"].namespace
    for name, value in SYSCTLS.items():
        device.call(partial(Path("/proc/sys", name.replace(".", "/")).write_text, str(value)))
    with ExitStack() as stack:
        tracing = TraceChains(lab.device, Ruleset.load(lab.device, folder / "reports.nft"))
        sender = stack.enter_context(client.socket(socket.AF_INET, socket.SOCK_DGRAM))
        disabled = device.call(partial(os.open, "/proc/sys/net/ipv6/conf/lan0/disable_ipv6", os.O_WRONLY))
        stack.callback(os.close, disabled)
        child = os.fork()
        if not child:
            try:
                for turn in count():
                    if cause == "a timer":
                        sender.sendto(b"?", (f"10.0.2.{16 + turn % 200}", 4242))
                    else:
                        os.pwrite(disabled, b"%d" % (turn % 2), 0)
                    select.select([], [], [], 0.02 * (turn % 2) or 0.002)
            finally:
                os._exit(1)
        stack.callback(os.waitpid, child, 0)
        stack.callback(os.kill, child, signal.SIGKILL)
        wait_until(tracing.read, 10, f"{cause} of the other router to send something")
        yield tracing


@pytest.mark.parametrize("cause", ["a timer", "a thread of the kernel"])
def test_what_another_router_sends_by_itself_is_not_of_a_scenario(cause: str, lab: Lab, tmp_path: Path) -> None:
    """It is sent by no process, and received from nowhere: only the namespace says whose it is.

    A timer may meet programs that run, which are skipped then and counted: that run says nothing.
    """
    scenario = tmp_path / "scenarios/many.yaml"
    scenario.parent.mkdir()
    (scenario.parent / "open.nft").write_text(OPEN.replace("forward", "input") + OPEN.replace("forward", "output"))
    scenario.write_text(
        """\
lab: router
ruleset: open.nft
scenarios:
  - name: Many packets, for half a second
    send: {from: client, to: device, icmp: {}, count: 100, rate: 200/second}
    expect: {verdict: accept, rule: policy, reply: {icmp: {type: echo-reply}}}
"""
    )
    (case,) = load(scenario)
    assert isinstance(case, Case)
    with Stacks(KernelCache(cache_dir())) as tracer, sent_elsewhere_by(cause, lab, tmp_path) as elsewhere:
        if not tracer.knows_listeners:
            pytest.skip(f"this kernel has no tracepoint {MESSAGES}")
        elsewhere.read()
        for _ in range(BESIDE):
            try:
                seen = run(case, tracer)
            except BrokenMeasurement as broken:
                if "missed" in str(broken):
                    continue
                raise
            assert {str(outcome(one.packet, "device")) for one in seen} == {"accept"}
            assert {step.chain for one in seen for step in one.packet.steps} == {"input"}
        assert [step for _, step in elsewhere.read() if step], "nothing was evaluated elsewhere meanwhile"


def test_what_a_timer_sends_is_followed(tmp_path: Path) -> None:
    """ICMP errors of a neighbour's timer, many of them while programs run for the packets that come in.

    They are sent by a softirq. One that runs on top of a program finds all programs skipped.
    """
    if "threadirqs" not in Path("/proc/cmdline").read_text().split():
        pytest.skip("this kernel runs softirqs on top of what an interrupt stopped: it wasn't booted with threadirqs")
    scenario = tmp_path / "scenarios/unknown-neighbours.yaml"
    scenario.parent.mkdir()
    (scenario.parent / "open.nft").write_text(
        "table inet open {\n\tchain input {\n\t\ttype filter hook input priority 0\n\t}\n}\n"
    )
    scenario.write_text(
        """\
lab:
  hosts:
    client: {interfaces: {eth0: ["192.0.2.5/24"]}}
    device: {interfaces: {eth0: ["192.0.2.10/24"]}, sysctls: {net.ipv4.neigh.eth0.retrans_time_ms: 20}}
  links: [["client:eth0", "device:eth0"]]
  device: device
ruleset: open.nft
scenarios:
  - name: Hosts that are not there ask
    send: {from: client, to: device, packet: IP(src="192.0.2.128/26")/ICMP(type="echo-request")}
    expect: {verdict: accept, delivered: device}
"""
    )
    (case,) = load(scenario)
    assert isinstance(case, Case)
    with Tracer(KernelCache(cache_dir())) as tracer:
        measurements = list(run(case, tracer))
    assert len(measurements) == 64
    assert {str(outcome(one.packet, "device")) for one in measurements} == {"accept"}
    assert not any(one.observation.loss.total for one in measurements)
    unreachable = [one for one in measurements if len(one.observation.packets) > 2]
    assert unreachable, "no timer ran in the meantime"
