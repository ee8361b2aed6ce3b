"""One scenario on the real kernel: what is seen, that it is always the same, and that nothing is left."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from harness.batch import sift
from harness.cache import cache_dir
from harness.errors import BrokenMeasurement, ScenarioError
from harness.experiment.run import Measurement, run
from harness.lab.inject import Wire
from harness.lab.lab import Host
from harness.linux import modules
from harness.model.observation import Verdict
from harness.packets.frames import build
from harness.reading.decision import outcome
from harness.ruleset import nftrace_chains
from harness.ruleset.nftrace import TraceSocket
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.scenario.models.actions import SendAction
from harness.tracer.engines import Symbol
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.session import TraceSession
from harness.tracer.tracer import Tracer
from harness.vm.port import in_guest
from harness.wait import wait_until
from tests.bpf_objects import BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_NEXT_ID, identifiers

pytestmark = pytest.mark.kernel

TIMES = 50
EDGE = Path(__file__).parents[2] / "scenarios/edge.yaml"
BRIDGED = """\
lab:
  hosts:
    a: {interfaces: {eth0: [10.0.0.2/24]}}
    b: {interfaces: {eth0: [10.0.0.3/24]}}
    device: {interfaces: {p0: [], p1: [], br0: []}, bridges: {br0: [p0, p1]}, modules: [br_netfilter]}
  links: [["a:eth0", "device:p0"], ["b:eth0", "device:p1"]]
ruleset: t.nft
scenarios:
  - name: bridged
    send: {from: a, to: b, udp: {dport: 9}}
    expect:
      path: [br_nf_pre_routing, br_handle_frame_finish]
"""


@pytest.fixture(scope="module")
def kept() -> KernelCache:
    return KernelCache(cache_dir())


@pytest.fixture(scope="module")
def tracer(kept: KernelCache) -> Iterator[Tracer]:
    with Tracer(kept) as tracer:
        yield tracer


@pytest.fixture(scope="module")
def case() -> Case:
    found = load(EDGE)[0]
    assert isinstance(found, Case)
    return found


def descriptors() -> int:
    gc.collect()  # a socket goes with the object that holds it
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Memory of this process in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def way(measurement: Measurement) -> list[str]:
    """The functions on the device, in order."""
    hops = measurement.observation.injected[0].hops
    return [hop.function for hop in hops if hop.host == "device"]


def in_order(wanted: list[str], seen: list[str]) -> bool:
    rest = iter(seen)
    return all(name in rest for name in wanted)


def test_a_forwarded_packet_is_seen_by_all_who_watch(case: Case, tracer: Tracer) -> None:
    (measurement,) = run(case, tracer)
    seen, packet = measurement.observation, measurement.packet
    assert seen.loss.total == 0
    assert seen.loss.entered == seen.loss.received > 20
    assert seen.kernel == os.uname().release
    assert seen.injected == (packet,)
    assert packet.sender == "client"
    assert in_order(["ip_rcv", "nft_do_chain", "ip_forward", "nft_do_chain", "ip_output"], way(measurement))
    assert list(dict.fromkeys(hop.host for hop in packet.hops)) == ["client", "device", "server"]
    assert [hop.time for hop in packet.hops] == sorted(hop.time for hop in packet.hops)
    assert not any(hop.detail.get("chain", "").startswith("inet harness") for hop in packet.hops)
    decided = outcome(packet, "device")
    assert decided.verdict is Verdict.ACCEPT
    rule = decided.decided[-1].rule
    assert rule
    assert rule.position
    assert Path(rule.position.file).name == "edge.nft"
    assert "80, 443" in rule.text
    (arrival,) = packet.deliveries
    assert (arrival.host, arrival.device) == ("server", "eth0")
    # From the IP header on but for TTL and checksum it is what was sent.
    assert arrival.frame[26:] == packet.frame[26:]
    assert arrival.frame[22] == packet.frame[22] - 1


def test_what_neighbour_entries_hide_is_noted_once_and_counts_for_nothing(tmp_path: Path, tracer: Tracer) -> None:
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "edge.nft").write_text(
        "table inet t {\ncounter heard {}\nchain c {\ntype filter hook input priority 0; policy drop;\n"
        "counter name heard\ntcp dport 443 accept\n}\n}\n"
    )
    send = "send: {from: client, to: device, ip6: {}, tcp: {dport: 443}}"
    step = f"{{{send}, expect: {{verdict: accept, counters: {{inet t heard: %d}}}}}}"
    (folder / "edge.yaml").write_text(
        "lab: host\nruleset: edge.nft\nscenarios:\n"
        f"  - name: Twice\n    steps:\n      - {step % 1}\n      - {step % 2}\n"
    )
    (case,) = load(folder / "edge.yaml")
    assert isinstance(case, Case)
    for _ in range(2):  # the second time it is known
        first, second = run(case, tracer)
        (note,) = first.notes
        assert note.startswith(
            "the neighbour solicitation of client for 2001:db8:192::10 is dropped on device by inet t c"
        )
        assert second.notes == ()
        assert [one.observation.counters for one in (first, second)] == [{"inet t heard": 1}, {"inet t heard": 2}]
        assert first.observation.loss.total == second.observation.loss.total == 0


TWICE = "{on: server, with: [{udp: {}}, {udp: {}}]}"


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        (
            [f"answer: {TWICE}", "exchange: {from: client, to: server, udp: 53}"],
            "answer 2 of server was never sent: it received at most 1 packet in a step, although none was dropped",
        ),
        (
            ["answer: {on: server, with: [{udp: {}}]}", "exchange: {from: client, to: device, udp: 53}"],
            "server received no packet of connect or exchange, although none was dropped: it has answered nothing",
        ),
        ([f"answer: {TWICE}", "exchange: {from: client, to: server, udp: 99}"], ""),  # dropped, which explains it
        (
            [
                "answer: {on: server, with: [{udp: {}}]}",
                "exchange: {from: client, to: device, udp: 53}",
                "exchange: {from: client, to: server, udp: 53}",
            ],
            "",
        ),
    ],
)
def test_an_answer_that_nothing_asked_for_is_an_error(
    tmp_path: Path, tracer: Tracer, steps: list[str], error: str
) -> None:
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "edge.nft").write_text(
        "table inet t {\nchain c {\ntype filter hook forward priority 0; policy accept;\nudp dport 99 drop\n}\n}\n"
    )
    written = "".join(f"      - {one}\n" for one in steps)
    (folder / "edge.yaml").write_text(
        "lab: router\nruleset: edge.nft\nscenarios:\n  - name: Asked\n    steps:\n"
        f"{written}        expect: {{flow: timeout}}\n"
    )
    (case,) = load(folder / "edge.yaml")
    assert isinstance(case, Case), case.errors
    if error:
        with pytest.raises(ScenarioError, match=error) as raised:
            run(case, tracer)
        assert raised.value.position.line == 6
    else:
        assert run(case, tracer)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_packet_of_before_is_not_of_the_recording(
    case: Case, tracer: Tracer, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    """Such as an acknowledgement that was delayed; here a frame, when all was read and just before or after that."""
    watch = tracer.watch
    (action,) = case.actions
    assert isinstance(action, SendAction)
    assert action.send.tcp
    other = msgspec.structs.replace(action.send, tcp=msgspec.structs.replace(action.send.tcp, sport=50001))
    (frame,) = build(other, case.network)
    late = 0

    @contextmanager
    def with_another(*, hosts: Mapping[int, Host], **more: Iterable[int]) -> Iterator[TraceSession]:
        if not is_recorded:
            send(hosts)
        with watch(hosts=hosts, **more) as session:
            if is_recorded:
                send(hosts)
            yield session

    def send(hosts: Mapping[int, Host]) -> None:
        nonlocal late
        if late < 3:
            (client,) = (host for host in hosts.values() if host.name == "client")
            Wire(client, frame.interface).send(frame.data)
            wait_until(sift.is_received, 10, "the frame to be received")
            late += 1

    (first,) = run(case, tracer)
    monkeypatch.setattr(tracer, "watch", with_another)
    (measurement,) = run(case, tracer)
    assert late
    assert outcome(measurement.packet, "device").verdict is outcome(first.packet, "device").verdict
    assert [step.rule for step in measurement.packet.steps] == [step.rule for step in first.packet.steps]
    assert len(measurement.packet.deliveries) == 1


def test_it_is_always_the_same_and_leaves_nothing(case: Case, tracer: Tracer) -> None:
    (first,) = run(case, tracer)
    verdict = str(outcome(first.packet, "device"))
    run(case, tracer)
    held, memory, namespaces = descriptors(), resident(), set(Path("/run").glob("netns/*"))
    for number in range(TIMES):
        (measurement,) = run(case, tracer)
        assert measurement.observation.loss.total == 0, number
        assert str(outcome(measurement.packet, "device")) == verdict, number
        assert way(measurement) == way(first), number
    # A namespace closes its sockets by itself, after the scenario is over.
    wait_until(lambda: descriptors() <= held, 10, "the last lab's sockets to be closed")
    assert set(Path("/run").glob("netns/*")) == namespaces
    # Where BCC has just compiled, the heap it left behind fills up in steps of 6 MiB.
    assert resident() - memory < 16 << 10


def test_functions_of_modules_that_are_unloaded_are_seen_each_time(
    tmp_path: Path, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(modules.ENVIRONMENT, modules.ALL)
    (tmp_path / "bridge.yaml").write_text(BRIDGED)
    (tmp_path / "t.nft").write_text("table ip t { chain f { type filter hook forward priority 0; policy accept; }; }")
    found = load(tmp_path / "bridge.yaml")[0]
    assert isinstance(found, Case)
    (first,) = run(found, tracer)
    assert {"br_handle_frame_finish", "br_nf_pre_routing"} <= set(way(first))
    for _ in range(2):
        if in_guest():
            assert "br_netfilter" not in modules.loaded()
            assert "br_netfilter" not in {function.module for function in tracer.functions}
        (again,) = run(found, tracer)
        assert way(again) == way(first)


def test_a_closed_tracer_leaves_no_program_and_no_map(case: Case, kept: KernelCache) -> None:
    before = [identifiers(command) for command in (BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID)]
    held = descriptors()
    with Tracer(kept) as tracer:
        run(case, tracer)
        assert identifiers(BPF_PROG_GET_NEXT_ID) > before[0]
        assert identifiers(BPF_MAP_GET_NEXT_ID) > before[1]
    wait_until(
        lambda: [identifiers(command) for command in (BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID)] == before,
        10,
        "the kernel to free programs and maps",
    )
    wait_until(lambda: descriptors() <= held, 10, "the last lab's sockets to be closed")


class TestLoss:
    def test_a_ring_that_is_too_small(self, case: Case, kept: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
        (action,) = case.actions
        assert isinstance(action, SendAction)
        # On 6.1 few functions are armed, and a page holds what one packet makes: there must be several.
        many = msgspec.structs.replace(action, send=msgspec.structs.replace(action.send, count=20))
        with Tracer(kept, ring_bytes=os.sysconf("SC_PAGESIZE")) as tracer:
            read, pauses = tracer.ring.read, iter(range(20))
            monkeypatch.setattr(tracer.ring, "read", lambda: b"" if next(pauses, None) is not None else read())
            with pytest.raises(BrokenMeasurement, match=r"lost \d+ of \d+ events"):
                run(msgspec.structs.replace(case, actions=(many,)), tracer)
            # It says so of what was lost and of nothing after it.
            assert sum(tracer.counts().refused) > 0

    def test_a_reader_that_loses_what_it_read(
        self, case: Case, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = tracer.ring.read
        monkeypatch.setattr(tracer.ring, "read", lambda: read()[tracer.ring.record :])
        with pytest.raises(BrokenMeasurement, match=r"unaccounted \d+"):
            run(case, tracer)

    def test_a_program_that_the_kernel_skips(self, case: Case, kept: KernelCache) -> None:
        """It does when another runs on that CPU: here that which the function is called by."""
        stops = Path("/sys/kernel/tracing/available_filter_functions").read_text().split("\n")
        ours = next(name for name in ("bpf_ringbuf_reserve", "htab_map_update_elem") if name in stops)
        with Tracer(kept) as tracer:
            if tracer.engine_name != "kprobe.multi":
                pytest.skip("before v6.7 the kernel does not tell of kprobes that it skipped")
            assert not tracer.engine.attach("on_entry_plain", {Symbol(ours): 0})
            with pytest.raises(BrokenMeasurement, match=r"missed [1-9]"):
                run(case, tracer)

    def test_a_trace_that_overruns(self, case: Case, tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nftrace_chains, "TraceSocket", functools.partial(TraceSocket, buffer=0))
        with pytest.raises(BrokenMeasurement, match="lost"):
            run(case, tracer)
